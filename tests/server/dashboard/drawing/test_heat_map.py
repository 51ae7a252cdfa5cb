"""The heat map as a table."""

from xml.etree import ElementTree as ET

import pytest

from server.dashboard.drawing.heat_map import heat_map, legend, level_of
from server.telemetry.drift_map import DriftMap, MapCell, MapRow

HOSTILE = "\"><script>alert('x')</script>&" + 60 * "x"


def row(cohort: str, windows: int, *cells: MapCell) -> MapRow:
    """Return a row of three devices."""
    largest = 0.9 if windows else None
    return MapRow(
        cohort=cohort, devices=3, windows=windows, flagged=1, faulty=0, learning=0, largest_ratio=largest, cells=cells
    )


def drawn(*rows: MapRow, by: str = "site") -> ET.Element:
    """Return the map of two streams as a tree: it is well formed."""
    found = DriftMap(
        at_ms=0, newest_ms=0, window_ms=1, by=by, rows=rows, cohorts=len(rows), streams=("luma", HOSTILE), all_streams=2
    )  # fmt: skip
    return ET.fromstring(heat_map(found, lambda _: f"/?{HOSTILE}", lambda one, stream: f"/?{one.cohort}{stream}"))  # noqa: S314 - made here


def texts(tree: ET.Element) -> list[str]:
    """Return what the cells say, hidden text for screen readers included."""
    return ["".join(cell.itertext()) for cell in tree.iter("td")]


def test_unknown_less_and_nothing_are_three_things() -> None:
    """A cohort without a window, a stream that nobody names, and evidence of 0."""
    zero = MapCell(stream="luma", evidence_ratio=0.0, largest_ratio=0.0, devices=1, words=("darker",))
    said = texts(drawn(row("a", 2, zero), row("b", 0)))
    assert said[2:4] == [
        "0 % darker; 1 of 2 devices name it, at most 0 %",
        "· not among the five streams that hold most of any device",
    ]
    assert said[5:] == ["no window", "no window", "no window"]


def test_hostile_names_are_text() -> None:
    """Of cohorts, streams, attributes and directions; the whole is in the title where it is cut."""
    cell = MapCell(stream=HOSTILE, evidence_ratio=0.5, largest_ratio=0.6, devices=2, words=(HOSTILE,))
    tree = drawn(row(HOSTILE, 3, cell), by=HOSTILE)
    assert "script" not in {one.tag for one in tree.iter()}
    assert [one.get("title") for one in tree.iter("th")][-1] == HOSTILE
    assert {one.get("scope") for one in tree.iter("th")} == {"col", "row"}


@pytest.mark.parametrize(("ratio", "level"), [(0.0, 0), (0.049, 0), (0.05, 1), (0.999, 4), (1.0, 5), (7.0, 5)])
def test_colours_begin_at_their_shares(ratio: float, level: int) -> None:
    """At 100 % a device would be flagged, so that has a colour of its own."""
    assert level_of(ratio) == level


def test_the_legend_names_every_colour_and_sign() -> None:
    """Six colours, what is not known, and what is not there."""
    assert legend().count("<li>") == 8
    ET.fromstring(legend())  # noqa: S314 - made here
