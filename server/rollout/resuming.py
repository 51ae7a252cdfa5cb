"""Resumes a paused rollout, and foresees which devices it will assign. Pure.

Resuming never makes a group count as successful. It tries the release again on the devices that failed or are stuck
(``retry``), or on devices of groups that are not open yet (``replace``), or it accepts the failures (``tolerate``):
they no longer pause the rollout, and still count against the group's success. A replaced device stays failed or stuck
in every figure, with the name of the person; only the group is judged without it. Only ``skipped``, which records the
person, passes over a group that can't reach its success ratio.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from server.errors import RolloutRefusedError
from server.people import SOMEBODY
from server.rollout.figures.forecast import Forecast
from server.rollout.figures.sequential import sure_stop
from server.rollout.model import (
    IN_FLIGHT,
    IN_VAIN,
    REPLACED,
    SUPERSEDED,
    Assign,
    DeviceStatus,
    Member,
    MemberStanding,
    OpenGroup,
    Rollout,
    RolloutPhase,
    SetBack,
    Settle,
)
from server.rollout.planner import apply_settlements, left_out, passed, plan, stop, unproven
from server.rollout.thresholds import count_members, devices
from server.wording import listed

NAMED = 20  # at most so many devices are named in a sentence


class How(StrEnum):
    """How to resume after failures."""

    RETRY = "retry"  # the devices that failed or are stuck are assigned again
    REPLACE = "replace"  # they and the pending ones are set back; others try instead; failures stay failures
    TOLERATE = "tolerate"  # they keep their standing and no longer pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """The immediate effects of an act of a person.

    ``assigns``: devices that are assigned the release now. ``later``: devices that are assigned it when they connect.
    ``sets_back``: devices that go back to their previous release. ``opens``: groups that open. ``unaffected``: devices
    that keep the release when the rollout stops: under way when it is paused, committed when it is aborted.
    ``forecast``: what those assigned now or later will fetch.
    """

    assigns: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    sets_back: tuple[str, ...] = ()
    opens: tuple[str, ...] = ()
    unaffected: tuple[str, ...] = ()
    forecast: Forecast = field(default_factory=lambda: Forecast(0))

    @property
    def text(self) -> str:
        """The effects, in words."""
        parts = [
            f"{devices(len(names))} {what}: {listed(names, NAMED)}"
            for names, what in (
                (self.assigns, "assigned now"), (self.later, "assigned on connecting"), (self.sets_back, "set back"),
                (self.unaffected, "not affected"),
            )
            if names
        ]  # fmt: skip
        parts += [f"opens {name}" for name in self.opens]
        parts += [f"about {air} over the network" for air in (self.forecast.text,) if air]
        return "; ".join(parts) if parts else "No device is assigned it now"


def resumed(
    rollout: Rollout, how: How, substitutes: Sequence[str] = (), *, by: str = SOMEBODY, gone: Collection[str] = (),
) -> Rollout:  # fmt: skip
    """Return ``rollout`` running again, as the person ``by`` decided.

    Args:
        rollout: a paused rollout.
        how: how failures are treated.
        substitutes: the devices that try the release in place of others if ``how`` is REPLACE.
        by: the person.
        gone: devices that left the fleet, so that they can't try again.

    Raises:
        RolloutRefusedError: If it would pause again at once; the text names the alternative.
    """
    others = how is How.REPLACE
    members = _with_others(rollout, tuple(substitutes), by, gone) if others else _again(rollout, how, gone)
    changed = replace(rollout, phase=RolloutPhase.RUNNING, members=tuple(members))
    pause = stop(changed)
    if pause is not None:
        ways = " or ".join(_other_ways(rollout, how, gone))
        message = (
            f"Expected {how.value} to let {rollout.id} go on, got: {pause.text}: {f'{ways}, ' if ways else ''}skip the "
            "group, which names who decided it, or abort the rollout"
        )
        raise RolloutRefusedError(message)
    return changed


def _other_ways(rollout: Rollout, how: How, gone: Collection[str]) -> list[str]:
    """Return the other ways to resume that may let the rollout go on; REPLACE needs devices that have not begun."""
    later = sum(member.group >= rollout.opened for member in rollout.members)
    enough = later >= sum(count for _, count in to_replace(rollout)) > 0
    found = []
    for other in How:
        members = () if other is How.REPLACE else tuple(_again(rollout, other, gone))
        goes_on = enough if other is How.REPLACE else stop(replace(rollout, members=members)) is None
        if other is not how and goes_on:
            found.append(other.value)
    return found


def to_replace(rollout: Rollout) -> tuple[tuple[int, int], ...]:
    """Return (group, number of substitutes) for each open group that needs any."""
    wanted = []
    for index in _in_the_way(rollout):
        counts = count_members(rollout.group_members(index))
        nobody = not counts.committed and not counts.awaited
        count = counts.failed + counts.stuck - counts.replaced + counts.pending or int(nobody)
        if count:
            wanted.append((index, count))
    return tuple(wanted)


def skipped(rollout: Rollout, name: str, by: str, now_ms: int) -> Rollout:
    """Return ``rollout`` running, with the group ``name`` skipped by the person ``by``.

    Raises:
        RolloutRefusedError: If the group is not open, or reached its success ratio and answered an input, or ``by`` is
            empty.
    """
    found = [index for index in range(rollout.opened) if rollout.groups[index].name == name]
    short = [index for index in range(rollout.opened) if not passed(rollout, index) or unproven(rollout, index)]
    if not found or found[0] not in short:
        names = ", ".join(rollout.groups[index].name for index in short)
        message = f"Expected an open group short of its success ({names or 'there is none'}), got {name[:80]!r}"
        raise RolloutRefusedError(message)
    if not by.strip():
        message = f"Expected the name of the person who skips {name}, got none"
        raise RolloutRefusedError(message)
    mark = replace(rollout.groups[found[0]], skipped_by=by.strip(), skipped_ms=now_ms)
    groups = tuple(mark if index == found[0] else group for index, group in enumerate(rollout.groups))
    return replace(rollout, phase=RolloutPhase.RUNNING, groups=groups)


def foresee(before: Rollout, after: Rollout, statuses: Mapping[str, DeviceStatus], now_ms: int) -> Foresight:
    """Return the effects of replacing ``before`` by ``after``."""
    actions = plan(after, statuses, now_ms, limit=len(after.members))
    settled = apply_settlements(after, (action for action in actions if isinstance(action, Settle)), now_ms)
    going_on = {RolloutPhase.PAUSED: IN_FLIGHT, RolloutPhase.ABORTING: {MemberStanding.COMMITTED}}.get(
        after.phase, frozenset()
    )
    return Foresight(
        assigns=tuple(action.device for action in actions if isinstance(action, Assign)),
        later=tuple(
            action.device for action in actions
            if isinstance(action, Settle) and action.standing is MemberStanding.PENDING
        ),
        sets_back=(
            *(
                member.device for member in replaced(before, after)
                if member.gen > 0 and member.device in statuses and not statuses[member.device].removed
            ),
            *(action.device for action in actions if isinstance(action, SetBack)),
        ),
        opens=tuple(after.groups[action.index].name for action in actions if isinstance(action, OpenGroup)),
        unaffected=tuple(member.device for member in settled.members if member.standing in going_on),
    )  # fmt: skip


def replaced(before: Rollout, after: Rollout) -> tuple[Member, ...]:
    """Return the members, as in ``before``, that ``after`` replaces by others."""
    known = {member.device: member for member in before.members}
    return tuple(
        known[member.device] for member in after.members
        if member.replaced_by and not known[member.device].replaced_by
    )  # fmt: skip


def _in_the_way(rollout: Rollout) -> tuple[int, ...]:
    """Return the open groups that can't pass: too few successes or too many failures, by themselves or together."""
    together = sure_stop(rollout) is not None
    found = []
    for index, group in enumerate(rollout.groups[: rollout.opened]):
        counts = count_members(rollout.group_members(index))
        too_many = counts.errors_exceeded(group) or (together and counts.errors > 0)
        if not passed(rollout, index) or (too_many and not group.skipped_by):
            found.append(index)
    return tuple(found)


