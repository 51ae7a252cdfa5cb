"""When a group is good enough, when it is too bad, and how large a canary must be. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from server.errors import RolloutRefusedError
from server.rollout.model import SETTLED, Group, Member, Standing

DETECTION_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Tally:
    """A group counted: ``total`` leaves out cancelled devices and failures that an operator resumed over."""

    total: int
    committed: int
    failed: int
    settled: int

    def success_reached(self, group: Group) -> bool:
        """Say whether enough of the group committed (>=); an empty group has."""
        return self.committed >= group.success_ratio * self.total

    def errors_exceeded(self, group: Group) -> bool:
        """Say whether too much of the group failed (>)."""
        return self.failed > group.error_ratio * self.total

    @property
    def complete(self) -> bool:
        """Whether no device of the group is still under way."""
        return self.settled == self.total


def tally(members: Iterable[Member]) -> Tally:
    """Return the counts of one group's members."""
    counted = [member for member in members if member.standing is not Standing.CANCELLED and not member.tolerated]
    return Tally(
        total=len(counted),
        committed=sum(member.standing is Standing.COMMITTED for member in counted),
        failed=sum(member.standing is Standing.FAILED for member in counted),
        settled=sum(member.standing in SETTLED for member in counted),
    )


def canary_size(defect_ratio: float) -> int:
    """Return how many canaries show a defect at least once with 95 % probability.

    ``defect_ratio``: the share of devices on which it shows, 0 < ratio <= 1, devices being independent.
    Source: 1 - (1 - p)^n >= 0.95, so n = ceil(ln 0.05 / ln(1 - p)).

    Raises:
        RolloutRefusedError: If the ratio is not within (0, 1].
    """
    if not 0 < defect_ratio <= 1:
        message = f"Expected a defect ratio above 0 and at most 1, got {defect_ratio}"
        raise RolloutRefusedError(message)
    if defect_ratio == 1:
        return 1
    return max(1, math.ceil(math.log(1 - DETECTION_CONFIDENCE) / math.log1p(-defect_ratio)))
