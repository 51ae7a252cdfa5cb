"""What a rollout does next. A pure function of the rollout, the devices and the time.

1. Devices that were told are settled: only ``committed`` of this release and generation is success; rolled
   back, refused and past the deadline (stuck) are errors; told otherwise since is cancelled. Who was stuck
   and commits later counts as committed.
2. While running: too many errors in an open group pause, before anything else is told.
3. The newest open group that reached its success opens the next; after the last, when nobody is under way,
   the rollout has succeeded. A group that ended short of its success pauses.
4. Waiting devices of open groups are told, some a turn.
Aborting, after 1 whoever is still to run the release, and did not commit, is set back to what it was to run
before. Paused or awaiting approval, nothing but 1 happens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from server.rollout.conditions import tally
from server.rollout.model import (
    IN_FLIGHT,
    SETTLED,
    STUCK,
    Action,
    Assign,
    DeviceStatus,
    Finish,
    Member,
    OpenGroup,
    Pause,
    Phase,
    Rollout,
    SetBack,
    Settle,
    Standing,
)
from wire.messages import UpdatePhase


def plan(rollout: Rollout, statuses: Mapping[str, DeviceStatus], now_ms: int, *, limit: int = 50) -> tuple[Action, ...]:
    """Return what to do now, in order; ``limit`` devices at most are told in one turn."""
    settled = tuple(_settlements(rollout, statuses, now_ms))
    if rollout.phase is Phase.ABORTING:
        after = apply_settlements(rollout, settled, now_ms)
        return (*settled, *(tuple(_set_back(after, statuses))[:limit] or (Finish(Phase.ABORTED),)))
    if rollout.phase is not Phase.RUNNING:
        return settled
    after = apply_settlements(rollout, settled, now_ms)
    stop = _stop(after)
    if stop is not None:
        return (*settled, stop)
    step = _step(after)
    if isinstance(step, OpenGroup):
        after = replace(after, opened=step.index + 1)
    return (*settled, *((step,) if step else ()), *tuple(_assignments(after, statuses))[:limit])


def apply_settlements(rollout: Rollout, settlements: Iterable[Settle], now_ms: int) -> Rollout:
    """Return the rollout with devices settled."""
    by_device = {settle.device: settle for settle in settlements}
    members = tuple(_settled(member, by_device.get(member.device), now_ms) for member in rollout.members)
    return replace(rollout, members=members)


def _settled(member: Member, settle: Settle | None, now_ms: int) -> Member:
    if settle is None:
        return member
    ended = replace(member, standing=settle.standing, code=settle.code, settled_ms=now_ms)
    return replace(ended, air_bytes=settle.air_bytes, tolerated=False)


def _settlements(rollout: Rollout, statuses: Mapping[str, DeviceStatus], now_ms: int) -> Iterable[Settle]:
    for member in rollout.members:
        if member.standing is Standing.ASSIGNED or (member.standing is Standing.FAILED and member.code == STUCK):
            settle = _settle(rollout, member, statuses.get(member.device), now_ms)
            if settle is not None and (settle.standing, settle.code) != (member.standing, member.code):
                yield settle


def _settle(rollout: Rollout, member: Member, status: DeviceStatus | None, now_ms: int) -> Settle | None:
    if status is None:
        return Settle(member.device, Standing.CANCELLED, "device_removed")
    update = status.update
    if update.gen >= member.gen and update.release == rollout.release:
        if update.phase is UpdatePhase.COMMITTED:
            return Settle(member.device, Standing.COMMITTED, "", update.done_bytes)
        if update.phase in {UpdatePhase.ROLLED_BACK, UpdatePhase.REFUSED}:
            return Settle(member.device, Standing.FAILED, update.code or update.phase.value, update.done_bytes)
    if status.desired_release != rollout.release:
        return Settle(member.device, Standing.CANCELLED, "superseded")
    if now_ms > member.assigned_ms + rollout.deadline_s * 1000:
        return Settle(member.device, Standing.FAILED, STUCK, update.done_bytes)
    return None


def _stop(rollout: Rollout) -> Pause | None:
    for index, group in enumerate(rollout.groups[: rollout.opened]):
        members = rollout.group_members(index)
        counts = tally(members)
        if counts.errors_exceeded(group):
            return Pause("error_threshold", f"{counts.failed} of {counts.total} in {group.name} failed{_why(members)}")
        if counts.complete and not counts.success_reached(group):
            text = f"only {counts.committed} of {counts.total} in {group.name} committed{_why(members)}"
            return Pause("success_threshold", text)
        if index + 1 < len(rollout.groups) and members and all(_withdrawn(member) for member in members):
            return Pause("no_evidence", f"every device of {group.name} was withdrawn: nobody tried the release")
    return None


def _withdrawn(member: Member) -> bool:
    return member.standing is Standing.CANCELLED and not member.tolerated


def _why(members: Iterable[Member]) -> str:
    codes = Counter(member.code for member in members if member.standing is Standing.FAILED and not member.tolerated)
    return ": " + ", ".join(f"{code} {count}x" for code, count in sorted(codes.items())) if codes else ""


def _step(rollout: Rollout) -> OpenGroup | Finish | None:
    if rollout.opened == 0:
        return OpenGroup(0)
    newest = rollout.opened - 1
    if rollout.opened < len(rollout.groups):
        reached = tally(rollout.group_members(newest)).success_reached(rollout.groups[newest])
        return OpenGroup(rollout.opened) if reached else None
    return Finish(Phase.SUCCEEDED) if tally(rollout.members).complete else None


def _assignments(rollout: Rollout, statuses: Mapping[str, DeviceStatus]) -> Iterable[Assign | Settle]:
    for member in rollout.members:
        if member.group < rollout.opened and member.standing in {Standing.WAITING, Standing.ASSIGNING}:
            known = member.device in statuses
            yield Assign(member.device) if known else Settle(member.device, Standing.CANCELLED, "device_removed")


def _set_back(rollout: Rollout, statuses: Mapping[str, DeviceStatus]) -> Iterable[SetBack | Settle]:
    for member in rollout.members:
        status = statuses.get(member.device)
        wanted = status is not None and status.desired_release == rollout.release
        if wanted and member.standing in {*IN_FLIGHT, Standing.FAILED}:
            yield SetBack(member.device)
        elif member.standing not in SETTLED:
            yield Settle(member.device, Standing.CANCELLED, "aborted")
