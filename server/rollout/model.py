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
    FAILED = "failed"  # the release can't be had any more


OPEN_PHASES = frozenset({Phase.AWAITING_APPROVAL, Phase.RUNNING, Phase.PAUSED, Phase.ABORTING})


class Standing(StrEnum):
    """Where one device of a rollout is."""

    WAITING = "waiting"  # its group is not open yet, or its turn has not come
    ASSIGNING = "assigning"  # about to be told; found so after a restart, it is told again
    ASSIGNED = "assigned"  # told
    COMMITTED = "committed"  # the only success
    FAILED = "failed"  # rolled back, refused or stuck; ``code`` says which
    CANCELLED = "cancelled"  # leaves the denominator


IN_FLIGHT = frozenset({Standing.ASSIGNING, Standing.ASSIGNED})
SETTLED = frozenset({Standing.COMMITTED, Standing.FAILED, Standing.CANCELLED})
STUCK = "stuck"


@dataclass(frozen=True, slots=True)
class Member:
    """One device of a rollout.

    ``gen`` is that of its ``desired`` since assignment, ``before`` what it was to run before (as JSON, "" for
    nothing), ``air_bytes`` what it downloaded. ``tolerated``: a failure that an operator resumed over.
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


@dataclass(frozen=True, slots=True)
class Group:
    """One group: it opens the next when ``success_ratio`` of it committed, pauses above ``error_ratio``."""

    name: str
    success_ratio: float
    error_ratio: float


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
    """What the planner must know of a device: what it shall run now, and how far it says it is."""

    device: str
    desired_release: str = ""
    desired_gen: int = 0
    update: UpdateStatus = field(default_factory=UpdateStatus)


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
    """Note how ``device`` ended."""

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
