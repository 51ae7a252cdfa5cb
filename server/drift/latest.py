"""The newest evidence of each device: a summary for lists, and what the device itself is told about its inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from server.store.commissions import newest_moments
from server.store.database import Database
from server.store.lists.devices import newest_evidence_rows, notable_evidence
from server.store.monitoring import evidence as store
from wire.codec import Json
from wire.messages import DriftState

_ANEW: Mapping[str, object] = {
    "phase": "commissioning", "log_value": None, "training_log_value": None, "flagged": False, "new_place": False,
    "cause": "", "provisional": False, "baseline_windows": 0,
}  # fmt: skip
"""What the newest evidence of a device says that was commissioned again after it."""


TOLD_WINDOWS = 3
"""Evidence of a window before the last three says nothing about the inputs of today."""


@dataclass(slots=True)
class DriftStates:
    """The state of each device by its newest evidence, if that is not older than ``kept_ms``.

    One thread notes; any may ask.
    """

    kept_ms: int
    _newest: dict[str, tuple[int, DriftState]] = field(default_factory=dict)

    def load(self, found: Mapping[str, Mapping[str, Json]]) -> None:
        """Note what ``newest_evidence`` returned."""
        self.note({**one, "device": device, "start_ms": one["window_start_ms"]} for device, one in found.items())

    def note(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Note rows of evidence; one that is older than what is known of its device changes nothing."""
        for row in rows:
            device, start_ms = str(row["device"]), int(str(row["start_ms"]))
            if start_ms < self._newest.get(device, (start_ms, DriftState.QUIET))[0]:
                continue
            judged = DriftState.DRIFT if row["flagged"] else DriftState.QUIET
            state = judged if row["phase"] == "judged" else DriftState.LEARNING
            if row.get("new_place") and state is not DriftState.DRIFT:
                state = DriftState.NEW_PLACE
            self._newest[device] = (start_ms, DriftState.FAULT if row["fault"] else state)

    def of(self, device: str, now_ms: int) -> DriftState | None:
        """Return the state of ``device``, None if nothing recent is known."""
        start_ms, state = self._newest.get(device, (0, DriftState.QUIET))
        return state if start_ms > now_ms - self.kept_ms else None


def newest_evidence(
    database: Database, device: str | None = None, *, devices: Collection[str] | None = None
) -> dict[str, dict[str, Json]]:  # fmt: skip
    """Return the newest evidence of ``device``, of ``devices``, or of every device that has any, by device id.

    ``phase``: ``commissioning`` (compared with training) or ``judged`` (compared with its own baseline).
    ``provisional``: judged before the baseline is complete; ``baseline_windows``: what it has of the ``wanted_windows``
    with which that, or ``phase``, changes.
    ``threshold_ratio``: log evidence as a share of the log threshold, 1 and above is an alarm; None before any.
    A device that was commissioned again after its newest window has the phase ``commissioning``, and no evidence yet.
    """
    with database.begin() as connection:
        if devices is not None:
            rows = newest_evidence_rows(connection, devices)
        elif device is not None:
            rows = store.evidence_of(connection, device, 1)
        else:
            rows = store.latest_evidence(connection)
        moments = newest_moments(connection)
    return {str(row["device"]): _summary(row, moments.get(row["device"], 0)) for row in rows}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotableEvidence:
    """The devices whose newest evidence concerns somebody, by id; as ``newest_evidence`` would tell of each.

    ``near``: from the asked share of the threshold on, not flagged. ``unjudged``: without evidence, or not compared
    with their own baseline. ``late``: judged, but by a window that began before the asked moment.
    """

    faulty: tuple[str, ...] = ()
    flagged: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    unjudged: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()


def notable(database: Database, *, near_ratio: float, late_ms: int, there_since_ms: int) -> NotableEvidence:
    """Return what the newest evidence of the fleet has for people; devices of which nothing is notable are not read.

    ``late_ms``: the moment before which the newest window is late, for devices with a message since
    ``there_since_ms``; both UTC ms.
    """
    found: dict[str, list[str]] = {name: [] for name in ("faulty", "flagged", "near", "unjudged", "late")}
    with database.begin() as connection:
        rows = notable_evidence(connection, near_ratio=near_ratio, late_ms=late_ms, there_since_ms=there_since_ms)
    for device, start_ms, phase, fault, flagged, log_value, training, threshold, anew in sorted(rows):
        judged = phase == "judged" and not anew
        value = None if anew else log_value if judged else training
        if fault:
            found["faulty"].append(device)
        if flagged and not anew:
            found["flagged"].append(device)
        elif value is not None and threshold > 0 and round(max(value, 0.0) / threshold, 4) >= near_ratio:
            found["near"].append(device)
        if not judged:
            found["unjudged"].append(device)
        elif start_ms < late_ms:
            found["late"].append(device)
    return NotableEvidence(
        faulty=tuple(found["faulty"]), flagged=tuple(found["flagged"]), near=tuple(found["near"]),
        unjudged=frozenset(found["unjudged"]), late=frozenset(found["late"]),
    )  # fmt: skip


def newest_pools(database: Database) -> dict[str, float]:
    """Return the log evidence of each pool of the newest window as a share of its log threshold, by the pool's name.

    Without pools that are collecting: they open nothing.
    """
    found: dict[str, float] = {}
    with database.begin() as connection:
        rows = store.latest_pools(connection)
    for row in rows:
        if row["collecting"]:
            continue
        name = _pool_name(row)
        if row["log_value"] is not None and row["log_threshold"] > 0:  # with two references, the higher value counts
            found[name] = max(found.get(name, 0.0), float(row["log_value"]) / float(row["log_threshold"]))
    return found


def collecting_pools(database: Database) -> tuple[str, ...]:
    """Return the names of the pools of the newest window that open nothing yet."""
    with database.begin() as connection:
        return tuple(sorted({_pool_name(row) for row in store.latest_pools(connection) if row["collecting"]}))


def _pool_name(row: sa.RowMapping | Mapping[str, object]) -> str:
    return f"{row['attribute']} {row['value']}".strip() or "the whole fleet"


def _summary(row: sa.RowMapping | Mapping[str, object], from_ms: int) -> dict[str, Json]:
    if int(str(row["start_ms"])) < from_ms:
        row = {**row, **_ANEW}
    judged = row["phase"] == "judged"
    value, threshold = row["log_value" if judged else "training_log_value"], row["log_threshold"]
    known = isinstance(value, int | float) and isinstance(threshold, int | float) and threshold > 0
    return {
        "phase": str(row["phase"]), "window_start_ms": int(str(row["start_ms"])), "n": int(str(row["n"])),
        "threshold_ratio": round(max(float(str(value)), 0.0) / float(str(threshold)), 4) if known else None,
        "flagged": bool(row["flagged"]), "new_place": bool(row["new_place"]), "fault": str(row["fault"]),
        "cause": str(row["cause"]),
        "provisional": bool(row["provisional"]), "baseline_windows": int(str(row["baseline_windows"])),
        "wanted_windows": int(str(row["wanted_windows"])),
    }  # fmt: skip
