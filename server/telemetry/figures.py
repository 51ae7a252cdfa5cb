"""Figures over time that a device sent: latency, inferences, memory, temperature, disk and spool.

Decides what counts as absent: an agent sends 0 for a figure that its machine does not provide, so 0 of such a figure is
no value. Times and values are of the device and may be anything; what is no finite number is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import median
from typing import Any

from server.store.database import Database
from server.store.monitoring.ingest import batches_by_id, batches_within
from wire.messages import Stream

_DAY_MS = 86_400_000
POINTS = 120
"""A line has at most so many points: each the median of its part of the span."""
BATCHES = 300
"""So many batches of a stream are read at most, spread evenly over the span."""
_BREAK = 3  # times the usual distance of two points: a longer gap is shown as one


class TimeSpan(StrEnum):
    """How far back figures go."""

    HOURS = "3 hours"
    DAY = "1 day"
    WEEK = "1 week"
    FORTNIGHT = "2 weeks"

    @property
    def length_ms(self) -> int:
        """Its length."""
        days = {TimeSpan.HOURS: 1 / 8, TimeSpan.DAY: 1.0, TimeSpan.WEEK: 7.0, TimeSpan.FORTNIGHT: 14.0}
        return round(days[self] * _DAY_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSpec:
    """One line of a figure: the ``key`` of its value in a row, its ``name``, and a ``factor`` to the unit shown.

    ``zero``: whether 0 is a value; otherwise the device does not provide it. ``negative``: whether values may be.
    """

    key: str
    name: str
    factor: float = 1.0
    zero: bool = False
    negative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSpec:
    """A figure: its title and unit, and the lines of the rows of ``stream`` that it shows."""

    title: str
    unit: str
    stream: Stream
    lines: tuple[LineSpec, ...]


_MIB = 1 / 1024**2
FIGURES = (
    FigureSpec(title="Latency of the model", unit="ms", stream=Stream.INFER, lines=(
        LineSpec(key="p50_ms", name="median"), LineSpec(key="p95_ms", name="95th percentile"),
    )),
    FigureSpec(title="Inferences a report", unit="", stream=Stream.INFER, lines=(
        LineSpec(key="n", name="answered", zero=True), LineSpec(key="errors", name="failed", zero=True),
    )),
    FigureSpec(title="Memory of the agent", unit="MiB", stream=Stream.HW, lines=(
        LineSpec(key="rss_bytes", name="resident", factor=_MIB), LineSpec(key="pss_bytes", name="its own", factor=_MIB),
    )),
    FigureSpec(title="Processor", unit="% of a core", stream=Stream.HW, lines=(
        LineSpec(key="cpu_ratio", name="used", factor=100.0, zero=True),
    )),
    FigureSpec(title="Temperature", unit="°C", stream=Stream.HW, lines=(
        LineSpec(key="temperature_celsius", name="hottest zone", negative=True),
    )),
    FigureSpec(title="Free on its disk", unit="MiB", stream=Stream.HW, lines=(
        LineSpec(key="disk_free_bytes", name="free", factor=_MIB),
    )),
    FigureSpec(title="Waiting to be sent", unit="KiB", stream=Stream.HW, lines=(
        LineSpec(key="spool_bytes", name="spool", factor=1 / 1024, zero=True),
    )),
)  # fmt: skip
"""The figures, in the order in which they are shown."""

Point = tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLine:
    """One line: its parts, each an unbroken run of (UTC ms, value); none if the device does not report it."""

    name: str
    parts: tuple[tuple[Point, ...], ...] = ()

    @property
    def points(self) -> tuple[Point, ...]:
        """All points, the oldest first."""
        return tuple(point for part in self.parts for point in part)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFigure:
    """A figure with its lines; ``reports``: rows of its stream that were read."""

    title: str
    unit: str
    lines: tuple[MeasuredLine, ...]
    reports: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFigures:
    """The figures of a device from ``from_ms`` to ``until_ms``.

    Of ``batches`` batches that arrived in that time, ``read`` were read. ``newest_ms``: of the newest of any time, 0
    if there is none.
    """

    from_ms: int
    until_ms: int
    figures: tuple[MeasuredFigure, ...]
    batches: int
    read: int
    newest_ms: int


def device_figures(database: Database, device: str, span: TimeSpan, now_ms: int) -> DeviceFigures:
    """Return the figures of ``device`` over the ``span`` before ``now_ms``."""
    from_ms, rows, there, newest_ms = now_ms - span.length_ms, dict[Stream, list[_Row]](), 0, 0
    read = 0
    with database.begin() as connection:
        for stream in (Stream.INFER, Stream.HW):
            found, newest = batches_within(connection, device, stream.value, from_ms, now_ms)
            chosen = found[:: max(-(-len(found) // BATCHES), 1)]
            there, read, newest_ms = there + len(found), read + len(chosen), max(newest, newest_ms)
            rows[stream] = list(_rows(batches_by_id(connection, chosen), from_ms, now_ms))
    figures = tuple(
        MeasuredFigure(
            title=spec.title, unit=spec.unit, reports=len(rows[spec.stream]),
            lines=tuple(_line(line, rows[spec.stream], from_ms, span.length_ms) for line in spec.lines),
        )
        for spec in FIGURES
    )  # fmt: skip
    return DeviceFigures(
        from_ms=from_ms, until_ms=now_ms, figures=figures, batches=there, read=read, newest_ms=newest_ms
    )


_Row = tuple[int, Mapping[str, Any]]


def _rows(batches: Iterable[Mapping[Any, Any]], from_ms: int, until_ms: int) -> Iterable[_Row]:
    """Yield (time, row) of the rows in [from_ms, until_ms]; one without a time that fits has that of its batch."""
    for batch in batches:
        for row in batch["rows"] if isinstance(batch["rows"], list) else ():
            if isinstance(row, dict):
                at_ms = _number(row.get("at_ms"))
                fits = at_ms is not None and batch["t0_ms"] <= at_ms <= max(batch["received_ms"], batch["t0_ms"])
                found_ms = int(at_ms) if fits and at_ms is not None else int(batch["t0_ms"])
                if from_ms <= found_ms <= until_ms:
                    yield found_ms, row


def _line(spec: LineSpec, rows: Sequence[_Row], from_ms: int, length_ms: int) -> MeasuredLine:
    """Return a line of medians, broken where nothing was reported for long."""
    width_ms = max(length_ms // POINTS, 1)
    parts: dict[int, list[Point]] = {}
    for at_ms, row in rows:
        value = _number(row.get(spec.key))
        if value is not None and (value or spec.zero) and (value >= 0 or spec.negative):
            parts.setdefault((at_ms - from_ms) // width_ms, []).append((at_ms, value * spec.factor))
    points = [
        (round(median(at for at, _ in some)), median(value for _, value in some)) for _, some in sorted(parts.items())
    ]
    return MeasuredLine(name=spec.name, parts=_unbroken(points, width_ms))


def _unbroken(points: Sequence[Point], width_ms: int) -> tuple[tuple[Point, ...], ...]:
    """Return the runs of ``points`` between gaps; a device that reports seldom has longer distances, but no gaps."""
    if not points:
        return ()
    usual_ms = max(width_ms, median([two[0] - one[0] for one, two in pairwise(points)] or [0]))
    runs = [[points[0]]]
    for before, point in pairwise(points):
        if point[0] - before[0] > _BREAK * usual_ms:
            runs.append([])
        runs[-1].append(point)
    return tuple(map(tuple, runs))


def _number(value: object) -> float | None:
    """Return ``value`` if it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
