"""A heat map as a table: a row for each cohort, a column for each stream, a number in each cell. Pure; text is escaped.

It is a table, so that the keyboard and a screen reader go through it as through any other; the colour repeats the
number. One hue from light to dark (in the dark scheme from dark to light) stays apart for every kind of colour
blindness. Unknown and below the five named streams have a sign of their own, never the colour of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from itertools import pairwise

from server.store.lists.drift_map import DEVICE
from server.telemetry.drift_map import DriftMap, MapCell, MapRow

LEVELS = (0.05, 0.15, 0.35, 0.7, 1.0)
"""Shares of a threshold at which the next colour begins."""
_LONGEST, _LONGEST_HEAD = 40, 18
_NOT_NAMED = "not among the five streams that hold most of any device"


def heat_map(found: DriftMap, row_link: Callable[[MapRow], str], cell_link: Callable[[MapRow, str], str]) -> str:
    """Return the table of ``found``, with links from its rows and cells (addresses, "" for none)."""
    heads = "".join(
        f'<th scope="col"><span class="tf-mono" title="{escape(one)}">{escape(_cut(one, _LONGEST_HEAD))}</span></th>'
        for one in found.streams
    )
    second = "State" if found.by == DEVICE else "Devices"
    rows = "".join(_row(row, found, row_link, cell_link) for row in found.rows)
    return (
        '<div class="tf-scroll" tabindex="0" role="region" aria-label="Heat map, scrolls sideways">'
        f'<table class="tf-heat"><caption class="tf-unseen">Mean evidence by {escape(found.by)} and stream, in percent '
        "of the threshold</caption>"
        f'<thead><tr><th scope="col">{escape(_cut(found.by))}</th><th scope="col">{second}</th>'
        f'<th scope="col">Most</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def legend() -> str:
    """Return what the colours and signs are."""
    ends = [f"under {100 * LEVELS[0]:.0f} %"]
    ends += [f"{100 * one:.0f} to {100 * two:.0f} %" for one, two in pairwise(LEVELS)]
    ends.append("100 % and more")
    boxes = "".join(f'<li><span class="tf-h tf-h{place}"></span>{text}</li>' for place, text in enumerate(ends))
    return (
        f'<ul class="tf-legend">{boxes}<li><span class="tf-h">·</span>{_NOT_NAMED}: less, but not known</li>'
        '<li><span class="tf-h tf-none"></span>no window: nothing is known</li></ul>'
    )


def level_of(ratio: float) -> int:
    """Return the colour of a share of a threshold, 0 to 5."""
    return sum(ratio >= one for one in LEVELS)


def _row(
    row: MapRow, found: DriftMap, row_link: Callable[[MapRow], str], cell_link: Callable[[MapRow, str], str]
) -> str:  # fmt: skip
    name = row.cohort or f"no {found.by}"
    shown = _linked(row_link(row), escape(_cut(name)))
    states = [(row.flagged, "flagged"), (row.faulty, "faulty"), (row.learning, "learning")]
    if found.by == DEVICE:
        parts = [word for count, word in states if count]
    else:
        parts = [f"{row.windows:,} of {row.devices:,}"] if row.windows < row.devices else [f"{row.devices:,}"]
        parts += [f"{count:,} {word}" for count, word in states if count]
    most = "no window" if row.largest_ratio is None else f"{100 * row.largest_ratio:.0f} %"
    cells = "".join(_cell(row, one, cell_link(row, one)) for one in found.streams)
    head = f'<th scope="row" title="{escape(name)}">{shown}</th>'
    return f'<tr>{head}<td class="tf-left">{", ".join(parts)}</td><td>{most}</td>{cells}</tr>'


def _cell(row: MapRow, stream: str, link: str) -> str:
    if not row.windows:
        return '<td class="tf-none"><span class="tf-unseen">no window</span></td>'
    cell = row.cell(stream)
    if cell is None:
        return f'<td>·<span class="tf-unseen"> {_NOT_NAMED}</span></td>'
    text = f'{100 * cell.evidence_ratio:.0f} % <span class="tf-unseen">{escape(in_words(cell, row))}</span>'
    return (
        f'<td class="tf-h{level_of(cell.evidence_ratio)}" title="{escape(in_words(cell, row))}">'
        f"{_linked(link, text)}</td>"
    )


def in_words(cell: MapCell, row: MapRow) -> str:
    """Return what a cell says."""
    told = " or ".join(cell.words[:3]) or "changed"
    of = f"{cell.devices:,} of {row.windows:,} devices name it"
    return f"{told}; {of}, at most {100 * cell.largest_ratio:.0f} %" if row.windows > 1 else told


def _linked(link: str, text: str) -> str:
    return f'<a href="{escape(link)}">{text}</a>' if link else text


def _cut(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
