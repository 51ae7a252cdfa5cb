"""A rollout as a value: groups, members, thresholds, phase. No clock, no database, no fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.rollout.scope import Scope
from wire.messages import MaintenanceWindow, UpdateStatus
from wire.shadow import ShadowCounts, ShadowOrder


class RolloutPhase(StrEnum):
    """The phase of a rollout."""

    AWAITING_APPROVAL = "awaiting_approval"  # nothing is assigned before a person approves
    RUNNING = "running"
    PAUSED = "paused"  # no device is assigned the release; those that were go on
    ABORTING = "aborting"  # devices that have not committed are being set back
    ABORTED = "aborted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # over: no device committed, and each failing group was skipped or nobody is left


OPEN_PHASES = frozenset(
    {RolloutPhase.AWAITING_APPROVAL, RolloutPhase.RUNNING, RolloutPhase.PAUSED, RolloutPhase.ABORTING}
)
ABORTABLE = OPEN_PHASES - {RolloutPhase.ABORTING}


class MemberStanding(StrEnum):
    """The standing of one device in a rollout."""

    WAITING = "waiting"  # its group is not open yet, or its turn has not come
    PENDING = "pending"  # its group is open, but it is offline or was never seen: assigned when it connects
    ASSIGNING = "assigning"  # about to be assigned; after a restart the assignment is repeated
    ASSIGNED = "assigned"  # its ``desired`` names the release
    COMMITTED = "committed"  # the only success
    FAILED = "failed"  # rolled back or refused; ``code`` names which
    STUCK = "stuck"  # assigned, and neither committed nor failed by its deadline; may still commit
    CANCELLED = "cancelled"  # not in the denominator: the release had no outcome on it


IN_FLIGHT = frozenset({MemberStanding.ASSIGNING, MemberStanding.ASSIGNED})
WAITS_FOR_ITS_DEVICE = frozenset({MemberStanding.WAITING, MemberStanding.PENDING})  # assigned once it is reachable
IN_VAIN = frozenset({MemberStanding.FAILED, MemberStanding.STUCK})
SETTLED = frozenset({MemberStanding.COMMITTED, *IN_VAIN, MemberStanding.CANCELLED})
ABORTED = "aborted"  # the code of a cancelled member of an aborted rollout; set back if it was assigned the release
REMOVED = "device_removed"  # the code of a cancelled member that left the fleet
UNPROVEN = "unproven"  # the code of a rollout that waits for the first input that a committed device answers
AWAY = "away"  # what an assigned member waits for while its device can't be reached
NO_MODEL = "no_model"  # the code of a cancelled member without a model that nobody named, in a fleet of several models
SUPERSEDED = "superseded"  # the code of a cancelled member that was assigned another release since
REPLACED = "replaced"  # the code of a cancelled member in whose place another device tries the release


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device of a rollout.

    ``gen`` is that of its ``desired`` since assignment, ``before`` its ``desired`` before that (as JSON, "" for none),
    ``air_bytes`` what it fetched over the network in all its attempts, of the bundle and of patches, and
    ``earlier_bytes`` in those before the last. ``bundle_bytes``: of an older agent, which does not count that: how
    much of the bundle it had at last, however it came. ``tolerated``: a failure that no longer pauses, because an
    operator resumed with ``tolerate``; it still counts against success. ``replaced_by``: the person who let another
    device try in its place; the failure stays, but the group is judged without it. ``retried_from``: the earlier
    standing (failed or stuck) during a retry; ``code`` is still the earlier one, and both apply again if the retry ends
    without an outcome. ``shadow``: what it counted before it switched, or refused to. ``replay``: how the release
    answered inputs of the one before after the switch. ``answered``: how many inputs it had answered there when it was
    committed; 0: none yet; None: not committed, or an agent that does not say. ``waits_for``: the code why its
    device has put the update off, by its last report, or ``AWAY`` if it was assigned and is away now; it is not
    stored. ``forecast_bytes``: what it was to fetch in all attempts, by what it had when each began;
    ``forecast_upper``: at most that, because nobody knew what it had; None: not assigned yet (``figures.forecast``
    fills it in), or assigned by an older server.
    """

    device: str
    group: int
    standing: MemberStanding = MemberStanding.WAITING
    gen: int = 0
    assigned_ms: int = 0
    settled_ms: int = 0
    code: str = ""
    air_bytes: int = 0
    earlier_bytes: int = 0
    bundle_bytes: int = 0
    before: str = ""
    tolerated: bool = False
    replaced_by: str = ""
    retried_from: MemberStanding | None = None
    shadow: ShadowCounts | None = None
    replay: ShadowCounts | None = None
    answered: int | None = None
    waits_for: str = ""
    forecast_bytes: int | None = None
    forecast_upper: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group: the next opens when ``success_ratio`` of it committed; the rollout pauses above ``error_ratio``.

    ``skipped_by``: the person who at ``skipped_ms`` let the next group open although this one did not reach its
    ``success_ratio``; "" for nobody. ``named``: a person listed its devices; a group stored by an older server counts
    as listed.
    """

    name: str
    success_ratio: float
    error_ratio: float
    skipped_by: str = ""
    skipped_ms: int = 0
    named: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout. Groups below ``opened`` are open; if ``dynamic``, later devices of the scope join the last group.

    ``window``: devices switch inside of it only, by their own clock; None: at any time. ``shadow``: how they
    compare the release with the one that serves before that; None: they don't. ``max_bytes_per_s``: how fast they may
    download; 0: no limit but their own. ``scope``: which devices it is for. ``cautions``: devices that come last,
    and devices that don't get it, although they could run it, each with the reason. ``created_by`` and ``approvals``:
    who created it, and who has approved it so far.
    """

    id: str
    release: str
    groups: tuple[Group, ...]
    members: tuple[Member, ...] = ()
    phase: RolloutPhase = RolloutPhase.AWAITING_APPROVAL
    code: str = ""
    text: str = ""
    opened: int = 0
    probation_s: float = 600.0
    deadline_s: float = 86_400.0
    dynamic: bool = False
    window: MaintenanceWindow | None = None
    shadow: ShadowOrder | None = None
    max_bytes_per_s: int = 0
    scope: Scope = field(default_factory=Scope)
    cautions: Mapping[str, str] = field(default_factory=dict)
    created_ms: int = 0
    created_by: str = ""
    approvals: tuple[str, ...] = ()
    updated_ms: int = 0

    def group_members(self, group: int) -> tuple[Member, ...]:
        """Return the members of one group."""
        return tuple(member for member in self.members if member.group == group)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """The planner's view of a device: its ``desired``, the progress that it reports, whether messages reach it.

    ``reachable``: it has connected before, and is neither away nor silent. ``removed``: it left the fleet (revoked or
    removed); ``update`` is its last report before that.
    """

    device: str
    desired_release: str = ""
    desired_gen: int = 0
    update: UpdateStatus = field(default_factory=UpdateStatus)
    reachable: bool = True
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Assign:
    """Assign the release to ``device``."""

    device: str


@dataclass(frozen=True, slots=True)
class SetBack:
    """Restore the previous ``desired`` of ``device``."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Record the standing of ``device``: its outcome, or that it can't be reached yet; the rest as in ``Member``."""

    device: str
    standing: MemberStanding
    code: str = ""
    air_bytes: int = 0
    bundle_bytes: int = 0
    shadow: ShadowCounts | None = None
    replay: ShadowCounts | None = None
    answered: int | None = None


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Open group number ``index``."""

    index: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Open no further group for now, without a pause; ``text`` gives the reason."""

    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Stop assigning further devices; ``code`` gives the reason."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The rollout is over."""

    phase: RolloutPhase


Action = Assign | SetBack | Settle | OpenGroup | Hold | Pause | Finish
