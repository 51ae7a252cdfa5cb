"""Deletes old rows, so that the database of a server that runs for years stops growing."""

from __future__ import annotations

from dataclasses import dataclass

from server.store.commissions import delete_commissions_before, delete_model_changes_before
from server.store.database import Database
from server.store.events import delete_events_before
from server.store.monitoring.checkpoints import delete_baselines_before
from server.store.monitoring.evidence import delete_evidence_before, delete_verdicts_before
from server.store.monitoring.ingest import delete_batches_before, delete_boots_before, delete_progress_before
from server.store.monitoring.usage import delete_device_days_before
from server.store.monitoring.windows import delete_windows_before
from server.store.places import delete_places_before
from server.store.rollouts import delete_paused_before
from server.store.suspects import delete_suspects_before

_EVERY_MS = 3_600_000
_DAY_MS = 86_400_000


@dataclass(slots=True)
class Housekeeping:
    """Deletes windows, measurements, events and the progress of dead boots after ``retention_days``.

    Then evidence, closed verdicts with what hangs on them (places, suspects, paused rollouts), and the baselines
    and commissions that a later commission of the device has replaced, or a later return to a model. What still
    decides something stays.
    """

    database: Database
    retention_days: float
    _next_ms: int = 0

    def turn(self, now_ms: int) -> None:
        """Delete what is too old, once an hour."""
        if now_ms < self._next_ms:
            return
        self._next_ms = now_ms + _EVERY_MS
        before_ms = now_ms - int(self.retention_days * _DAY_MS)
        for delete in (
            delete_windows_before, delete_batches_before, delete_events_before, delete_progress_before,
            delete_boots_before, delete_device_days_before, delete_evidence_before, delete_verdicts_before,
            delete_places_before, delete_suspects_before, delete_paused_before, delete_baselines_before,
            delete_commissions_before, delete_model_changes_before,
        ):  # fmt: skip
            with self.database.begin() as connection:
                delete(connection, before_ms)
