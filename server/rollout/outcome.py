"""The outcome of a rollout in one sentence: devices committed, failed, replaced and left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from server.rollout.model import REMOVED, Member, MemberStanding, Rollout
from server.rollout.thresholds import count_members


def outcome(rollout: Rollout) -> str:
    """Return the figures of ``rollout`` in words; failures stay failures, whatever became of the devices later."""
    members, counts = rollout.members, count_members(rollout.members)
    parts = [f"{counts.committed} of {devices(counts.tried)} committed" if counts.tried else "no device tried it"]
    for standing, one, many in (
        (MemberStanding.FAILED, "failed", "failed"), (MemberStanding.STUCK, "was stuck", "were stuck"),
    ):  # fmt: skip
        found = [member for member in members if member.standing is standing]
        if found:
            what = f"{len(found)} of {counts.tried} {one if len(found) == 1 else many}"
            parts.append(what + _replaced(found))
    removed = removed_count(members)
    others = sum(member.standing is MemberStanding.CANCELLED for member in members) - removed
    parts += [f"{removed} removed"] if removed else []
    parts += [f"{others} left out"] if others else []
    parts += [f"{group.name} skipped by {group.skipped_by}" for group in rollout.groups if group.skipped_by]
    return "; ".join(parts)


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
