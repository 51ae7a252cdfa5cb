"""Merges windows that are no longer judged into days, and days into months: the history of a device, for years.

Decides when and how windows are merged: those of one device, reference, artifact, context and shape are added up, so
every count, the inferences and the reports stay exact; what is lost is the hour. A window is merged when drift
detection can't read it any more: it started and arrived before the horizon. One that a verdict rests on is kept
beside (``pins``). Each portion is one transaction that adds the sums and deletes the parts: after a kill at any moment
a window is in one of them, never in both nor in none.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import sqlalchemy as sa

from server.ingest.packed_counts import Counts, pack, pack_merged, unpack, unpack_many
from server.store.database import Database
from server.store.fleet import hold_devices
from server.store.monitoring import spans as store
from server.store.monitoring.windows import delete_windows, windows_between
from wire.errors import HistogramError
from wire.histogram import Shape

_LOG = logging.getLogger(__name__)
_DAY_MS = 86_400_000
_DEVICES = 64  # at a time: a day of their hourly windows is less than a portion
_SHAPE = ("streams", "classes", "confidence_bins")
_PLAIN = (
    "device", "site", "artifact", "ref_id", "start_ms", "len_ms", "context", "n", "windows", "reports",
)  # fmt: skip
_MAX_COUNT = 2**32 - 1


class Resolution(StrEnum):
    """The length of a span of a device's history. ``HOUR``: as the device sent it, whatever its windows' length."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpan:
    """The counts of one device in one span, from ``windows`` windows of one reference, artifact and context."""

    device: str
    site: str
    start_ms: int
    len_ms: int
    resolution: Resolution
    context: int
    artifact: str
    ref_id: str
    shape: Shape
    n: int
    windows: int
    reports: int
    values: Counts


@dataclass(slots=True, kw_only=True)
class WindowSpans:
    """The history of windows of one fleet. ``turn`` merges; only one thread calls it.

    ``hourly_ms``: so long windows stay as they are, ``daily_ms`` days, and ``monthly_ms`` months, which are deleted
    then; ``portion``: windows of one transaction.
    """

    database: Database
    hourly_ms: int
    daily_ms: int
    monthly_ms: int = 3_660 * _DAY_MS
    portion: int = 4_000
    _swept: tuple[int, int, int] = (0, 0, 0)
    _sweeping: tuple[int, int, int] | None = None
    _after: str = ""

    def turn(self, now_ms: int) -> None:
        """Merge a portion of what is old enough: some devices a turn, all of them once a day."""
        last_ms = month_of(now_ms - self.monthly_ms)[0]
        limits = (day_of(now_ms - self.hourly_ms)[0], month_of(now_ms - self.daily_ms)[0], last_ms)
        if self._sweeping is None:
            if limits == self._swept:
                return
            self._sweeping, self._after = limits, ""
        with self.database.begin() as connection:
            devices = store.devices_after(connection, self._after, _DEVICES)
            hold_devices(connection, devices)  # a report that comes late must not change a window that is merged
            taken = self._merge_windows(connection, devices, self._sweeping[0])
            if taken < self.portion:
                taken = self._merge_days(connection, devices, self._sweeping[1])
            store.delete_old_spans(connection, devices, Resolution.MONTH, self._sweeping[2])
        if taken >= self.portion:
            return
        if len(devices) < _DEVICES:
            self._swept, self._sweeping = self._sweeping, None
        else:
            self._after = devices[-1]

    def history(self, device: str, start_ms: int, end_ms: int, limit: int = 1_000) -> list[WindowSpan]:
        """Return the windows and spans of ``device`` that overlap [start_ms, end_ms), by start, at most ``limit``.

        Raises:
            HistogramError: If one of them is damaged.
        """
        with self.database.begin() as connection:
            merged = store.spans_between(connection, device, start_ms, end_ms, limit)
            hourly = windows_between(connection, start_ms, end_ms, device)[:limit]
        hours = [{**row, "windows": 1, "resolution": Resolution.HOUR} for row in hourly]
        found = [_span(row) for row in [*merged, *hours]]
        return sorted(found, key=lambda span: (span.start_ms, span.len_ms))[:limit]

    def _merge_windows(self, connection: sa.Connection, devices: Sequence[str], before_ms: int) -> int:
        """Merge windows of ``devices`` of days before ``before_ms``; return how many, at most a portion."""
        rows = store.old_windows(connection, devices, before_ms, self.portion)
        pins = store.pins_of(connection, devices)
        pinned = [row for row in rows if _is_pinned(row, pins)]
        store.insert_pinned(connection, [{**row, "values": _repacked(row)} for row in pinned])
        _merge(connection, [{**row, "windows": 1} for row in rows], Resolution.DAY, day_of)
        delete_windows(connection, [row["id"] for row in rows])
        return len(rows)

    def _merge_days(self, connection: sa.Connection, devices: Sequence[str], before_ms: int) -> int:
        """Merge days of ``devices`` of months before ``before_ms``; return how many, at most a portion."""
        rows = store.old_spans(connection, devices, Resolution.DAY, before_ms, self.portion)
        _merge(connection, rows, Resolution.MONTH, month_of)
        store.delete_spans(connection, [store.key_of(row) for row in rows])
        return len(rows)


