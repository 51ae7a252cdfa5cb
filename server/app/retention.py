"""How long the rows of each table stay, in one place, and the service that deletes what is too old.

Rows stay for a reason, are merged into another table (``ingest.window_spans`` does that), or are deleted when they are
too old. A table without a rule fails ``tests/server/test_retention.py``. Files without a row are not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias

import sqlalchemy as sa

from server.store.certificates import delete_certificates_before
from server.store.commissions import delete_commissions_before, delete_model_changes_before
from server.store.database import Database
from server.store.events import ACT, delete_events_before
from server.store.fleet import delete_claims_before, delete_commands_before
from server.store.labels.answers import delete_leases_before
from server.store.monitoring.alarms import delete_alarms_before, delete_paths_before, delete_shares_before
from server.store.monitoring.alerts import (
    delete_alert_acts_before,
    delete_alerts_before,
    delete_notices_before,
    delete_untouched_alerts_before,
)
from server.store.monitoring.checkpoints import delete_baselines_before
from server.store.monitoring.evidence import (
    delete_evidence_before,
    delete_faults_before,
    delete_pool_evidence_before,
    delete_verdicts_before,
)
from server.store.monitoring.ingest import delete_batches_before, delete_boots_before, delete_progress_before
from server.store.monitoring.spans import delete_pins_before
from server.store.monitoring.usage import delete_device_days_before
from server.store.places import delete_places_before
from server.store.retraining import delete_expired_before
from server.store.rollouts import delete_paused_before
from server.store.software.runs import delete_components_before, delete_lists_before, delete_runs_before
from server.store.suspects import delete_suspects_before

_EVERY_MS = 3_600_000
_DAY_MS = 86_400_000
PORTION = 5_000
"""Rows of one transaction: with four indexes it holds SQLite's write lock for about a tenth of a second."""

Delete: TypeAlias = Callable[[sa.Connection, int, int], int]
"""Deletes at most so many (the third) rows that are older than the second (UTC ms); returns how many."""


@dataclass(frozen=True, slots=True)
class Stays:
    """The rows stay; ``because``: what they are needed for, and what bounds their number."""

    because: str


class Span(Enum):
    """Which setting says how old rows become."""

    TELEMETRY = auto()
    MEASUREMENTS = auto()  # rows a minute; at most as long as telemetry
    GOVERNANCE = auto()  # acts; 0 days: they stay


