"""A heat map of one window: which streams hold the evidence of which cohort. A look, not a test.

Nothing is alarmed by a cell, and the budget of alarms says nothing about it: of many cells the largest is always some
one's. Verdicts decide, with the evidence of many windows and pools of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.errors import UnknownReleaseError
from server.registry.versions import Versions
from server.store.database import Database
from server.store.lists.drift_map import DEVICE, RELEASE, SITE, MapQuery, cohort_rows, references_in, stream_rows
from server.store.monitoring.evidence import latest_evidence_ms, latest_pools

COHORTS, STREAMS = 40, 16
"""Rows and columns of a map by default: those with most evidence."""
_BUILT_IN, _OFFERED = (SITE, RELEASE, DEVICE), 12
_REF = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCell:
    """What a stream holds of the evidence of a cohort.

    ``evidence_ratio``: the mean over the cohort's devices with a window, as a share of the threshold; a device counts
    with 0 if the stream is not among the five that hold most of its evidence, so the mean is at least this.
    ``largest_ratio``: of one device. ``devices``: that name the stream. ``words``: how it moved, the most frequent way
    first.
    """

    stream: str
    evidence_ratio: float
    largest_ratio: float
    devices: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MapRow:
    """A cohort: its ``devices``, how many of them have evidence in this ``windows``, and what that is.

    ``largest_ratio`` None: no device has a window. ``cells``: of the streams that any device names.
    """

    cohort: str
    devices: int
    windows: int
    flagged: int
    faulty: int
    learning: int
    largest_ratio: float | None
    cells: tuple[MapCell, ...]

    def cell(self, stream: str) -> MapCell | None:
        """Return the cell of ``stream``; None if no device names it, which is not the same as 0."""
        return next((one for one in self.cells if one.stream == stream), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftMap:
    """The map of one window.

    ``at_ms``: its start, None if there is no evidence at all; ``newest_ms``: of the newest. ``rows``: the cohorts with
    most evidence first, of ``cohorts``; ``streams``: those that hold most in these rows, of ``all_streams``.
    ``references``: how many the evidence is against: each device's is against its own.
    """

    at_ms: int | None
    newest_ms: int | None
    window_ms: int
    by: str
    rows: tuple[MapRow, ...] = ()
    cohorts: int = 0
    streams: tuple[str, ...] = ()
    all_streams: int = 0
    references: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftExplorer:
    """Makes maps of a fleet whose windows are ``window_ms`` long. Safe to share between threads.

    A map is kept for ``kept_s`` and given to whoever asks for the same: evidence changes once a window.
    """

    database: Database
    versions: Versions
    window_ms: int
    kept_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    _kept: dict[Hashable, tuple[float, DriftMap]] = field(default_factory=dict)

    def explore(  # noqa: PLR0913 - what is added up, and how much is shown
        self, by: str = "site", *, at_ms: int | None = None, release: str = "", within: tuple[str, str] | None = None,
        stream: str = "", cohorts: int = COHORTS, streams: int = STREAMS,
    ) -> DriftMap:  # fmt: skip
        """Return the map of the window at ``at_ms``, by default the newest, ``by`` site, release, device or attribute.

        ``release``: evidence against its reference alone. ``within``: of devices with this (attribute, value) alone.
        ``stream``: the cohorts with most evidence in it first.

        Raises:
            UnknownReleaseError: If there is no such release.
        """
        asked, now_s = (by, at_ms, release, within, stream, cohorts, streams), self.clock()
        for old in [one for one, (at_s, _) in list(self._kept.items()) if now_s - at_s >= self.kept_s]:
            self._kept.pop(old, None)
        known = self._kept.get(asked)
        if known is not None:
            return known[1]
        refs, window_ms = self._references(release), self.window_ms
        with self.database.begin() as connection:
            newest_ms = latest_evidence_ms(connection)
            if newest_ms is None:
                return DriftMap(at_ms=None, newest_ms=None, window_ms=window_ms, by=by)
            start_ms = (newest_ms if at_ms is None else at_ms) // window_ms * window_ms
            query = MapQuery(start_ms=start_ms, end_ms=start_ms + window_ms, by=by, refs=refs, within=within)
            rows, count = cohort_rows(connection, query, stream=stream, limit=cohorts)
            parts = stream_rows(connection, query, [row["cohort"] for row in rows])
            references = len(references_in(connection, query))
        cells = _cells(parts, {row["cohort"]: int(row["windows"]) for row in rows})
        names = _ordered(cells, stream)
        shown = names[:streams]
        found = DriftMap(
            at_ms=start_ms, newest_ms=newest_ms // window_ms * window_ms, window_ms=window_ms, by=by, cohorts=count,
            rows=tuple(_row(row, cells.get(row["cohort"], ()), set(shown)) for row in rows),
            streams=shown, all_streams=len(names), references=references,
        )  # fmt: skip
        self._kept[asked] = now_s, found
        return found

    def attributes(self) -> tuple[str, ...]:
        """Return by what a fleet is usually looked at: site, release, device, and what its pools are of."""
        with self.database.begin() as connection:
            pooled = sorted({str(row["attribute"]) for row in latest_pools(connection)} - {"", *_BUILT_IN})
        return (*_BUILT_IN, *pooled[:_OFFERED])

    def _references(self, release: str) -> tuple[str, ...] | None:
        if not release:
            return None
        found = {one.custom.ref_id[:_REF] for one in self.versions.releases() if one.name == release}
        if not found:
            message = f"Expected a release of the registry, got {release[:80]!r}: see fleet-server releases list"
            raise UnknownReleaseError(message)
        return tuple(sorted(found))


def _ordered(cells: Mapping[str, Sequence[MapCell]], first: str) -> tuple[str, ...]:
    """Return the streams of ``cells``: ``first``, if it is one, then those that hold most."""
    weights: dict[str, float] = {}
    for cell in (cell for of_cohort in cells.values() for cell in of_cohort):
        weights[cell.stream] = weights.get(cell.stream, 0.0) + cell.evidence_ratio
    return tuple(sorted(weights, key=lambda name: (name != first, -weights[name], name)))


def _cells(parts: Sequence[Any], windows: dict[str, int]) -> dict[str, tuple[MapCell, ...]]:
    """Return the cells by cohort; directions of one stream are added up."""
    grouped: dict[tuple[str, str], list[Any]] = {}
    for part in parts:
        if part["stream"] and part["sum"] is not None:
            grouped.setdefault((part["cohort"], str(part["stream"])), []).append(part)
    found: dict[str, tuple[MapCell, ...]] = {}
    for (cohort, stream), ways in grouped.items():
        ways.sort(key=lambda one: (-one["devices"], str(one["words"])))
        cell = MapCell(
            stream=stream, evidence_ratio=sum(float(one["sum"]) for one in ways) / max(windows[cohort], 1),
            largest_ratio=max(float(one["largest"]) for one in ways), devices=sum(int(one["devices"]) for one in ways),
            words=tuple(dict.fromkeys(str(one["words"] or "") for one in ways)),
        )  # fmt: skip
        found[cohort] = (*found.get(cohort, ()), cell)
    return found


def _row(row: Any, cells: Sequence[MapCell], streams: set[str]) -> MapRow:  # noqa: ANN401 - a row of the store
    shown = sorted((one for one in cells if one.stream in streams), key=lambda one: (-one.evidence_ratio, one.stream))
    largest = row["largest"]
    return MapRow(
        cohort=row["cohort"], devices=int(row["devices"]), windows=int(row["windows"]), flagged=int(row["flagged"]),
        faulty=int(row["faulty"]), learning=int(row["learning"]),
        largest_ratio=None if largest is None else float(largest), cells=tuple(shown),
    )  # fmt: skip
