"""Pauses a rollout when a drift alarm began with its release, once for each verdict, and holds it while that is open.

A verdict that ended (labels show no harm, quiet windows, devices commissioned again) or that a person dismissed holds
no rollout.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from server.drift.ledger import StoredVerdict, Verdicts
from server.drift.verdicts import VerdictKind
from server.rollout.service import RolloutService
from server.store.rollouts import note_paused_for, paused_for
from server.wording import listed

_NAMED = 6


@dataclass(frozen=True, slots=True)
class Regressions:
    """Pauses rollouts, never resumes; a verdict pauses only once, even over restarts, so an operator's resume lasts."""

    verdicts: Verdicts
    rollouts: RolloutService

    def turn(self, now_ms: int) -> None:
        """Pause the rollouts of releases with a new ``release_regression``."""
        found = self.verdicts.open(VerdictKind.RELEASE_REGRESSION)
        if not found:
            return
        with self.verdicts.database.begin() as connection:
            known = paused_for(connection)
        for verdict in found:
            if verdict.id not in known and not verdict.dismissed_ms:
                self.rollouts.pause_release(verdict.release, verdict.kind.value, verdict.cause)
                with self.verdicts.database.begin() as connection:  # after the pause: a crash in between pauses again
                    note_paused_for(connection, verdict.id, now_ms)


def holding(verdicts: Verdicts, release: str) -> tuple[StoredVerdict, ...]:
    """Return the open regressions of ``release``, whatever its target, that nobody has dismissed, oldest first."""
    found = verdicts.open(VerdictKind.RELEASE_REGRESSION, release)
    return tuple(one for one in found if not one.dismissed_ms)


def held_text(verdicts: Verdicts, release: str) -> str:
    """Return why ``release`` may go to no further device, and the next step, in words; "" if it may."""
    return "; ".join(_text(one) for one in holding(verdicts, release))


def _text(verdict: StoredVerdict) -> str:
    since = datetime.fromtimestamp(verdict.opened_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"verdict {verdict.id}, open since {since} on {listed(verdict.devices, _NAMED)}: {verdict.cause}: label the "
        "samples of these devices (labels that show no harm end it), roll out the release before, or take it on you "
        f"with fleet-server verdicts dismiss DIR {verdict.id} --why REASON"
    )