@dataclass(frozen=True, slots=True)
class Deleted:
    """Rows are deleted after ``span``. ``when``: which, in words."""

    delete: Delete
    when: str
    span: Span = Span.TELEMETRY


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows go into another table. ``into``: which, and by what."""

    into: str


Rule: TypeAlias = Stays | Deleted | Merged


def _acts(connection: sa.Connection, before_ms: int, limit: int) -> int:
    return delete_events_before(connection, before_ms, limit, ACT)


RULES: Mapping[str, Sequence[Rule]] = {
    "alarm_paths": [Deleted(delete_paths_before, "of verdicts that are gone")],
    "alarms": [Deleted(delete_alarms_before, "of verdicts that are gone")],
    "alert_acts": [Deleted(delete_alert_acts_before, "of alerts that are gone")],
    "alert_outbox": [Deleted(delete_notices_before, "delivered before")],
    "alerts": [
        Deleted(delete_untouched_alerts_before, "resolved before, if no person did anything about them"),
        Deleted(delete_alerts_before, "resolved before", Span.GOVERNANCE),
    ],
    "audit_head": [Stays("one row")],
    "audit_log": [Stays("who did what: a chain that lacks a record is broken, so none is ever deleted")],
    "audits": [Stays("one row a model")],
    "baselines": [
        Deleted(delete_baselines_before, "those that a later commission of the device, or its return, has replaced"),
        Stays("a device that returns is compared with its baseline: one for each device, release and context"),
    ],
    "batches": [Deleted(delete_batches_before, "that arrived before", Span.MEASUREMENTS)],
    "boots": [Deleted(delete_boots_before, "heard before, but the newest of each device")],
    "certificates": [Deleted(delete_certificates_before, "expired before, but the newest of each device")],
    "claim_changes": [Stays("what a user of a device said of an image: labels rest on it")],
    "claims": [Deleted(delete_claims_before, "usable until before, used or not")],
    "commands": [Deleted(delete_commands_before, "valid until before, but the newest of each verb and device")],
    "commissions": [Deleted(delete_commissions_before, "replaced before by a later one of the device")],
    "device_days": [Deleted(delete_device_days_before, "days about which nothing has arrived since")],
    "devices": [Stays("one row a device, also of those that were revoked or removed: their credentials stay refused")],
    "drift_checkpoints": [Stays("six at most, each as large as the fleet; the drift service replaces them")],
    "events": [
        Deleted(delete_events_before, "telemetry of before"),
        Deleted(_acts, "acts of before", Span.GOVERNANCE),
    ],
    "evidence": [Deleted(delete_evidence_before, "of slots before")],
    "heartbeat": [Stays("one row")],
    "job_samples": [Stays("lineage: which images and labels a release learned from; a row each image and job")],
    "jobs": [Stays("lineage: from which samples and base a release was trained, and how it was judged")],
    "label_answers": [Stays("who labelled an image how: labels and the agreement of people rest on them")],
    "label_changes": [Stays("who labelled an image how: labels, audits and releases rest on it")],
    "label_leases": [Deleted(delete_leases_before, "that ended before")],
    "label_marks": [Stays("why an image can't be labelled: one for each that a person has marked")],
    "model_changes": [Deleted(delete_model_changes_before, "replaced before by a later one to the same model")],
    "paused_for": [Deleted(delete_paused_before, "of verdicts that are gone")],
    "places": [Deleted(delete_places_before, "of verdicts that are gone, unless they decide something")],
    "pinned_windows": [Stays("as long as the pins of verdicts that need them, and deleted with the last")],
    "pins": [Deleted(delete_pins_before, "of verdicts that are gone, with their windows")],
    "pool_evidence": [Deleted(delete_pool_evidence_before, "of slots before")],
    "pool_movements": [Stays("one row for each pool and release")],
    "progress": [Deleted(delete_progress_before, "of boots without a message since")],
    "ran": [Stays("lineage: which release a device ran when; a row each update")],
    "releases": [Stays("lineage: what was ever published")],
    "retraining": [Stays("lineage: why a release was trained")],
    "rollout_members": [
        Stays("lineage: what each device was assigned, and how it went; a row each device and rollout")
    ],
    "rollouts": [Stays("lineage: who got which release when")],
    "samples": [
        Deleted(delete_expired_before, "without a label, whose images expired before"),
        Stays("labelled images are training data; those that wait for a label expire by [retraining] max_waiting"),
    ],
    "slot_shares": [Deleted(delete_shares_before, "of slots before on which no path of an alarm runs")],
    "software_components": [Deleted(delete_components_before, "of lists that are gone")],
    "software_lists": [Deleted(delete_lists_before, "first reported before, if no run of one is kept")],
    "software_runs": [
        Deleted(delete_runs_before, "that ended before: which software a device ran when", Span.GOVERNANCE)
    ],
    "suspects": [Deleted(delete_suspects_before, "of verdicts that are gone, unless they decide something")],
    "tokens": [Stays("a few a program: the log of acts names them by their id, also revoked ones")],
    "users": [Stays("one row a person, also disabled ones: a name is never given to another person")],
    "verdicts": [
        Deleted(delete_faults_before, "faults of devices that ended before and started no retraining"),
        Deleted(delete_verdicts_before, "that ended before and started no retraining", Span.GOVERNANCE),
    ],
    "window_spans": [Merged("months, which ingest.window_spans deletes after ten years")],
    "windows": [Merged("window_spans, by ingest.window_spans; pinned_windows, if a verdict rests on them")],
}
"""The rules of each table, in the order of names."""


@dataclass(slots=True, kw_only=True)
class Housekeeping:
    """Deletes what the rules call too old, once an hour, in portions of ``portion`` rows.

    ``retention_days``: of telemetry; ``measurements_days``, at most as long; ``governance_days``: of acts and verdicts,
    0 to keep them. A turn deletes at most one full portion: of a long backlog the next turn takes the next, and nobody
    waits for the write lock meanwhile.
    """

    database: Database
    retention_days: float
    measurements_days: float = 14.0
    governance_days: float = 0.0
    portion: int = PORTION
    _next_ms: int = 0
    _due: list[tuple[Delete, int]] = field(default_factory=list)

    def turn(self, now_ms: int) -> None:
        """Delete a portion of what is too old."""
        if not self._due and now_ms >= self._next_ms:
            self._next_ms = now_ms + _EVERY_MS
            self._due = list(self._rules(now_ms))
        while self._due:
            delete, before_ms = self._due[0]
            with self.database.begin() as connection:
                found = delete(connection, before_ms, self.portion)
            if found >= self.portion:
                return
            self._due.pop(0)

    def _rules(self, now_ms: int) -> list[tuple[Delete, int]]:
        """Return what is to be deleted before which time (UTC ms): verdicts, then pins, then what belongs to them."""
        days = {
            Span.TELEMETRY: self.retention_days,
            Span.MEASUREMENTS: min(self.measurements_days, self.retention_days),
            Span.GOVERNANCE: self.governance_days,
        }
        rules = [
            one for name in sorted(RULES, key=lambda name: (name != "verdicts", name != "pins")) for one in RULES[name]
        ]
        return [
            (rule.delete, now_ms - int(days[rule.span] * _DAY_MS))
            for rule in rules
            if isinstance(rule, Deleted) and (days[rule.span] or rule.span is not Span.GOVERNANCE)
        ]
