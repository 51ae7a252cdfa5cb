"""Where drift and rollouts meet: an alarm that began with a release pauses its rollout, once for each verdict."""

from __future__ import annotations

from dataclasses import dataclass, field

from server.drift.ledger import Verdicts
from server.drift.verdicts import VerdictKind
from server.rollout.service import RolloutService


@dataclass(slots=True)
class Regressions:
    """Pauses; never resumes: an operator who resumes has seen the verdict."""

    verdicts: Verdicts
    rollouts: RolloutService
    _seen: set[int] = field(default_factory=set)

    def turn(self, now_ms: int) -> None:  # noqa: ARG002 - every service's turn takes the time
        """Pause the rollouts of releases with a new ``release_regression``."""
        for verdict in self.verdicts.open():
            if verdict.kind is VerdictKind.RELEASE_REGRESSION and verdict.id not in self._seen:
                self._seen.add(verdict.id)
                self.rollouts.pause_release(verdict.release, verdict.kind.value, verdict.cause)
