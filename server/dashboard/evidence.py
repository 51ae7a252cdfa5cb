"""Drift evidence and verdicts as the pages show them; pure except for ``read`` and ``pools``.

The chart shows log evidence as a share of the log threshold: at 100 % the device is flagged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.dashboard.views import Cut, Status, Tone, ago, evidence_share, evidence_status
from server.drift.ledger import StoredVerdict
from server.drift.places import NewPlace
from server.drift.verdicts import VerdictKind
from server.rollout.thresholds import devices
from server.store.database import Database
from server.store.monitoring.evidence import evidence_of, latest_pools
from server.wording import duration

_KINDS = {
    VerdictKind.DEVICE_FAULT: Status("Device fault", Tone.BAD),
    VerdictKind.DEVICE_LOCAL: Status("One device sees something new", Tone.WARN),
    VerdictKind.SITE: Status("A site sees something new", Tone.WARN),
    VerdictKind.COHORT: Status("A cohort sees something new", Tone.WARN),
    VerdictKind.FLEET: Status("The whole fleet sees something new", Tone.BAD),
    VerdictKind.RELEASE_REGRESSION: Status("A release made it worse", Tone.BAD),
    VerdictKind.NEW_PLACE: Status("Training does not know this place", Tone.WARN),
}
_NAMED = 6
_EVERYBODY = "the whole fleet"
_POOLS = 8


@dataclass(frozen=True, slots=True)
class StreamShare:
    """One stream's share of a device's evidence, in words."""

    stream: str
    words: str
    share_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartPoint:
    """One window of one device. Ratios are shares of the threshold (in logs), None before there is any.

    ``least``: from what shift on each of the streams that differ most would be noticed, in words. ``baseline_windows``
    of ``wanted_windows``: how far the baseline is; ``provisional``: the window is judged before that is complete.
    """

    device: str
    start_ms: int
    n: int
    judged: bool
    ratio: float | None
    training_ratio: float | None
    flagged: bool
    fault: str
    cause: str
    streams: tuple[StreamShare, ...]
    least: str = ""
    provisional: bool = False
    baseline_windows: int = 0
    wanted_windows: int = 0

    @property
    def shown_ratio(self) -> float | None:
        """The ratio to show: against the device's own baseline, or against training while commissioning."""
        return self.ratio if self.judged else self.training_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool: its name, its number of devices, and its evidence as a share of the pools' threshold."""

    name: str
    members: str
    ratio: float
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCard:
    """One open verdict, worded for a person; ``provisional``: most of its baselines are not complete yet."""

    id: int
    kind: Status
    where: str
    cause: str
    action: str
    devices: Cut[str]
    since: str
    provisional: bool = False


def read(database: Database, device: str | None, limit: int) -> tuple[ChartPoint, ...]:
    """Return the newest ``limit`` windows (of one device, or of all), newest first."""
    with database.begin() as connection:
        return tuple(point({str(key): value for key, value in row.items()}) for row in
                     evidence_of(connection, device, limit))  # fmt: skip


def pools(database: Database) -> Cut[PoolView]:
    """Return the pools of the newest window, the whole fleet first, then those with the most evidence."""
    with database.begin() as connection:
        rows = latest_pools(connection)
    views = []
    for row in rows:
        ratio = evidence_share(_number(row["log_value"]), _number(row["log_threshold"]) or 0.0) or 0.0
        name = f"{row['attribute']} {row['value']}".strip() or _EVERYBODY
        status = Status("collecting") if row["collecting"] else evidence_status(ratio, flagged=bool(row["alarm"]))
        views.append(PoolView(name=name, members=devices(row["members"]), ratio=ratio, status=status))
    found: dict[str, PoolView] = {}
    for view in sorted(views, key=lambda view: (view.name != _EVERYBODY, -view.ratio, view.name)):
        found.setdefault(view.name, view)  # during a rollout a pool has two references; the higher one counts
    return Cut.of(tuple(found.values()), _POOLS)


def point(row: Mapping[str, object]) -> ChartPoint:
    """Return the point of a stored row of evidence."""
    threshold = _number(row["log_threshold"]) or 0.0
    return ChartPoint(
        device=str(row["device"]), start_ms=int(_number(row["start_ms"]) or 0), n=int(_number(row["n"]) or 0),
        judged=row["phase"] == "judged", ratio=evidence_share(_number(row["log_value"]), threshold),
        training_ratio=evidence_share(_number(row["training_log_value"]), threshold), flagged=bool(row["flagged"]),
        fault=str(row["fault"]), cause=str(row["cause"]), streams=_streams(row["streams"]),
        least=_least(row.get("summaries")), provisional=bool(row.get("provisional")),
        baseline_windows=int(_number(row.get("baseline_windows")) or 0),
        wanted_windows=int(_number(row.get("wanted_windows")) or 0),
    )  # fmt: skip


