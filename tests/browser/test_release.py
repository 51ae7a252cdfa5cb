"""The pages of releases in a browser: gates with bounds, slices, where it runs, its rollouts, its lineage."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def test_a_release_shows_its_gates_where_it_runs_and_where_it_comes_from(operator: Page) -> None:
    """What is stated, what the bundle lacks, and hostile text as text."""
    operator.goto("/releases")
    operator.get_by_role("link", name="digits-1", exact=True).click()
    expect(operator.get_by_role("heading", name="digits-1", exact=True)).to_be_visible()
    expect(operator.get_by_role("img", name="accuracy_drop: measured 0.001, bound 0.004, limit 0.01")).to_be_visible()
    expect(operator.get_by_text("worst_slice_drop on pi-<zero>")).to_be_visible()
    expect(operator.get_by_text("<i>Few</i> rows of 7.")).to_be_visible()
    expect(operator.get_by_role("img", name="harbour: +3.33 points: 4 lost, 0 won of 120")).to_be_visible()
    expect(operator.get_by_text("lacks golden.npz, mlbom.cdx.json: what these state is not known")).to_be_visible()
    expect(operator.get_by_text("digits-1 was made of data b2b2b2b2b2b2 and recipe a1a1a1a1a1a1")).to_be_visible()
    operator.get_by_text("Model card", exact=True).click()
    expect(operator.get_by_text("<b>A small</b> network.")).to_be_visible()
    operator.get_by_role("link", name="5 devices now, by what they report").click()
    expect(operator).to_have_url("/?release=digits-1")


def test_a_release_that_is_not_there_says_so(operator: Page) -> None:
    """And a name with letters of HTML is no HTML."""
    answer = operator.goto("/release/%3Cb%3Ex")
    assert answer is not None
    assert answer.status == 404
    expect(operator.get_by_text("No such release")).to_be_visible()
    expect(operator.get_by_role("heading", name="<b>x")).to_be_visible()
