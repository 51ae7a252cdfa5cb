"""A rollout as a value: groups, members, thresholds, phase. No clock, no database, no fleet."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wire.messages import UpdateStatus


class Phase(StrEnum):
    """Where a rollout is."""

    AWAITING_APPROVAL = "awaiting_approval"  # nothing is sent before a person approves
    RUNNING = "running"
    PAUSED = "paused"  # no device is told anything new; those that were told go on
    ABORTING = "aborting"  # who has not committed is being set back
    ABORTED = "aborted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # it is over, every group that stood in its way was skipped, and no device committed


OPEN_PHASES = frozenset({Phase.AWAITING_APPROVAL, Phase.RUNNING, Phase.PAUSED, Phase.ABORTING})
ABORTABLE = OPEN_PHASES - {Phase.ABORTING}


class Standing(StrEnum):
    """Where one device of a rollout is."""

    WAITING = "waiting"  # its group is not open yet, or its turn has not come
    PENDING = "pending"  # its group is open, but nobody can tell it: offline or never seen; no failure, told when heard
    ASSIGNING = "assigning"  # about to be told; found so after a restart, it is told again
    ASSIGNED = "assigned"  # told
    COMMITTED = "committed"  # the only success
    FAILED = "failed"  # rolled back or refused; ``code`` says which
    STUCK = "stuck"  # told, and neither committed nor failed by its deadline; may still commit
    CANCELLED = "cancelled"  # leaves the denominator: nothing is known of how the release does on it


IN_FLIGHT = frozenset({Standing.ASSIGNING, Standing.ASSIGNED})
IN_VAIN = frozenset({Standing.FAILED, Standing.STUCK})
SETTLED = frozenset({Standing.COMMITTED, *IN_VAIN, Standing.CANCELLED})
REMOVED = "device_removed"  # the code of a cancelled member that left the fleet
REPLACED = "replaced"  # the code of a cancelled member that another device tries the release for


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a rollout.

    ``gen`` is that of its ``desired`` since assignment, ``before`` what it was to run before (as JSON, "" for
    nothing), ``air_bytes`` what it downloaded. ``tolerated``: a failure that pauses no more, since an operator resumed
    over it; against success it still counts. ``replaced_by``: the person who let another device try in its place; a
    failure stays one, but its group is judged without it. ``retried_from``: failed or stuck, while a person has it try
    again; ``code`` is still that of then, and both hold again if the new try ends without an outcome.
    """

    device: str
    group: int
    standing: Standing = Standing.WAITING
    gen: int = 0
    assigned_ms: int = 0
    settled_ms: int = 0
    code: str = ""
    air_bytes: int = 0
    before: str = ""
    tolerated: bool = False
    replaced_by: str = ""
    retried_from: Standing | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """One group: it opens the next when ``success_ratio`` of it committed, pauses above ``error_ratio``.

    ``skipped_by``: the person who decided that the next may open although this one did not reach its success, at
    ``skipped_ms``; "" for nobody.
    """

    name: str
    success_ratio: float
    error_ratio: float
    skipped_by: str = ""
    skipped_ms: int = 0


@dataclass(frozen=True, slots=True)
class Rollout:
    """One rollout. Groups below ``opened`` are open; the last takes in devices that enrol later if ``dynamic``."""

    id: str
    release: str
    groups: tuple[Group, ...]
    members: tuple[Member, ...] = ()
    phase: Phase = Phase.AWAITING_APPROVAL
    code: str = ""
    text: str = ""
    opened: int = 0
    probation_s: float = 600.0
    deadline_s: float = 86_400.0
    dynamic: bool = True
    created_ms: int = 0
    updated_ms: int = 0

    def group_members(self, group: int) -> tuple[Member, ...]:
        """Return the members of one group."""
        return tuple(member for member in self.members if member.group == group)


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """What the planner must know of a device: what it shall run now, how far it says it is, whether it can be told.

    ``reachable``: it was seen, and it is neither away nor silent. ``removed``: it is of the fleet no longer (revoked
    or removed); ``update`` is what it reported before that.
    """

    device: str
    desired_release: str = ""
    desired_gen: int = 0
    update: UpdateStatus = field(default_factory=UpdateStatus)
    reachable: bool = True
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Assign:
    """Tell ``device`` to run the release."""

    device: str


@dataclass(frozen=True, slots=True)
class SetBack:
    """Tell ``device`` to run again what it was to run before."""

    device: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Note where ``device`` is now: how it ended, or that it can't be told yet."""

    device: str
    standing: Standing
    code: str = ""
    air_bytes: int = 0


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Open group number ``index``."""

    index: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop telling further devices; ``code`` says why."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The rollout is over."""

    phase: Phase


Action = Assign | SetBack | Settle | OpenGroup | Pause | Finish
