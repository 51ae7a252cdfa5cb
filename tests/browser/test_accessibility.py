"""axe, the checker of the field, finds nothing serious on any page, and no page is wider than its window.

``TINYFLEET_SCREENSHOTS=FOLDER scripts/test --nightly tests/browser/test_accessibility.py`` keeps a picture of each page
at each width, light and dark.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
PAGES = (
    "/",
    "/alerts?id=1",
    "/device/meter-07",
    "/drift",
    "/drift?by=device&stream=laplacian",
    "/rollouts",
    "/releases",
    "/release/digits-1",
    "/events",
    "/samples",
    "/samples/1",
    "/label",
    "/label?model=digits",
    "/label/review?model=digits",
    "/retraining",
    "/account",
    "/users",
    "/users/ada",
    "/tokens",
    "/acts",
    "/search?text=meter",
    "/settings",
    "/about",
    "/jobs",
    "/software",
    "/jobs/job-failed",
)
WIDTHS = {"desktop": (1280, 900), "tablet": (820, 1100), "phone": (360, 780)}
IMPACTS = ("serious", "critical")


def findings(page: Page) -> list[str]:
    """Return what axe finds of ``IMPACTS`` in the page that is open."""
    response: dict[str, Any] = Axe().run(page).response
    return [
        f"{one['id']}: {'; '.join(node['failureSummary'] + node['html'] for node in one['nodes'][:3])}"
        for one in response["violations"]
        if one["impact"] in IMPACTS
    ]


def look(page: Page, path: str, *, dark: bool) -> None:
    """Open ``path`` with a colour scheme, and wait for its content."""
    cookie = {"name": "tinyfleet_dark", "value": "1" if dark else "0", "url": page.url}
    page.context.add_cookies([cookie])  # type: ignore[list-item]
    page.goto(path)
    expect(page.locator("main, .q-page").first).to_be_visible()
    expect(page.locator("body.body--dark")).to_have_count(int(dark))
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize(
    ("width", "dark"),
    [
        ("phone", True),
        *(
            pytest.param(width, dark, marks=pytest.mark.nightly)
            for width in WIDTHS
            for dark in (False, True)
            if (width, dark) != ("phone", True)
        ),
    ],
)
def test_axe_finds_nothing_serious_and_no_page_is_wider_than_the_window(admin: Page, width: str, *, dark: bool) -> None:
    """Contrast, names of buttons and fields, what the keyboard reaches; only a table scrolls sideways.

    An admin's pages have all that those of others have, and more.
    """
    operator = admin
    wide, high = WIDTHS[width]
    operator.set_viewport_size({"width": wide, "height": high})
    found = {}
    for path in PAGES:
        look(operator, path, dark=dark)
        if folder := os.environ.get("TINYFLEET_SCREENSHOTS"):
            name = f"{path.strip('/').replace('/', '-') or 'overview'}-{width}-{'dark' if dark else 'light'}.png"
            operator.screenshot(path=Path(folder) / name, full_page=True)
        over = operator.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")
        found[path] = findings(operator) + ([f"{over} pixels wider than the window"] if over > 0 else [])
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_axe_finds_nothing_serious_where_people_log_in(visitor: Page) -> None:
    """The page that needs no script, with and without an error."""
    visitor.goto("/login")
    assert findings(visitor) == []
    visitor.get_by_label("Name").fill("operator")
    visitor.get_by_label("Password or token").fill("wrong")
    visitor.get_by_role("button", name="Log in").click()
    expect(visitor.get_by_role("alert")).to_be_visible()
    assert findings(visitor) == []


def test_the_checker_can_fail(visitor: Page) -> None:
    """A field without a name is found, so silence means something."""
    visitor.goto("/login")
    visitor.evaluate("document.querySelectorAll('label').forEach(one => one.remove())")
    assert [line.split(":")[0] for line in findings(visitor)] == ["label"]


def test_a_row_of_a_table_is_a_card_on_a_phone(operator: Page) -> None:
    """The reason of a failure is not out of sight to the right, and each value has its heading."""
    operator.set_viewport_size({"width": 360, "height": 6_000})  # nothing is out of sight below
    operator.goto("/")
    row = operator.locator("tr", has_text="meter-08")
    for text in ("refused: digest mismatch", "drift,"):
        expect(row.get_by_text(text)).to_be_in_viewport(ratio=1)
    label = row.locator("td").nth(4).evaluate("cell => getComputedStyle(cell, '::before').content")
    assert label == '"Update"'
    expect(operator.locator("thead").first).to_be_hidden()


def test_a_long_name_is_cut_with_the_whole_beside_the_pointer(operator: Page) -> None:
    """A table stays as wide as the window."""
    operator.goto("/")
    link = operator.get_by_role("link", name="meter-08").last
    assert link.get_attribute("title") == "meter-08"
