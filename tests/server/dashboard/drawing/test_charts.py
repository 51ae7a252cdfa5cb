"""Small pictures as SVG."""

import re
from xml.etree import ElementTree as ET

from server.dashboard.drawing import charts

HOSTILE = "\"><script>alert('x')</script>&"


def test_every_picture_is_well_formed_and_has_its_words() -> None:
    """Also with hostile text."""
    pictures = (
        charts.histogram([0.5, 0.5], [0.25, 0.75], [1.0], said=HOSTILE), charts.histogram((), (), (), said=HOSTILE),
        charts.lines([[[(0, 1.0), (5, 2.0)], [(9, 3.0)]], []], 0, 10, "ms", said=HOSTILE),
        charts.lines([], 0, 0, "", said=HOSTILE),
        charts.days([("11-01", 1.0), ("11-02", None)], "MiB", said=HOSTILE), charts.days([], "", said=HOSTILE),
    )  # fmt: skip
    for picture in pictures:
        root = ET.fromstring(picture)  # noqa: S314 - made here
        assert (root.get("role"), root.get("aria-label")) == ("img", HOSTILE)
        assert "script" not in {one.tag for one in root.iter()}


def test_bars_are_as_high_as_their_shares() -> None:
    """The largest goes to the top; an empty bin has no bar, the reference a step."""
    picture = charts.histogram([0.6, 0.3, 0.0, 0.1], [0.25] * 4, [], said="")
    bars = re.search(r'class="tf-hist-bar" d="([^"]*)"', picture)
    assert bars is not None
    tops = [float(top) for top in re.findall(r"V([\d.]+)h", bars[1])]
    assert [round(100 - top, 1) for top in tops] == [92.0, 46.0, 15.3]
    assert len(re.findall(r"H", picture.split("tf-step")[1])) == 4


def test_a_gap_of_a_line_stays_a_gap() -> None:
    """Two parts are two runs, and a point alone can be seen."""
    picture = charts.lines([[[(0, 1.0), (1, 1.0)], [(9, 1.0)]]], 0, 10, "", said="")
    drawn = re.search(r'tf-line-0" d="([^"]*)"', picture)
    assert drawn is not None
    assert (drawn[1].count("M"), drawn[1].count("L"), drawn[1].endswith("h.01")) == (2, 1, True)


def test_a_day_without_a_report_has_no_bar() -> None:
    """Nothing sent and nothing known look alike only in height, so neither is drawn; the words count the days."""
    picture = charts.days([("a", 2.0), ("b", None), ("c", 1.0)], "", said="")
    assert picture.split("tf-hist-bar")[1].count("M") == 2


def test_values_below_zero_have_their_place() -> None:
    """The lowest level is then the lowest value."""
    picture = charts.lines([[[(0, -10.0), (10, 10.0)]]], 0, 10, "", said="")
    assert ">-10<" in picture
    assert ">10<" in picture


def test_values_that_are_all_zero_have_a_readable_level() -> None:
    """Their line lies on the axis, and the level above is a round number."""
    for picture in (
        charts.lines([[[(0, 0.0), (5, 0.0)]]], 0, 10, "", said=""),
        charts.days([("11-01", 0.0)], "", said=""),
    ):
        assert ">1<" in picture
        assert "1e-" not in picture
    assert ">0<" in charts.lines([[[(0, -2.0), (5, 0.0)]]], 0, 10, "", said="")