def _merge(
    connection: sa.Connection, rows: Iterable[Mapping[str, object] | sa.RowMapping], resolution: Resolution,
    span_of: Callable[[int], tuple[int, int]],
) -> None:  # fmt: skip
    """Add ``rows`` to the spans in which they start; a row that can't be read is left out, and logged."""
    parts: dict[tuple[object, ...], list[Mapping[str, object] | sa.RowMapping]] = {}
    for row in rows:
        start_ms, _ = span_of(int(str(row["start_ms"])))
        parts.setdefault(store.key_of({**row, "start_ms": start_ms, "resolution": resolution.value}), []).append(row)
    known = store.spans_at(connection, parts.keys())
    found = [_added([*([known[key]] if key in known else []), *of_key], resolution, span_of)
             for key, of_key in parts.items()]  # fmt: skip
    store.delete_spans(connection, known.keys())
    store.insert_spans(connection, [row for row in found if row is not None])


def _added(
    rows: Sequence[Mapping[str, object] | sa.RowMapping], resolution: Resolution,
    span_of: Callable[[int], tuple[int, int]],
) -> dict[str, object] | None:  # fmt: skip
    """Return the span that ``rows`` (with one key) make; None if none of them can be read."""
    last = rows[-1]
    total = Shape(*(int(str(last[name])) for name in _SHAPE)).total
    whole = [row for row in rows if _reads(row, total)]
    if not whole:
        return None
    start_ms, len_ms = span_of(int(str(last["start_ms"])))
    counts = unpack_many([_bytes(row) for row in whole], total).sum(axis=0)
    summed = {name: sum(int(str(row[name])) for row in whole) for name in ("n", "windows", "reports")}
    same = {name: last[name] for name in ("device", "ref_id", "artifact", "context", "site", *_SHAPE)}
    received_ms = max(int(str(row["received_ms"])) for row in whole)
    return {
        **same, **summed, "start_ms": start_ms, "len_ms": len_ms, "resolution": resolution.value,
        "values": pack_merged(counts), "received_ms": received_ms,
    }  # fmt: skip


def _reads(row: Mapping[str, object] | sa.RowMapping, total: int) -> bool:
    try:
        unpack(_bytes(row), total)
    except HistogramError as error:
        _LOG.error("Window can't be read, and is left out. device=%s start_ms=%s reason=%s", row["device"],
                   row["start_ms"], error)  # fmt: skip
        return False
    return True


def _is_pinned(row: sa.RowMapping, pins: Mapping[str, Sequence[tuple[int, int]]]) -> bool:
    return any(from_ms <= row["start_ms"] < until_ms for from_ms, until_ms in pins.get(row["device"], ()))


def _repacked(row: sa.RowMapping) -> bytes:
    """Return the counts in the coding of today, so that older ones end with the windows that have them."""
    data = _bytes(row)
    try:
        counts = unpack(data, Shape(*(int(row[name]) for name in _SHAPE)).total)
    except HistogramError:
        return data
    return pack(np.minimum(counts, _MAX_COUNT).astype(np.uint32).tobytes())


def _bytes(row: Mapping[str, object] | sa.RowMapping) -> bytes:
    values = row["values"]
    return bytes(values) if isinstance(values, bytes | memoryview) else b""


def _span(row: Mapping[str, object] | sa.RowMapping) -> WindowSpan:
    shape = Shape(*(int(str(row[name])) for name in _SHAPE))
    values: dict[str, Any] = {name: row[name] for name in _PLAIN}
    return WindowSpan(
        **values, resolution=Resolution(str(row["resolution"])), shape=shape,
        values=unpack(_bytes(row), shape.total),
    )  # fmt: skip


def day_of(at_ms: int) -> tuple[int, int]:
    """Return the start and the length (ms) of the day, in UTC, of a time (UTC ms)."""
    return at_ms // _DAY_MS * _DAY_MS, _DAY_MS


def month_of(at_ms: int) -> tuple[int, int]:
    """Return the start and the length (ms) of the month, in UTC, of a time (UTC ms)."""
    day = _EPOCH + dt.timedelta(days=at_ms // _DAY_MS)
    first = day.replace(day=1)
    following = (first + dt.timedelta(days=31)).replace(day=1)
    return (first - _EPOCH).days * _DAY_MS, (following - first).days * _DAY_MS


_EPOCH = dt.date(1970, 1, 1)
