"""The page on which a person labels for an hour: by keys alone, by buttons, and two people at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, expect

if TYPE_CHECKING:
    from .conftest import World

pytestmark = pytest.mark.browser
PASSWORD = "a long enough password"


def log_in(page: Page, world: World, name: str) -> Page:
    """Log in as a labeller of that name."""
    if name not in {one.name for one in world.app.parts.users.all()}:
        world.app.parts.users.add(name, "labeller", PASSWORD, by="test")
    page.goto(f"{world.url}/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password or token").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{world.url}/")
    return page


def press(page: Page, key: str, then: int) -> None:
    """Press a key once the picture is there, and wait for the sample ``then``."""
    page.wait_for_function("() => document.querySelector('[data-label-sample] img')?.complete ?? true")
    page.keyboard.press(key)
    expect(page.locator("[data-label-sample]")).to_have_attribute("data-label-sample", str(then))


def test_a_person_labels_by_keys_alone(visitor: Page, world: World, browser: Browser) -> None:
    """A class, a skip, a mark, an undo, a correction, and the model's answer only after one's own."""
    page, samples = log_in(visitor, world, "ada"), world.app.parts.retraining.samples
    page.goto("/label")
    page.get_by_role("link", name="digits", exact=True).press("Enter")
    expect(page.locator("[data-label-sample]")).to_have_attribute("data-label-sample", "1")
    expect(page.get_by_role("status")).to_contain_text("0 of 8")
    expect(page.get_by_role("main")).not_to_contain_text("The model said")
    press(page, "0", 2)
    expect(page.get_by_role("main")).to_contain_text("you said 0; the model said 0, 41 % sure")
    assert (samples.sample(1).label, samples.sample(1).label_by) == ("0", "ada")
    press(page, "s", 3)
    expect(page.get_by_role("status")).to_contain_text("1 of 8, 1 skipped")
    press(page, "b", 4)
    press(page, "m", 4)
    expect(page.get_by_role("main")).to_contain_text("The model said 9")
    press(page, "4", 5)
    assert [(one.label, one.seen) for one in samples.answers(samples.sample(4))] == [("4", True)]
    press(page, "u", 4)
    assert samples.sample(4).label == ""
    press(page, "5", 5)
    press(page, "c", 4)
    expect(page.get_by_role("main")).to_contain_text("Earlier image: you said 5")
    press(page, "3", 5)
    assert samples.sample(4).label == "3"
    assert [one.new_label for one in samples.changes(4)] == ["", "3"]
    with browser.new_context() as context:
        other = log_in(context.new_page(), world, "ben")
        other.goto(f"{world.url}/label?model=digits")
        expect(other.locator("[data-label-sample]")).to_have_attribute("data-label-sample", "2")  # ada skipped it


def test_buttons_do_as_keys_do_and_keys_can_be_turned_off(visitor: Page, world: World) -> None:
    """On a phone there are no keys; who dictates turns them off."""
    page = log_in(visitor, world, "cy")
    page.set_viewport_size({"width": 360, "height": 780})
    page.goto("/label?model=digits")
    shown = page.locator("[data-label-sample]")
    expect(shown).to_have_count(1)
    first = shown.get_attribute("data-label-sample")
    page.get_by_role("switch", name="Answer by keys").click()
    expect(page.locator("[data-label-keys=off]")).to_have_count(1)
    page.keyboard.press("7")
    page.get_by_role("button", name="7, key 7").click()
    expect(shown).not_to_have_attribute("data-label-sample", str(first))
    expect(page.get_by_role("status")).to_contain_text("1 of")
    page.get_by_role("button", name="Undo, key U").click()
    expect(shown).to_have_attribute("data-label-sample", str(first))
    assert world.app.parts.retraining.samples.sample(int(first or 0)).label == ""


def test_a_viewer_may_not_label(visitor: Page, world: World) -> None:
    """The page says who could change that."""
    world.app.parts.users.add("vi", "viewer", PASSWORD, by="test")
    page = log_in(visitor, world, "vi")
    page.goto("/label?model=digits")
    expect(page.get_by_role("main")).to_contain_text("You may look, not label")
    page.goto("/label?trigger=99")
    expect(page.get_by_role("main")).to_contain_text("No such retraining")


def test_what_to_look_at_again_is_listed(operator: Page, world: World) -> None:
    """A marked image, with who marked it, and why no label is doubted."""
    samples = world.app.parts.retraining.samples
    (known, *_) = samples.latest(unlabelled=True)
    samples.mark(known.id, "unsure", "ada", 60_000)
    operator.goto("/label")
    operator.get_by_role("link", name="Labels of digits to look at again").click()
    main = operator.get_by_role("main")
    expect(main).to_contain_text("can't tell, by ada, 1970-01-01 00:01:00 UTC")
    expect(main).to_contain_text("30 are needed")
    operator.get_by_role("link", name=f"Sample {known.id}", exact=True).click()
    operator.wait_for_url(f"**/samples/{known.id}")
