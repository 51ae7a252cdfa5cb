"""Pauses a rollout when a drift alarm began with its release, once for each verdict."""

from __future__ import annotations

from dataclasses import dataclass

from server.drift.ledger import Verdicts
from server.drift.verdicts import VerdictKind
from server.rollout.service import RolloutService
from server.store.rollouts import note_paused_for, paused_for


@dataclass(frozen=True, slots=True)
class Regressions:
    """Pauses rollouts, never resumes; a verdict pauses only once, even over restarts, so an operator's resume lasts."""

    verdicts: Verdicts
    rollouts: RolloutService

    def turn(self, now_ms: int) -> None:
        """Pause the rollouts of releases with a new ``release_regression``."""
        found = [one for one in self.verdicts.open() if one.kind is VerdictKind.RELEASE_REGRESSION]
        if not found:
            return
        with self.verdicts.database.begin() as connection:
            known = paused_for(connection)
        for verdict in found:
            if verdict.id not in known:
                self.rollouts.pause_release(verdict.release, verdict.kind.value, verdict.cause)
                with self.verdicts.database.begin() as connection:  # after the pause: a crash in between pauses again
                    note_paused_for(connection, verdict.id, now_ms)
