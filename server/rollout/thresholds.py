"""Counts of a group's members, its success and error thresholds, the size of a canary, the outcome. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.errors import RolloutRefusedError
from server.rollout.model import ABORTED, IN_FLIGHT, IN_VAIN, REMOVED, Group, Member, MemberStanding, Rollout

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


def waiting(members: Iterable[Member]) -> dict[str, int]:
    """Return how many devices have put the update off, by the code why, most first."""
    return dict(Counter(member.waits_for for member in members if member.waits_for).most_common())


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


def outcome(rollout: Rollout) -> str:
    """Return the figures of ``rollout`` in words; failures stay failures, whatever became of the devices later."""
    members, counts = rollout.members, count_members(rollout.members)
    set_back = sum(_set_back(member) for member in members)
    untried = "no device committed it" if any(_told(member) for member in members) else "no device tried it"
    parts = [f"{counts.committed} of {devices(counts.tried)} committed" if counts.tried else untried]
    silent = unanswered_count(members)
    parts += [f"{silent} of them had answered no input with it by then"] if silent else []
    for standing, one, many in (
        (MemberStanding.FAILED, "failed", "failed"), (MemberStanding.STUCK, "was stuck", "were stuck"),
    ):  # fmt: skip
        found = [member for member in members if member.standing is standing]
        if found:
            what = f"{len(found)} of {counts.tried} {one if len(found) == 1 else many}"
            parts.append(what + _replaced(found))
    removed = removed_count(members)
    others = sum(member.standing is MemberStanding.CANCELLED for member in members) - removed - set_back
    parts += [f"{devices(set_back)} {'was' if set_back == 1 else 'were'} set back"] if set_back else []
    parts += [f"{removed} removed"] if removed else []
    parts += [f"{others} left out"] if others else []
    parts += [f"{group.name} skipped by {group.skipped_by}" for group in rollout.groups if group.skipped_by]
    return "; ".join(parts)


def unanswered_count(members: Iterable[Member]) -> int:
    """Return how many devices committed and have answered no input with the release, as far as they say."""
    return sum(member.standing is MemberStanding.COMMITTED and member.answered == 0 for member in members)


def _told(member: Member) -> bool:
    """Return whether a device that was left out had been assigned the release, so that it may have tried it."""
    return member.standing is MemberStanding.CANCELLED and member.gen > 0


def _set_back(member: Member) -> bool:
    return _told(member) and member.code == ABORTED


def removed_count(members: Iterable[Member]) -> int:
    """Return how many devices left the fleet before the release had an outcome on them."""
    return sum(member.standing is MemberStanding.CANCELLED and member.code == REMOVED for member in members)


def replaced_count(members: Iterable[Member]) -> int:
    """Return how many devices a person replaced by others: failed, stuck and pending ones."""
    return sum(bool(member.replaced_by) for member in members)


def _replaced(found: Sequence[Member]) -> str:
    names = dict.fromkeys(member.replaced_by for member in found if member.replaced_by)
    if not names:
        return ""
    who, count = f"replaced by {', '.join(names)}", replaced_count(found)
    if count < len(found):
        return f", {count} of them {who}"
    return f" and was {who}" if count == 1 else f" and were {who}"


def devices(count: int) -> str:
    """Return ``count`` devices in words."""
    return "1 device" if count == 1 else f"{count} devices"