def commissioning_text(newest: ChartPoint, stages: Sequence[int], window_ms: int) -> str:
    """Return from when on the device is judged, or judged for good; "" once its baseline is complete.

    ``stages``: after how many windows a baseline is estimated.
    """
    missing = newest.wanted_windows - newest.baseline_windows
    if newest.wanted_windows and missing <= 0 and not newest.judged:
        own, enough = newest.baseline_windows, newest.wanted_windows
        return f"Not judged yet: it has {own} windows of its usual, but fewer than eight devices have {enough}."
    if missing <= 0 or (newest.judged and not newest.provisional):
        return ""
    have = f"{newest.baseline_windows} of {newest.wanted_windows} windows"
    left = f"{duration(missing * window_ms)} of windows without an alarm are missing"
    if newest.provisional:
        return f"Judged provisionally, with {have} of its usual: {left} until alarms are as rare as promised."
    small = " Fewer than eight devices are judged only with their whole baseline." if len(stages) > 1 else ""
    if newest.wanted_windows == stages[0]:
        small = ""
    return f"Not judged yet: {have} of its usual are collected, {left}.{small}"


def unlike_text(newest: ChartPoint, contexts: int) -> str:
    """Return what a device's difference from training says under a release with ``contexts``; "" if it is not shown.

    A release without named slices has one context, and can't tell a new place from the ordinary difference of places.
    """
    if contexts != 1 or newest.flagged or newest.training_ratio is None or newest.training_ratio < 1:
        return ""
    return (
        "Its inputs are unlike the training data. This release names no places, so it can't tell whether this one is "
        "new to training: it is compared with its own usual, and only labels show whether its answers are right."
    )


def _least(summaries: object) -> str:
    """Return from what shift on its streams would be noticed, the least first: "luma_mean from 0.3 sd".

    What most of the fleet does alike is taken off, so only a shift of this device alone is.
    """
    figures = summaries if isinstance(summaries, Mapping) else {}
    known = sorted((one["least_sd"], name) for name, one in figures.items() if "least_sd" in one)
    listed = ", ".join(f"{name} from {least:.1f} sd" for least, name in known)
    return f"A lasting shift of this device alone would be noticed: {listed}" if listed else ""


def verdict_card(verdict: StoredVerdict, now_ms: int, place: NewPlace | None = None) -> VerdictCard:
    """Return the card of one verdict; ``place``: what is known of it, if it is one on a new place."""
    where = [f"{name} {value}" for name, value in verdict.attributes.items()]
    pooled = verdict.kind in {VerdictKind.SITE, VerdictKind.COHORT, VerdictKind.FLEET}
    where += [f"model {verdict.model}"] if pooled and verdict.model else []
    subject = ", ".join(where) or (verdict.release if verdict.kind is VerdictKind.RELEASE_REGRESSION else "")
    windows = "1 window" if verdict.windows == 1 else f"{verdict.windows} windows"
    return VerdictCard(
        id=verdict.id,
        kind=_KINDS[verdict.kind],
        provisional=verdict.provisional,
        where=subject,
        cause=verdict.cause if place is None else f"{verdict.cause}; {place.risk}",
        action=verdict.action,
        devices=Cut.of(verdict.devices, _NAMED),
        since=f"{windows}, opened {ago(verdict.opened_ms, now_ms)}",
    )


def series(points: Sequence[ChartPoint]) -> dict[str, list[list[float | int | None]]]:
    """Return the two lines of the chart, oldest first: [start_ms, percent of the threshold]."""
    ordered = sorted(points, key=lambda one: one.start_ms)
    return {
        "evidence": [[one.start_ms, _percent(one.ratio)] for one in ordered],
        "training": [[one.start_ms, _percent(one.training_ratio)] for one in ordered],
    }


def _percent(ratio: float | None) -> float | None:
    return None if ratio is None else round(100 * ratio, 1)


def _streams(value: object) -> tuple[StreamShare, ...]:
    rows = value if isinstance(value, list) else []
    return tuple(
        StreamShare(str(row.get("stream", "")), str(row.get("words", "")), float(row.get("share_ratio", 0.0)))
        for row in rows
        if isinstance(row, dict)
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
