"""Merges drift reports into one window per (device, start, reference, artifact, context).

Two reports of one window (the agent restarted in the middle of it, or one came late) are added up; the merged
window gets a new ``id``, so that a service that reads by cursor sees it again. Does not decide whether a report is a
duplicate (``ingest`` does, by its key) nor interpret windows (``drift`` does).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import sqlalchemy as sa

from server.ingest.drift_batches import WindowReport
from server.ingest.packed_counts import pack, unpack
from server.store.database import Database
from server.store.monitoring import windows as store
from wire.drift_report import SealedReport
from wire.errors import HistogramError
from wire.histogram import Counters, Shape, merge

_MAX_COUNT = 2**32 - 1
_MAX_TIME_MS = 2**53
_MAX_CONTEXT = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWindow:
    """One window of one device. ``artifact`` and ``ref_id`` are the first 32 hex digits of their SHA-256.

    ``data``: the counts as ``packed_counts`` has them.
    ``id`` grows with every arrival and merge: it is the cursor of ``Windows.since``.
    """

    id: int
    device: str
    site: str
    start_ms: int
    len_ms: int
    n: int
    context: int
    artifact: str
    ref_id: str
    shape: Shape
    data: bytes
    received_ms: int
    reports: int = 1

    @property
    def counters(self) -> Counters:
        """The counts as ``wire.histogram.Counters``, for merging."""
        return Counters(self.shape, self.n, tuple(self.values.tolist()))

    @property
    def values(self) -> np.ndarray:
        """The counts as int64, (shape.total,), in the order of ``wire.histogram.Counters.values``."""
        return unpack(self.data, self.shape.total)


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of the fleet. Safe to share between threads."""

    database: Database

    def since(self, cursor: int, limit: int = 5_000) -> list[StoredWindow]:
        """Return up to ``limit`` windows that arrived or changed after ``cursor``, by id."""
        with self.database.begin() as connection:
            return [_window(row) for row in store.windows_since(connection, cursor, limit)]

    def arrived(self, cursor: int, from_ms: int) -> tuple[int, int | None]:
        """Return the newest cursor after ``cursor``, and the earliest start of those windows from ``from_ms`` on.

        The start is None when no such window starts at ``from_ms`` or later.
        """
        with self.database.begin() as connection:
            return store.arrived_since(connection, cursor, from_ms)

    def between(self, start_ms: int, end_ms: int, *, device: str | None = None) -> list[StoredWindow]:
        """Return the windows that start in [start_ms, end_ms), by start and device."""
        with self.database.begin() as connection:
            return [_window(row) for row in store.windows_between(connection, start_ms, end_ms, device)]

    def cursor(self) -> int:
        """Return the cursor after the newest window."""
        with self.database.begin() as connection:
            return store.latest_cursor(connection)


def check_report(report: WindowReport) -> bytes:
    """Return the counts of ``report``, as native uint32.

    Raises:
        HistogramError: If a count is over 2^32 - 1, the window has no length, or a time or context is out of range.
    """
    head = report.head
    times_fit = 0 < head.window_len_ms < _MAX_TIME_MS and head.window_start_ms < _MAX_TIME_MS
    if not times_fit or head.context > _MAX_CONTEXT or report.words is None:
        message = (
            f"Expected a window with a length, a context up to {_MAX_CONTEXT} and counts up to {_MAX_COUNT}, "
            f"got {head.window_len_ms} ms from {head.window_start_ms}, context {head.context}"
        )
        raise HistogramError(message)
    return report.words


def fold(
    connection: sa.Connection, reports: Iterable[tuple[str, str, WindowReport]], now_ms: int
) -> list[HistogramError]:
    """Merge (site, device, report) into the stored windows; return an error for each that did not fit.

    The caller owns the transaction and makes sure that no report is merged twice.
    """
    rows: list[dict[str, object]] = []
    problems: list[HistogramError] = []
    for site, device, report in reports:
        try:
            rows.append(_row(site, device, report.head, check_report(report)) | {"received_ms": now_ms})
        except HistogramError as error:
            problems.append(error)
    stored = store.windows_at(connection, {_key(row) for row in rows})
    folded: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        key = _key(row)
        try:
            folded[key] = _merged(folded.get(key) or stored.get(key), row)
        except HistogramError as error:
            problems.append(error)
    store.delete_windows(connection, [int(stored[key]["id"]) for key in folded if key in stored])
    store.insert_windows(connection, list(folded.values()))
    return problems


def _key(row: Mapping[str, object]) -> tuple[object, ...]:
    return (row["device"], row["start_ms"], row["ref_id"], row["artifact"], row["context"])


def _merged(older: Mapping[str, object] | sa.RowMapping | None, row: dict[str, object]) -> dict[str, object]:
    if older is None:
        return row
    total = merge(_counters(older), _counters(row))
    return {
        **row,
        "n": total.n,
        "len_ms": max(int(str(older["len_ms"])), int(str(row["len_ms"]))),
        "reports": int(str(older["reports"])) + 1,
        "values": pack(np.minimum(total.values, _MAX_COUNT).astype(np.uint32).tobytes()),
    }


def _row(site: str, device: str, head: SealedReport, words: bytes) -> dict[str, object]:
    shape = head.shape
    return {
        "device": device, "site": site, "start_ms": head.window_start_ms, "len_ms": head.window_len_ms,
        "context": head.context, "artifact": head.artifact, "ref_id": head.ref_id, "streams": shape.streams,
        "classes": shape.classes, "confidence_bins": shape.confidence_bins, "n": head.n, "reports": 1,
        "values": pack(words),
    }  # fmt: skip


def _counters(row: Mapping[str, object] | sa.RowMapping) -> Counters:
    values = row["values"]
    shape = Shape(*(int(str(row[name])) for name in ("streams", "classes", "confidence_bins")))
    counts = unpack(values if isinstance(values, bytes) else b"", shape.total)
    return Counters(shape, int(str(row["n"])), tuple(counts.tolist()))


def _window(row: sa.RowMapping) -> StoredWindow:
    return StoredWindow(
        id=row["id"], device=row["device"], site=row["site"], start_ms=row["start_ms"], len_ms=row["len_ms"],
        n=row["n"], context=row["context"], artifact=row["artifact"], ref_id=row["ref_id"],
        shape=_same_shape(row["streams"], row["classes"], row["confidence_bins"]), data=bytes(row["values"]),
        received_ms=row["received_ms"], reports=row["reports"],
    )  # fmt: skip


@lru_cache(maxsize=256)
def _same_shape(streams: int, classes: int, confidence_bins: int) -> Shape:
    """Return the shape, cached: a fleet has few shapes and thousands of windows of each."""
    return Shape(streams, classes, confidence_bins)
