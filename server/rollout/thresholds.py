"""The success and error thresholds of a group, and the size of a canary. Pure arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from server.errors import RolloutRefusedError
from server.rollout.model import IN_FLIGHT, IN_VAIN, Group, Member, MemberStanding

DETECTION_CONFIDENCE = 0.95
MAX_CANARIES = 1_000_000  # more devices than any fleet has
_ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCounts:
    """A group counted without its cancelled devices.

    ``failed`` and ``stuck`` count all, whatever became of the devices later. ``awaited``: under way or about to be
    assigned. ``pending``: can't be reached yet (offline, never seen), which is no evidence about the release.
    ``tolerated``: failures (stuck ones too) that an operator resumed with ``tolerate``. ``replaced``: failures (stuck
    ones too) in whose place other devices try; the group is judged without them, so that it can still succeed.
    """

    committed: int = 0
    failed: int = 0
    stuck: int = 0
    awaited: int = 0
    pending: int = 0
    tolerated: int = 0
    replaced: int = 0

    @property
    def tried(self) -> int:
        """How many devices had an outcome."""
        return self.committed + self.failed + self.stuck

    @property
    def judged(self) -> int:
        """How many devices the group is judged by: those that had an outcome and were not replaced."""
        return self.tried - self.replaced

    @property
    def errors(self) -> int:
        """How many failures are neither tolerated nor replaced."""
        return self.failed + self.stuck - self.tolerated - self.replaced

    @property
    def total(self) -> int:
        """How many devices count."""
        return self.tried + self.awaited + self.pending

    @property
    def committed_ratio(self) -> float | None:
        """The share of devices with an outcome that committed, None while there are none."""
        return self.committed / self.tried if self.tried else None

    def success_reached(self, group: Group) -> bool:
        """Return whether enough of the group committed (>=), at least one, even if all those awaited fail."""
        asked = self.judged + self.awaited
        return self.committed > 0 and self.committed >= group.success_ratio * asked - _ROUNDING

    def success_possible(self, group: Group) -> bool:
        """Return whether the group reaches its success ratio if every remaining device commits."""
        best = self.committed + self.awaited + self.pending
        return best > 0 and best >= group.success_ratio * (self.total - self.replaced) - _ROUNDING

    def errors_exceeded(self, group: Group) -> bool:
        """Return whether too much of the group failed or is stuck (>)."""
        return self.errors > group.error_ratio * (self.judged + self.awaited) + _ROUNDING


def count_members(members: Sequence[Member]) -> MemberCounts:
    """Return the counts of one group's members."""
    counts = Counter(member.standing for member in members)
    return MemberCounts(
        committed=counts[MemberStanding.COMMITTED],
        failed=counts[MemberStanding.FAILED],
        stuck=counts[MemberStanding.STUCK],
        awaited=counts[MemberStanding.WAITING] + sum(counts[standing] for standing in IN_FLIGHT),
        pending=counts[MemberStanding.PENDING],
        tolerated=sum(member.tolerated and member.standing in IN_VAIN for member in members),
        replaced=sum(bool(member.replaced_by) and member.standing in IN_VAIN for member in members),
    )


def canary_size(defect_ratio: float) -> int:
    """Return how many canaries show a defect at least once with 95 % probability.

    ``defect_ratio``: the share of devices with the defect, 0 < ratio <= 1; devices are independent.
    Source: 1 - (1 - p)^n >= 0.95, so n = ceil(ln 0.05 / ln(1 - p)).

    Raises:
        RolloutRefusedError: If the ratio is not within (0, 1], or needs more canaries than any fleet has.
    """
    if not 0 < defect_ratio <= 1:
        message = f"Expected a defect ratio above 0 and at most 1, got {defect_ratio}"
        raise RolloutRefusedError(message)
    if defect_ratio == 1:
        return 1
    wanted = math.log(1 - DETECTION_CONFIDENCE) / math.log1p(-defect_ratio)
    if wanted > MAX_CANARIES:
        message = f"Expected a defect ratio that {MAX_CANARIES} canaries would show, got {defect_ratio}: ask for more"
        raise RolloutRefusedError(message)
    return max(1, math.ceil(wanted))
