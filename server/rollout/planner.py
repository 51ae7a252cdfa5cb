"""Plans the next steps of a rollout: a pure function of the rollout, the devices and the time.

1. Assigned devices are settled: only ``committed`` of this release and generation is success; rolled back and
   refused are failures; past the deadline is stuck; a device assigned another release meanwhile, or removed, is
   cancelled. A report from before the removal counts first. A failed or stuck device stays so, whatever happens to it
   later (removed, replaced, assigned another release), and also if a retry ends without an outcome. Only a stuck
   device that commits later counts as committed, one that reports a rollback as failed, unless it was replaced.
2. While running, too many errors in an open group pause the rollout before any further assignment; so does a group
   that can't reach its success ratio any more, or in which no device is left to try the release;
   if none is left in any group, it has failed. It also pauses once its devices show with certainty, at any look and
   over all groups, that the release fails or disagrees more often than allowed (``figures.sequential``).
3. When every open group has reached its success ratio (committed / (committed + failed + stuck + awaited), at least
   one device), and one of its committed devices has answered an input with the release, the next opens: golden vectors
   alone don't show that a release reads what a device gives it. Only a person's skip replaces either. After the last
   group, when no device is awaited, the rollout has succeeded, or failed if no device committed at all.
4. Waiting devices of open groups are assigned, a limited number per turn. A device that is offline or was never seen
   is pending: not a failure, assigned when it connects. When all others are done, pending devices are left out one
   deadline after the last change.

Aborting: after 1, devices that are still assigned the release and have not committed are set back to their previous
``desired``. Paused or awaiting approval: only 1 happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from server.rollout.figures.sequential import sure_stop
from server.rollout.model import (
    ABORTED,
    AWAY,
    IN_FLIGHT,
    IN_VAIN,
    REMOVED,
    SETTLED,
    SUPERSEDED,
    UNPROVEN,
    WAITS_FOR_ITS_DEVICE,
    Action,
    Assign,
    DeviceStatus,
    Finish,
    Group,
    Hold,
    Member,
    MemberStanding,
    OpenGroup,
    Pause,
    Rollout,
    RolloutPhase,
    SetBack,
    Settle,
)
from server.rollout.thresholds import count_members
from wire.messages import UpdatePhase, UpdateStatus

_UNTOLD = WAITS_FOR_ITS_DEVICE | {MemberStanding.ASSIGNING}
NEVER = 2**62
"""A time (UTC ms) that does not come."""


def plan(rollout: Rollout, statuses: Mapping[str, DeviceStatus], now_ms: int, *, limit: int = 50) -> tuple[Action, ...]:
    """Return the actions to take now, in order; at most ``limit`` devices are assigned in one turn."""
    settled = tuple(_settlements(rollout, statuses, now_ms))
    after = apply_settlements(rollout, settled, now_ms)
    if rollout.phase is RolloutPhase.ABORTING:
        return (*settled, *(tuple(_set_back(after, statuses))[:limit] or (Finish(RolloutPhase.ABORTED),)))
    if rollout.phase is not RolloutPhase.RUNNING:
        return settled
    pause = stop(after)
    if pause is not None:
        return (*settled, Finish(RolloutPhase.FAILED) if _nobody_left(after) else pause)
    if _may_open(after):
        held = held_by(after)
        if held is not None:
            said = () if rollout.code == UNPROVEN else (Hold(_held_text(rollout, held)),)
            return (*settled, *said, *tuple(_assignments(after, statuses))[:limit])
        opening = OpenGroup(after.opened)
        after = replace(after, opened=after.opened + 1)
        return (*settled, opening, *tuple(_assignments(after, statuses))[:limit])
    return (*settled, *(_ending(after, now_ms) or tuple(_assignments(after, statuses))[:limit]))


def due_ms(rollout: Rollout, now_ms: int) -> int:
    """Return when the passing of time alone may change a plan that is empty at ``now_ms``; ``NEVER``: not by itself."""
    deadline_ms = int(rollout.deadline_s * 1000)
    told = [one.assigned_ms for one in rollout.members if one.standing is MemberStanding.ASSIGNED]
    news_ms = max((max(one.assigned_ms, one.settled_ms) for one in rollout.members), default=0)
    ends = (at_ms + deadline_ms + 1 for at_ms in (*told, news_ms))
    return min((end_ms for end_ms in ends if end_ms > now_ms), default=NEVER)


def apply_settlements(rollout: Rollout, settlements: Iterable[Settle], now_ms: int) -> Rollout:
    """Return the rollout with ``settlements`` applied."""
    by_device = {settle.device: settle for settle in settlements}
    if not by_device:
        return rollout
    members = tuple(
        settled(member, by_device[member.device], now_ms) if member.device in by_device else member
        for member in rollout.members
    )
    return replace(rollout, members=members)


def settled(member: Member, settle: Settle, now_ms: int) -> Member:
    """Return ``member`` with ``settle`` applied; an outcome clears ``retried_from``, being pending does not."""
    retried_from = member.retried_from if settle.standing is MemberStanding.PENDING else None
    proven = member.standing is settle.standing is MemberStanding.COMMITTED  # settled before; it has answered since
    settled_ms = member.settled_ms if proven else now_ms
    ended = replace(member, standing=settle.standing, code=settle.code, settled_ms=settled_ms)
    shadow, replay = settle.shadow or member.shadow, settle.replay or member.replay
    counted = replace(ended, air_bytes=settle.air_bytes, bundle_bytes=settle.bundle_bytes, shadow=shadow, replay=replay)
    return replace(counted, tolerated=False, retried_from=retried_from, answered=settle.answered)


def so_far(member: Member, update: UpdateStatus, release: str) -> Member:
    """Return ``member`` with what its device fetched, compared and waits for, if its report is about this attempt."""
    if not _about(member, update, release):
        return member
    waits_for = (update.code or "window_closed") if update.phase is UpdatePhase.DEFERRED else ""
    shadow, replay = update.shadow or member.shadow, update.replay or member.replay
    counted = replace(member, shadow=shadow, replay=replay, waits_for=waits_for, answered=update.answered)
    if update.fetched_bytes is None:
        return replace(counted, bundle_bytes=update.done_bytes)
    return replace(counted, air_bytes=member.earlier_bytes + update.fetched_bytes)


def with_away(rollout: Rollout, reachable: Collection[str]) -> Rollout:
    """Return ``rollout`` in which assigned members whose devices are not ``reachable`` wait for them (``AWAY``)."""
    return replace(rollout, members=tuple(
        replace(member, waits_for=AWAY) if member.standing in IN_FLIGHT and member.device not in reachable else member
        for member in rollout.members
    ))  # fmt: skip


def waited_for(rollout: Rollout) -> tuple[Member, ...]:
    """Return the members of open groups for which alone a rollout waits, as they are away; () if it waits otherwise.

    ``with_away`` has to mark those that were assigned it before.
    """
    if held_by(rollout):
        return ()
    return _all_away(member for member in rollout.members if member.group < rollout.opened)


def _all_away(members: Iterable[Member]) -> tuple[Member, ...]:
    """Return those of ``members`` that are without an outcome and away; () if one without an outcome is not."""
    found = tuple(members)
    if any(one.standing in {*IN_FLIGHT, MemberStanding.WAITING} and one.waits_for != AWAY for one in found):
        return ()
    return tuple(one for one in found if one.standing is MemberStanding.PENDING or one.waits_for == AWAY)


def left_out(member: Member, code: str) -> Settle:
    """Return the settlement of a device without an outcome: cancelled, or its earlier failure if this was a retry."""
    if member.retried_from is None:
        return _settlement(member, MemberStanding.CANCELLED, code)
    return _settlement(member, member.retried_from, member.code)


def stop(rollout: Rollout) -> Pause | None:
    """Return why the rollout must pause, None if it may go on."""
    for index, group in enumerate(rollout.groups[: rollout.opened]):
        if group.skipped_by:
            continue
        members = rollout.group_members(index)
        counts = count_members(members)
        if counts.errors_exceeded(group):
            errors = f"{counts.errors} of {counts.judged + counts.awaited}"
            return Pause("error_threshold", f"{errors} in {group.name} failed{_why(members)}")
        if counts.awaited or counts.success_possible(group):
            continue
        if counts.judged:
            text = f"only {counts.committed} of {counts.judged} in {group.name} committed{_why(members)}"
            return Pause("success_threshold", text)
        if index == 0 or index + 1 < len(rollout.groups):
            return Pause("no_evidence", f"no device is left in {group.name} to try the release")
    return sure_stop(rollout)


def _nobody_left(rollout: Rollout) -> bool:
    """Return whether every device was left out and none can try again: those assigned another release still may."""
    return all(one.standing is MemberStanding.CANCELLED and one.code != SUPERSEDED for one in rollout.members)


def passed(rollout: Rollout, index: int) -> bool:
    """Return whether group ``index`` is passed: it reached its success ratio, or a person skipped it."""
    group = rollout.groups[index]
    return bool(group.skipped_by) or count_members(rollout.group_members(index)).success_reached(group)


def unproven(rollout: Rollout, index: int) -> bool:
    """Return whether devices of group ``index`` committed, and none of them has answered an input yet.

    A device whose agent does not say counts as one that has. A person's skip overrides it.
    """
    committed = [one for one in rollout.group_members(index) if one.standing is MemberStanding.COMMITTED]
    return not rollout.groups[index].skipped_by and bool(committed) and all(one.answered == 0 for one in committed)


def held_by(rollout: Rollout) -> Group | None:
    """Return the open group that keeps the next from opening because it is unproven; None: none, or nobody waits."""
    if not any(member.group >= rollout.opened and member.standing not in SETTLED for member in rollout.members):
        return None
    return next((rollout.groups[index] for index in range(rollout.opened) if unproven(rollout, index)), None)


def absent(rollout: Rollout, index: int) -> tuple[str, ...]:
    """Return the devices that alone keep open group ``index`` from passing: they are away, and no other is under way.

    () if the group has passed, or the rollout does not run. ``with_away`` has to mark those that were assigned it.
    """
    if rollout.phase is not RolloutPhase.RUNNING or index >= rollout.opened or passed(rollout, index):
        return ()
    return tuple(member.device for member in _all_away(rollout.group_members(index)))


def _held_text(rollout: Rollout, group: Group) -> str:
    return (
        f"{group.name} committed, but no device of it has answered an input with {rollout.release} yet: the next group "
        f"opens with the first answer, or when a person skips {group.name}"
    )


def _settlements(rollout: Rollout, statuses: Mapping[str, DeviceStatus], now_ms: int) -> Iterable[Settle]:
    for member in rollout.members:
        if member.standing is MemberStanding.COMMITTED and member.answered == 0 and member.device in statuses:
            answered = so_far(member, statuses[member.device].update, rollout.release).answered
            if answered:
                yield _settlement(replace(member, answered=answered), MemberStanding.COMMITTED, member.code)
        if member.standing in {MemberStanding.COMMITTED, MemberStanding.CANCELLED} or member.replaced_by:
            continue
        settle = _settle(rollout, member, statuses.get(member.device), now_ms)
        if settle is not None and settle.standing is not member.standing:
            yield settle


def _settle(rollout: Rollout, member: Member, status: DeviceStatus | None, now_ms: int) -> Settle | None:
    if status is None:
        status = DeviceStatus(device=member.device, removed=True)
    update, told = status.update, member.standing in {MemberStanding.ASSIGNED, MemberStanding.STUCK}
    about, member = _about(member, update, rollout.release), so_far(member, update, rollout.release)
    if about and update.phase is UpdatePhase.COMMITTED and member.standing is not MemberStanding.ASSIGNING:
        return _settlement(member, MemberStanding.COMMITTED, "")
    if told and about and update.phase in {UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED}:
        return _settlement(member, MemberStanding.FAILED, update.code or update.phase.value)
    if status.removed:
        return None if member.standing in IN_VAIN else left_out(member, REMOVED)
    if member.standing is MemberStanding.ASSIGNED and status.desired_release != rollout.release:
        return left_out(member, SUPERSEDED)
    if told and now_ms > member.assigned_ms + rollout.deadline_s * 1000:
        return _settlement(member, MemberStanding.STUCK, MemberStanding.STUCK.value)
    return None


def _about(member: Member, update: UpdateStatus, release: str) -> bool:
    return member.gen > 0 and update.gen >= member.gen and update.release == release


def _settlement(member: Member, standing: MemberStanding, code: str) -> Settle:
    return Settle(
        device=member.device, standing=standing, code=code, air_bytes=member.air_bytes,
        bundle_bytes=member.bundle_bytes, shadow=member.shadow, replay=member.replay,
        answered=member.answered if standing is MemberStanding.COMMITTED else None,
    )  # fmt: skip


def _why(members: Iterable[Member]) -> str:
    counted = (member for member in members if not (member.tolerated or member.replaced_by))
    codes = Counter(member.code for member in counted if member.standing in IN_VAIN)
    return ": " + ", ".join(f"{code} {count}x" for code, count in sorted(codes.items())) if codes else ""


def _may_open(rollout: Rollout) -> bool:
    return rollout.opened < len(rollout.groups) and all(passed(rollout, index) for index in range(rollout.opened))


def _ending(rollout: Rollout, now_ms: int) -> tuple[Action, ...]:
    """Return the actions that end a rollout once every group is open and no device is awaited."""
    counts = count_members(rollout.members)
    if rollout.opened < len(rollout.groups) or counts.awaited:
        return ()
    if not counts.pending:
        return (Finish(RolloutPhase.SUCCEEDED if counts.committed else RolloutPhase.FAILED),)
    news_ms = max(max(member.assigned_ms, member.settled_ms) for member in rollout.members)
    if now_ms <= news_ms + rollout.deadline_s * 1000:
        return ()
    pending = (member for member in rollout.members if member.standing is MemberStanding.PENDING)
    return tuple(left_out(member, "not_seen") for member in pending)


def _assignments(rollout: Rollout, statuses: Mapping[str, DeviceStatus]) -> Iterable[Assign | Settle]:
    for member in rollout.members:
        if member.group >= rollout.opened or member.standing not in _UNTOLD:
            continue
        if member.standing is MemberStanding.ASSIGNING or statuses[member.device].reachable:
            yield Assign(member.device)
        elif member.standing is MemberStanding.WAITING:
            yield _settlement(member, MemberStanding.PENDING, member.code)


def _set_back(rollout: Rollout, statuses: Mapping[str, DeviceStatus]) -> Iterable[SetBack | Settle]:
    for member in rollout.members:
        status = statuses.get(member.device)
        wanted = status is not None and status.desired_release == rollout.release
        told = member.standing in IN_FLIGHT or member.gen > 0
        if wanted and told and member.standing not in {MemberStanding.COMMITTED, MemberStanding.CANCELLED}:
            yield SetBack(member.device)
        elif member.standing not in SETTLED:
            yield left_out(member, ABORTED)