def _again(rollout: Rollout, how: How, gone: Collection[str]) -> Sequence[Member]:
    groups = frozenset(_in_the_way(rollout))
    members = []
    for member in rollout.members:
        in_vain = member.standing in IN_VAIN and not member.replaced_by
        again = in_vain or (member.standing, member.code) == (MemberStanding.CANCELLED, SUPERSEDED)
        if member.group not in groups or not again:
            members.append(member)
        elif how is How.TOLERATE:
            members.append(replace(member, tolerated=in_vain))
        elif member.device in gone:
            members.append(member)
        elif in_vain:
            waits = replace(member, standing=MemberStanding.WAITING, tolerated=False)
            members.append(replace(waits, retried_from=member.standing))
        else:
            members.append(replace(member, standing=MemberStanding.WAITING, code=""))
    return members


def _with_others(rollout: Rollout, substitutes: tuple[str, ...], by: str, gone: Collection[str]) -> Sequence[Member]:
    wanted = to_replace(rollout)
    missing = sum(count for _, count in wanted) - len(substitutes)
    if missing > 0:
        message = (
            f"Expected devices of later groups that are there and can run {rollout.release}, got {missing} too few: "
            f"{listed([*_other_ways(rollout, How.REPLACE, gone), 'skip the group'], NAMED)} or abort the rollout"
        )
        raise RolloutRefusedError(message)
    places = [index for index, count in wanted for _ in range(count)]
    moved = dict(zip(substitutes, places, strict=False))
    out = {index for index, _ in wanted}
    members = []
    for member in rollout.members:
        if member.device in moved:
            members.append(replace(member, group=moved[member.device]))
        elif member.group in out and member.standing in IN_VAIN and not member.replaced_by:
            members.append(replace(member, tolerated=False, replaced_by=by))
        elif member.group in out and member.standing is MemberStanding.PENDING:
            end = left_out(member, REPLACED)
            ended = replace(member, standing=end.standing, code=end.code, retried_from=None)
            members.append(replace(ended, replaced_by=by))
        else:
            members.append(member)
    return members
