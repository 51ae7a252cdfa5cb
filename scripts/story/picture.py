"""Screenshots of the dashboard while the alarm is open, if a browser is installed."""

from __future__ import annotations

import importlib.util
import shutil

from scripts.story.chapters import Story

_WIDTH_PX, _HEIGHT_PX = 1280, 900
_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_SETTLE_MS = 2500


def take(story: Story) -> None:
    """Save ``dashboard.png`` and ``device.png`` in the demo's folder, or print the dashboard's address."""
    browser = shutil.which("chromium")
    url = story.server.url
    if browser is None or importlib.util.find_spec("playwright") is None:
        story.console.say(f"have a look now: {url}/")
        return
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - a development tool, not needed for the story

    device, token = min(story.plan.drifted), (story.fleet.server_dir / "operator.token").read_text().strip()
    folder = story.fleet.root
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=_FLAGS)
        context = chromium.new_context(viewport={"width": _WIDTH_PX, "height": _HEIGHT_PX})
        context.request.post(f"{url}/login", form={"token": token})
        page = context.new_page()
        for name, path in (("dashboard.png", "/"), ("device.png", f"/device/{device}")):
            page.goto(url + path)
            page.wait_for_timeout(_SETTLE_MS)
            page.screenshot(path=str(folder / name))
        chromium.close()
    story.console.say(f"pictures of the dashboard: {folder / 'dashboard.png'}, {folder / 'device.png'}")
