"""The page in a browser: it follows the answers, and its own rules let it load what it needs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from tests.edge_agent.local_api.conftest import Running
from tests.edge_agent.sinks.receiver import until


@pytest.mark.browser
def test_the_page_follows_the_answers(running: Callable[..., Running], drop: Callable, pictures: list[bytes]) -> None:
    """Before and after the page is open: label, picture and a row each; nothing is refused or thrown."""
    api = pytest.importorskip("playwright.sync_api")
    one, problems = running(), []
    drop({"a.png": pictures[0]})
    until(lambda: one.get("/v1/answers"))
    with ThreadPoolExecutor(1) as other:  # the browser tests may keep a loop of playwright in this thread
        other.submit(_follow, api, one, problems, lambda: drop({"<b>.png": pictures[1]})).result()
    assert [words for words in problems if "favicon" not in words and "404" not in words] == []


def _follow(api: ModuleType, one: Running, problems: list[str], drop_another: Callable[[], None]) -> None:
    """Open the page, drop another picture and see it appear."""
    with api.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda words: problems.append(words.text) if words.type == "error" else None)
        page.goto("http://{}:{}/".format(*one.api.address))
        api.expect(page.locator("#last tr")).to_have_count(1)
        drop_another()
        api.expect(page.locator("#last tr")).to_have_count(2)
        api.expect(page.locator("#last tr").first).to_contain_text("<b>.png")
        api.expect(page.locator("#label")).to_have_text(one.get("/v1/answers")[-1]["label"])
        assert page.locator("#picture").evaluate("image => image.naturalWidth") == 9
        browser.close()
