"""HTML that pages show as one element."""

from __future__ import annotations

from server.dashboard.theme import Markup, device_tag, meter_tag, more_tag, pill_tag, tag
from server.dashboard.views import Status, Tone


def test_texts_and_attributes_are_escaped() -> None:
    """What devices and people named can end neither; markup within markup stays."""
    odd = "\"><script>alert('1')</script>&"
    shown = tag("div", odd, tag("b", odd), look=odd, title=odd)
    assert shown.count("<") == 4
    assert shown.count('"') == 4
    assert "&lt;script&gt;" in shown
    assert odd not in device_tag(odd) + pill_tag(Status(odd, Tone.BAD)) + meter_tag(0.5, Tone.BAD, odd)


def test_a_text_beside_markup_is_escaped_still() -> None:
    """Adding a text to markup makes a text."""
    assert tag("p", Markup("<b></b>") + "<i>") == "<p>&lt;b&gt;&lt;/b&gt;&lt;i&gt;</p>"


def test_says_what_a_bar_shows_and_nothing_of_no_more() -> None:
    """A share beyond the whole is the whole."""
    assert 'aria-valuenow="100"' in meter_tag(1.7, Tone.BAD, "x")
    assert 'aria-label="x"' in meter_tag(1.7, Tone.BAD, "x")
    assert (more_tag(0), "and 3 more" in more_tag(3)) == ("", True)
