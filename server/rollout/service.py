"""Runs rollouts: asks the planner, stores each step, then performs it. Idempotent after a restart."""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from server.access.audit_log import act_of
from server.clock import Clock, system_now_ms
from server.errors import (
    ApprovalRefusedError,
    ReleaseRegressedError,
    ReleaseWithdrawnError,
    RolloutPhaseError,
    RolloutRefusedError,
)
from server.fleet.fleet import Device, Fleet, Roster
from server.fleet.liveness import is_reachable
from server.people import SERVER_ACTOR, SOMEBODY, Actor, ActorKind, By, actor_of
from server.registry.events import EventLog
from server.registry.versions import Release, Versions
from server.rollout.assignments import Assigner
from server.rollout.config import RolloutConfig
from server.rollout.create import RolloutOptions, draft
from server.rollout.figures.forecast import Forecast, foreseen, total
from server.rollout.figures.members import RolloutFigures
from server.rollout.ledger import RolloutLedger, as_text
from server.rollout.model import (
    ABORTABLE,
    IN_FLIGHT,
    IN_VAIN,
    NO_MODEL,
    OPEN_PHASES,
    UNPROVEN,
    WAITS_FOR_ITS_DEVICE,
    Action,
    Assign,
    DeviceStatus,
    Finish,
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
from server.rollout.planner import (
    NEVER,
    apply_settlements,
    due_ms,
    held_by,
    plan,
    settled,
    so_far,
    waited_for,
    with_away,
)
from server.rollout.resuming import NAMED, Foresight, How, foresee, replaced, resumed, skipped, to_replace
from server.rollout.selection import Eligibility, choose_bundle, is_blank, pick_canaries, without_model
from server.rollout.thresholds import count_members, outcome, unanswered_count
from server.rollout.thresholds import devices as counted
from server.wording import duration, listed
from wire.codec import Json
from wire.messages import Severity, UpdateStatus

_LOG = logging.getLogger(__name__)
_PHASES = {  # for each act: the phases in which it is allowed, and the one it leads to
    "approve": (frozenset({RolloutPhase.AWAITING_APPROVAL}), RolloutPhase.RUNNING),
    "pause": (frozenset({RolloutPhase.RUNNING}), RolloutPhase.PAUSED),
    "abort": (ABORTABLE, RolloutPhase.ABORTING),
}


_KEPT = 1_000
Description = TypeVar("Description")
Kept: TypeAlias = dict[tuple[str, int], Description]
"""Descriptions of rollouts that are over, by id and the time of their last change."""
_ACTS = {"resumed": "rollout.resume", "group_skipped": "rollout.skip_group"}
_MOVES = {
    RolloutPhase.RUNNING: "rollout.approve", RolloutPhase.PAUSED: "rollout.pause",
    RolloutPhase.ABORTING: "rollout.abort", RolloutPhase.AWAITING_APPROVAL: "rollout.approve",
}  # fmt: skip


def _nothing(_: str) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calm:
    """What a turn read that had nothing to do: the next has nothing to do either until something of it changes.

    ``away``: members that are not assigned it yet and that no message reached, which one may again without other news;
    that one is not reached any more is none: in an open group it was assigned when it was. ``due_ms``: when time alone
    may change a plan.
    """

    rollouts: tuple[Rollout, ...]
    roster: Roster
    releases: tuple[Release, ...]
    away: tuple[str, ...]
    now_ms: int
    due_ms: int

    @classmethod
    def of(
        cls, rollouts: tuple[Rollout, ...], roster: Roster, releases: tuple[Release, ...], now_ms: int, silent_s: float
    ) -> _Calm:
        names = dict.fromkeys(
            one.device for rollout in rollouts for one in rollout.members if one.standing in WAITS_FOR_ITS_DEVICE
        )
        members = [roster.by_id[name] for name in names if name in roster.by_id]
        return cls(
            rollouts=rollouts, roster=roster, releases=releases, now_ms=now_ms,
            away=tuple(device.device for device in members if not is_reachable(device, now_ms, silent_s)),
            due_ms=min((due_ms(rollout, now_ms) for rollout in rollouts), default=NEVER),
        )  # fmt: skip

    def lasts(
        self, rollouts: tuple[Rollout, ...], roster: Roster, releases: tuple[Release, ...], now_ms: int, silent_s: float
    ) -> bool:
        """Return whether nothing of it has changed."""
        known = (self.roster.revision, self.releases, len(self.rollouts))
        if known != (roster.revision, releases, len(rollouts)) or not self.now_ms <= now_ms < self.due_ms:
            return False
        if any(one is not other for one, other in zip(rollouts, self.rollouts, strict=True)):
            return False
        return roster is self.roster or not any(
            is_reachable(roster.by_id[name], now_ms, silent_s) for name in self.away
        )


@dataclass(eq=False, slots=True, kw_only=True)
class RolloutService:
    """All rollouts of one server. Safe to share between threads.

    ``regressed``: why a release may go to no further device, in words, "" if it may: see ``rollout.regressions``.
    """

    ledger: RolloutLedger
    fleet: Fleet
    versions: Versions
    events: EventLog
    config: RolloutConfig = field(default_factory=RolloutConfig)
    clock: Clock = system_now_ms
    silent_s: float = 7_200.0
    regressed: Callable[[str], str] = _nothing
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _calm: _Calm | None = None  # the last turn, if it had nothing to do

    def list(self) -> tuple[Rollout, ...]:
        """Return every rollout, newest first."""
        return self.ledger.all()

    def get(self, rollout: str) -> Rollout:
        """Return one rollout.

        Raises:
            UnknownRolloutError: If there is none of that id.
        """
        return self.ledger.get(rollout)

    def described(
        self,
        heads: Sequence[Rollout],
        describe: Callable[[Rollout, RolloutFigures], Description],
        kept: dict[tuple[str, int], Description],
    ) -> tuple[Description, ...]:
        """Return ``describe`` of each rollout, up to date, and its figures; ``heads`` may lack their members.

        Of a rollout that is over nothing changes any more: its description is made once, of figures alone, and
        ``kept``.
        """
        going = [one for one in heads if one.phase in OPEN_PHASES]
        over = [one for one in heads if one.phase not in OPEN_PHASES and (one.id, one.updated_ms) not in kept]
        whole = self.up_to_date(*self.ledger.whole(going))
        found: dict[str, Description] = {}
        for one, figures in (*((one, RolloutFigures.of(one)) for one in whole), *self.ledger.figures(over)):
            found[one.id] = describe(one, figures)
            if one.phase not in OPEN_PHASES:
                kept[one.id, one.updated_ms] = found[one.id]
        while len(kept) > _KEPT:
            del kept[next(iter(kept))]
        return tuple(
            found.get(one.id) or kept[one.id, one.updated_ms]
            for one in heads if one.id in found or (one.id, one.updated_ms) in kept
        )  # fmt: skip

    def up_to_date(self, *rollouts: Rollout) -> tuple[Rollout, ...]:
        """Return ``rollouts`` with the bytes and counts that devices under way have reported, which none has settled.

        They are kept with the outcome only: a device under way sends them again with each report. Those that are not
        assigned the release yet have the forecast of what they will fetch. A rollout that waits
        for devices that are away alone, assigned or not, says so in its text, and one that is held by a verdict names
        it.
        """
        going = {*IN_FLIGHT, MemberStanding.STUCK}
        if not any(one.phase in OPEN_PHASES for one in rollouts):
            return rollouts
        devices, releases = {device.device: device for device in self.fleet.devices()}, self.versions.releases()
        rollouts = tuple(foreseen(one, devices, releases) for one in rollouts)
        updates = {name: device.reported.update for name, device in devices.items() if device.reported}
        rollouts = tuple(
            replace(one, members=tuple(
                so_far(member, updates[member.device], one.release)
                if member.standing in going and member.device in updates else member
                for member in one.members
            )) if one.phase in OPEN_PHASES else one
            for one in rollouts
        )  # fmt: skip
        here = self._reachable(devices.values())
        rollouts = tuple(with_away(one, here) if one.phase in OPEN_PHASES else one for one in rollouts)
        return tuple(replace(one, text=_joined(_with_away(one), self.held(one))) for one in rollouts)

    def _reachable(self, devices: Iterable[Device]) -> frozenset[str]:
        now_ms = self.clock()
        return frozenset(device.device for device in devices if is_reachable(device, now_ms, self.silent_s))

    def held(self, rollout: Rollout) -> str:
        """Return why a rollout can't be approved or resumed because of its release, in words; "" if it can."""
        stands = rollout.phase in {RolloutPhase.AWAITING_APPROVAL, RolloutPhase.PAUSED}
        return self.regressed(rollout.release) if stands else ""

    def create(self, request: RolloutOptions, *, by: By = SOMEBODY) -> Rollout:
        """Create a rollout, as ``by`` wants it; it runs at once when ``approved``.

        Raises:
            UnknownReleaseError: If the release is not published.
            ReleaseWithdrawnError: If it was withdrawn.
            ReleaseRegressedError: If it shall run at once, and the release has an open regression.
            ApprovalRefusedError: If it shall run at once, and others have to approve it (``[rollout] approvers``).
            RolloutRefusedError: If no device can run it, a threshold is impossible, or another rollout is open.
        """
        with self._lock:
            if self.versions.release(request.release).withdrawn_ms:
                message = f"Expected a release that may be rolled out, got {request.release}, which was withdrawn"
                raise ReleaseWithdrawnError(message)
            request = self._unapproved(request, actor_of(by))
            if request.approved:
                self._refuse_regressed(request.release)
            devices, releases = self.fleet.devices(), self.versions.releases()
            rollout = draft(request, self.config, devices, releases, identity=secrets.token_hex(4), now_ms=self.clock())
            rollout = replace(rollout, created_by=actor_of(by).name)
            self._refuse_overlap(rollout)
            data: dict[str, Json] = {"release": rollout.release, "approved": request.approved}
            self.ledger.add(rollout, act_of(by, "rollout.create", rollout.id, self.clock(), data))
            text = _created(rollout, {one.device: one for one in devices}) + _fewer(rollout, request)
            self._note(rollout, "created", Severity.INFO, text, by=by)
            for device, why in rollout.cautions.items():
                self._note(rollout, "held_back", Severity.WARNING, f"{rollout.release}: {why}", device=device)
            return rollout

    def approve(self, rollout: str, *, by: By = SOMEBODY, only: Sequence[str] | None = None) -> Rollout:
        """Start a rollout, or record one of several approvals that it needs.

        ``only``: the devices that the person expects to be assigned at once.

        Raises:
            UnknownRolloutError: If there is none of that id.
            ApprovalRefusedError: If ``[rollout] approvers`` counts people, and ``by`` is none, has created it, or has
                approved it already.
            RolloutPhaseError: If it does not await approval, or would assign other devices than ``only``.
            ReleaseRegressedError: If its release has an open regression.
        """
        with self._lock:
            known, after = self._after(rollout, "approve")
            self._refuse_surprise(self._foreseen(known, after), only)
            approvals = self._approvals(known, actor_of(by))
            missing, text = self.config.approvers - len(approvals), f"Approved by {listed(approvals, NAMED)}"
            phase = RolloutPhase.AWAITING_APPROVAL if missing > 0 else RolloutPhase.RUNNING
            text += f"; waits for {missing} more" if missing > 0 else ""
            return self._move(known, phase, "approved", text, by, {"approvals": json.dumps(approvals)})

    def pause(self, rollout: str, code: str = "operator", text: str = "", *, by: By = "") -> Rollout:
        """Assign no further device; a rollout that is already paused keeps its first reason.

        Args:
            rollout: its id.
            code: the stable code of the reason.
            text: the reason in words; by default that somebody paused it.
            by: the person who did it, "" for the server itself.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it is over, or still awaits approval.
        """
        with self._lock:
            known = self.get(rollout)
            if known.phase is RolloutPhase.PAUSED:
                return known
            known, _ = self._after(rollout, "pause")
            return self._move(known, RolloutPhase.PAUSED, code, text or f"Paused by {by or SOMEBODY}", by)

    def pause_release(self, release: str, code: str, text: str = "") -> tuple[str, ...]:
        """Pause every running rollout of ``release`` (for example on a ``release_regression``); return their ids."""
        with self._lock:
            opened = [known for known in self.ledger.open() if known.release == release]
            running = [known.id for known in opened if known.phase is RolloutPhase.RUNNING]
            return tuple(self.pause(known, code, text or f"Paused: {code}").id for known in running)

    def resume(
        self, rollout: str, how: How = How.RETRY, *, by: By = SOMEBODY, only: Sequence[str] | None = None
    ) -> Rollout:
        """Resume in the way ``how``; ``only``: the devices that the person expects to be assigned at once.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it is not paused, or would assign other devices than ``only``.
            ReleaseRegressedError: If its release has an open regression.
            RolloutRefusedError: If it would pause again at once.
        """
        with self._lock:
            known, after = self._resumed(rollout, how, actor_of(by).name)
            return self._steer(known, after, "resumed", f"Resumed by {by}: {how.value}", by, only)

    def skip(self, rollout: str, group: str, *, by: By, only: Sequence[str] | None = None) -> Rollout:
        """Let the groups after ``group`` open although it missed its success ratio or answered no input yet.

        The person ``by`` decided it.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it neither runs nor is paused, or would assign other devices than ``only``.
            ReleaseRegressedError: If its release has an open regression.
            RolloutRefusedError: If the group is not open or reached its success ratio, or ``by`` is empty.
        """
        with self._lock:
            known, after = self._skipped(rollout, group, actor_of(by).name if by else "")
            return self._steer(known, after, "group_skipped", f"Group {group} skipped by {by}", by, only)

    def foresee(
        self, rollout: str, act: str, *, how: How = How.RETRY, group: str = "", by: Actor | None = None
    ) -> Foresight:  # fmt: skip
        """Return the immediate effects of ``act`` (approve, pause, resume, skip, abort) on devices, without acting.

        ``by``: who is going to act; None for somebody who only looks.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If the act is not allowed in its phase.
            RolloutRefusedError: If the act would be refused.
            ApprovalRefusedError: If the approval of ``by`` would not count.
        """
        with self._lock:
            if act == "approve" and by is not None:
                self._approvals(self._in_phase(rollout, _PHASES[act][0]), by)
            if act == "skip":
                known, after = self._skipped(rollout, group, SOMEBODY)
            elif act == "resume":
                known, after = self._resumed(rollout, how, SOMEBODY)
            else:
                known, after = self._after(rollout, act)
            return self._foreseen(known, after)

    def _after(self, rollout: str, act: str) -> tuple[Rollout, Rollout]:
        allowed, phase = _PHASES[act]
        known = self._in_phase(rollout, allowed)
        if phase is RolloutPhase.RUNNING:
            self._refuse_regressed(known.release)
        return known, replace(known, phase=phase)

    def _resumed(self, rollout: str, how: How, by: str) -> tuple[Rollout, Rollout]:
        known = self._in_phase(rollout, {RolloutPhase.PAUSED})
        self._refuse_regressed(known.release)
        others: tuple[str, ...] = ()
        devices, now_ms = {device.device: device for device in self.fleet.devices()}, self.clock()
        if how is How.REPLACE:
            waiting = [member.device for member in known.members if member.group >= known.opened]
            there = [
                devices[name] for name in waiting
                if name in devices and is_reachable(devices[name], now_ms, self.silent_s)
                and choose_bundle(self.versions.releases(), known.release, devices[name]) is not None
            ]  # fmt: skip
            others = pick_canaries(there, sum(count for _, count in to_replace(known)), known.id)
        gone = {member.device for member in known.members} - devices.keys()
        return known, resumed(known, how, others, by=by, gone=gone)

    def _skipped(self, rollout: str, group: str, by: str) -> tuple[Rollout, Rollout]:
        known = self._in_phase(rollout, frozenset({RolloutPhase.RUNNING, RolloutPhase.PAUSED}))
        self._refuse_regressed(known.release)
        return known, skipped(known, group, by, self.clock())

    def _foreseen(self, before: Rollout, after: Rollout) -> Foresight:
        devices, releases, now_ms = self.fleet.devices(), self.versions.releases(), self.clock()
        fresh, known = self._newcomers(after, devices, releases), {device.device: device for device in devices}
        whole = replace(after, members=(*after.members, *fresh))
        whole = apply_settlements(whole, without_model(whole, known, releases), now_ms)
        seen = foresee(before, whole, self._statuses(after, known, now_ms), now_ms)
        told = {*seen.assigns, *seen.later}
        fresh = tuple(replace(one, gen=0, standing=MemberStanding.WAITING) for one in whole.members)
        likely = foreseen(replace(whole, members=tuple(one for one in fresh if one.device in told)), known, releases)
        return replace(seen, forecast=total(likely.members) or Forecast(0))

    def _steer(
        self, before: Rollout, after: Rollout, code: str, text: str, by: By, only: Sequence[str] | None
    ) -> Rollout:
        seen = self._foreseen(before, after)
        self._refuse_surprise(seen, only)
        devices = {device.device: device for device in self.fleet.devices()}
        assigner = Assigner(self.ledger, self.fleet, self.versions.releases())
        for member in replaced(before, after):
            told = member.device in devices and devices[member.device].desired_release == before.release
            if member.gen > 0 and told:
                assigner.set_back(before, member, devices[member.device])
        now_ms, act = self.clock(), _ACTS[code]
        also = act_of(by, act, before.id, now_ms, {"release": before.release, "text": text})
        self.ledger.rewrite(before, replace(after, code=code, text=text), now_ms, also)
        said = f"Rollout of {before.release} running: {text}. {seen.text}"
        self._note(before, code, Severity.WARNING, said, by=by)
        return self.get(before.id)

    def abort(self, rollout: str, *, by: By = SOMEBODY, why: str = "", code: str = "aborted") -> Rollout:
        """Abort a rollout; devices that have not committed get their previous ``desired`` back.

        Args:
            rollout: its id.
            by: the person who decided it.
            why: the reason in words, "" for none.
            code: the stable code of the reason.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it is over.
        """
        with self._lock:
            known, _ = self._after(rollout, "abort")
            return self._move(known, RolloutPhase.ABORTING, code, f"Aborted by {by}" + (f": {why}" if why else ""), by)

    def turn(self, now_ms: int) -> None:
        """Perform the next steps of every open rollout."""
        with self._lock:
            rollouts = self.ledger.open()
            if not rollouts:
                return
            roster, releases = self.fleet.roster(), self.versions.releases()
            if self._calm is not None and self._calm.lasts(rollouts, roster, releases, now_ms, self.silent_s):
                return
            calm, devices = True, roster.by_id
            for rollout in rollouts:
                added = self._newcomers(rollout, roster.devices, releases)
                if added:
                    self.ledger.add_members(rollout.id, added)
                whole = replace(rollout, members=(*rollout.members, *added)) if added else rollout
                left = self._without_blank(whole, devices, releases, now_ms)
                calm = not self._turn(left, devices, releases, now_ms) and left is rollout and calm
            self._calm = _Calm.of(rollouts, roster, releases, now_ms, self.silent_s) if calm else None

    def _without_blank(
        self, rollout: Rollout, devices: Mapping[str, Device], releases: Sequence[Release], now_ms: int
    ) -> Rollout:
        """Leave out blank devices that were taken before the fleet had a second model; return the rollout after."""
        ends = without_model(rollout, devices, releases)
        if not ends:
            return rollout
        members = {member.device: member for member in rollout.members}
        for end in ends:
            self._settle(rollout, members[end.device], end, now_ms)
        text = (
            f"Rollout of {rollout.release}: {counted(len(ends))} left out, without a model in a fleet of several: "
            f"{listed([end.device for end in ends], NAMED)}; name them by device, site or attribute"
        )
        self._note(rollout, NO_MODEL, Severity.WARNING, text)
        return apply_settlements(rollout, ends, now_ms)

    def _turn(self, rollout: Rollout, devices: Mapping[str, Device], releases: Sequence[Release], now_ms: int) -> bool:
        """Perform the next steps of one rollout; return whether there was any."""
        statuses = self._statuses(rollout, devices, now_ms)
        members = {member.device: member for member in rollout.members}
        assigner = Assigner(self.ledger, self.fleet, releases)
        actions = plan(rollout, statuses, now_ms, limit=self.config.assignments_a_turn)
        for action in actions:
            match action:
                case Assign(device):
                    end = assigner.assign(rollout, members[device], devices[device], now_ms)
                    self._settle(rollout, members[device], end, now_ms)
                case SetBack(device):
                    end = assigner.set_back(rollout, members[device], devices[device])
                    self._settle(rollout, members[device], end, now_ms)
                case Settle():
                    self._settle(rollout, members[action.device], action, now_ms)
                case _:
                    self._decide(rollout, action, now_ms)
        return bool(actions)

    def _refuse_overlap(self, rollout: Rollout) -> None:
        devices, here = {member.device for member in rollout.members}, self._reachable(self.fleet.devices())
        for other in (with_away(one, here) for one in self.ledger.open()):
            if devices & {member.device for member in other.members}:
                message = (
                    f"Expected devices without an open rollout, got some of {other.id} ({other.release}, "
                    f"{other.phase}): {_way_out(other)}"
                )
                raise RolloutRefusedError(message)

    def _newcomers(
        self, rollout: Rollout, devices: Collection[Device], releases: Sequence[Release]
    ) -> tuple[Member, ...]:
        if not rollout.dynamic or rollout.phase is not RolloutPhase.RUNNING:
            return ()
        taken = {*rollout.cautions, *(member.device for other in self.ledger.open() for member in other.members)}
        rules, last = Eligibility.of(devices, releases, rollout.release), len(rollout.groups) - 1
        free = (device for device in devices if device.device not in taken)  # few: most are members
        return tuple(
            Member(device=device.device, group=last) for device in free if not rules.refusal(device, rollout.scope)
        )

    def _settle(self, rollout: Rollout, member: Member, settle: Settle | None, now_ms: int) -> None:
        if settle is None:
            return
        after = settled(member, settle, now_ms)
        changes = {
            "standing": after.standing.value, "code": after.code, "air_bytes": after.air_bytes,
            "bundle_bytes": after.bundle_bytes, "settled_ms": after.settled_ms, "tolerated": after.tolerated,
            "shadow": as_text(after.shadow), "replay": as_text(after.replay), "answered": after.answered,
            "retried_from": after.retried_from.value if after.retried_from else "",
        }  # fmt: skip
        self.ledger.change_member(rollout.id, settle.device, changes)
        if settle.standing in IN_VAIN:
            text = f"{settle.device} failed in the rollout of {rollout.release}: {settle.code}"
            self._note(rollout, settle.code, Severity.WARNING, text, device=settle.device)

    def _decide(self, rollout: Rollout, action: Action, now_ms: int) -> None:
        match action:
            case OpenGroup(index):
                waited = {"code": "group_opened", "text": ""} if rollout.code == UNPROVEN else {}
                self.ledger.change(rollout.id, {"opened": index + 1, **waited}, now_ms)
                if rollout.dynamic or rollout.group_members(index):  # others have no device that it opens for
                    text = f"Group {rollout.groups[index].name} of the rollout of {rollout.release} is open"
                    self._note(rollout, "group_opened", Severity.INFO, text)
            case Hold(text):
                self.ledger.change(rollout.id, {"code": UNPROVEN, "text": text}, now_ms)
                self._note(rollout, UNPROVEN, Severity.WARNING, f"Rollout of {rollout.release} waits: {text}")
            case Pause(code, text):
                data = {"release": rollout.release, "code": code, "text": text}
                act = act_of(SERVER_ACTOR, _MOVES[RolloutPhase.PAUSED], rollout.id, now_ms, data)
                changes = {"phase": RolloutPhase.PAUSED.value, "code": code, "text": text}
                self.ledger.change(rollout.id, changes, now_ms, act)
                self._note(rollout, code, Severity.ERROR, f"Rollout of {rollout.release} paused: {text}")
            case Finish(phase):
                said = outcome(self.get(rollout.id))  # includes devices settled in this turn
                changes = {"phase": phase.value, "code": phase.value, "text": said}
                if phase is RolloutPhase.ABORTED:  # keep who aborted it and why
                    changes = {"phase": phase.value, "text": f"{rollout.text}; {said}"}
                self.ledger.change(rollout.id, changes, now_ms)
                text = f"Rollout of {rollout.release}: {phase.value}, {said}"
                self._note(rollout, phase.value, _end_severity(self.get(rollout.id)), text)

    def _unapproved(self, request: RolloutOptions, actor: Actor) -> RolloutOptions:
        """Return the request without the approval that others have to give; a retraining waits for them too."""
        if not (request.approved and self.config.approvers):
            return request
        if actor.kind is not ActorKind.SERVER:
            message = (
                f"Expected a rollout that waits for the approval of {self.config.approvers} others ([rollout] "
                "approvers), got one that is approved: leave that out"
            )
            raise ApprovalRefusedError(message)
        return replace(request, approved=False)

    def _approvals(self, known: Rollout, actor: Actor) -> tuple[str, ...]:
        """Return who has approved a rollout, with ``actor``."""
        if not self.config.approvers:
            return (actor.name,)
        problem = ""
        if actor.kind is not ActorKind.USER:
            problem = f"{actor.account}, which is no person: log in by name, or use a personal token"
        elif actor.account == known.created_by:
            problem = f"{actor.account}, who created it"
        elif actor.account in known.approvals:
            problem = f"{actor.account}, who has approved it already"
        if problem:
            message = f"Expected the approval of a person other than who created rollout {known.id}, got {problem}"
            raise ApprovalRefusedError(f"{message} ([rollout] approvers = {self.config.approvers})")
        return (*known.approvals, actor.account)

    def _move(
        self,
        known: Rollout,
        phase: RolloutPhase,
        code: str,
        text: str,
        by: By,
        more: Mapping[str, object] | None = None,
    ) -> Rollout:
        now_ms, data = self.clock(), {"release": known.release, "code": code, "text": text}
        changes = {"phase": phase.value, "code": code, "text": text, **(more or {})}
        self.ledger.change(known.id, changes, now_ms, act_of(by, _MOVES[phase], known.id, now_ms, data))
        severity = Severity.WARNING if phase in {RolloutPhase.PAUSED, RolloutPhase.ABORTING} else Severity.INFO
        self._note(known, code, severity, f"Rollout of {known.release} {phase.value.replace('_', ' ')}: {text}", by=by)
        return self.get(known.id)

    def _refuse_regressed(self, release: str) -> None:
        why = self.regressed(release)
        if why:
            message = f"Expected a release without an open release_regression, got {release}: {why}"
            raise ReleaseRegressedError(message)

    def _refuse_surprise(self, seen: Foresight, only: Sequence[str] | None) -> None:
        if only is not None and set(only) != set(seen.assigns):
            message = f"Expected to assign it to {', '.join(sorted(only)) or 'nobody'}, got: {seen.text}: look again"
            raise RolloutPhaseError(message)

    def _in_phase(self, rollout: str, allowed: Collection[RolloutPhase]) -> Rollout:
        known = self.get(rollout)
        if known.phase not in allowed:
            wanted = " or ".join(sorted(allowed))
            message = f"Expected a rollout that is {wanted}, got {rollout}, which is {known.phase.value}"
            raise RolloutPhaseError(message)
        return known

    def _note(
        self, rollout: Rollout, code: str, severity: Severity, text: str, *, device: str | None = None, by: By = ""
    ) -> None:
        data = {"rollout": rollout.id, "release": rollout.release, **({"by": actor_of(by).name} if by else {})}
        self.events.add(self.clock(), "rollout", code, severity, text, device=device, data=data)
        _LOG.info("Rollout changed. id=%s release=%s code=%s", rollout.id, rollout.release, code)

    def _statuses(self, rollout: Rollout, devices: Mapping[str, Device], now_ms: int) -> Mapping[str, DeviceStatus]:
        """Return the status of every device, and of awaited members that have left the fleet."""
        gone = {
            member.device for member in rollout.members
            if member.device not in devices and member.standing in {*IN_FLIGHT, MemberStanding.STUCK}
        }  # fmt: skip
        left = {
            device.device: DeviceStatus(
                device=device.device, update=_update(device), reachable=False, removed=True,
            ) for device in self.fleet.ended_of(gone)
        }  # fmt: skip
        return _Statuses(devices=devices, left=left, now_ms=now_ms, silent_s=self.silent_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Statuses(Mapping[str, DeviceStatus]):
    """The status of each device, made when it is asked for: of most members, which have an outcome, nobody asks."""

    devices: Mapping[str, Device]
    left: Mapping[str, DeviceStatus]
    now_ms: int
    silent_s: float

    def __getitem__(self, name: str) -> DeviceStatus:
        if name in self.left:
            return self.left[name]
        device = self.devices[name]
        return DeviceStatus(
            device=name,
            desired_release=device.desired_release,
            desired_gen=device.desired_gen,
            update=_update(device),
            reachable=is_reachable(device, self.now_ms, self.silent_s),
        )

    def __contains__(self, name: object) -> bool:
        return name in self.devices or name in self.left

    def __iter__(self) -> Iterator[str]:
        return iter({**self.devices, **self.left})

    def __len__(self) -> int:
        return len({**self.devices, **self.left})


def _update(device: Device) -> UpdateStatus:
    return device.reported.update if device.reported else UpdateStatus()


def _end_severity(rollout: Rollout) -> Severity:
    """Return how urgent the end of ``rollout`` is: a failure, or a success that no input shows, needs a person."""
    if rollout.phase is RolloutPhase.FAILED:
        return Severity.ERROR
    committed = count_members(rollout.members).committed
    silent = rollout.phase is RolloutPhase.SUCCEEDED and unanswered_count(rollout.members) == committed
    return Severity.WARNING if silent else Severity.INFO


def _created(rollout: Rollout, fleet: Mapping[str, Device]) -> str:
    """Return for whom a new rollout is, in words; devices without a model are named, as the choice may be wrong."""
    text = f"Rollout of {rollout.release} to {counted(len(rollout.members))}"
    text += f" ({rollout.scope.text})" if rollout.scope.text else ""
    text += ", and to devices of it that enrol meanwhile" if rollout.dynamic else ""
    found = [fleet[member.device] for member in rollout.members]
    blank = [device.device for device in found if is_blank(device)]
    verb = "runs" if len(blank) == 1 else "run"
    return text + (f"; {len(blank)} of them {verb} no model yet: {listed(blank, NAMED)}" if blank else "")


def _fewer(rollout: Rollout, request: RolloutOptions) -> str:
    """Return that fewer devices go first than the request asks for, in words; "" otherwise."""
    first = len(rollout.group_members(0))
    if not isinstance(request.canary, int) or first >= request.canary:
        return ""
    return f"; only {counted(first)} can go first, of the {request.canary} asked for"


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))


def _with_away(rollout: Rollout) -> str:
    """Return the text of a rollout, with the devices that it waits for if all of its open groups are away."""
    absent = waited_for(rollout)
    if rollout.phase is not RolloutPhase.RUNNING or not absent:
        return rollout.text
    left = duration(round(rollout.deadline_s * 1000))
    last = rollout.opened == len(rollout.groups)
    waits = []
    for told, then, after in (
        (False, "assigned on connecting", f"left out {left} after the last change"),
        (True, "assigned, fetches it on connecting", f"stuck {left} after it was assigned"),
    ):
        names = [one.device for one in absent if (one.standing is not MemberStanding.PENDING) == told]
        if names:
            waits.append(f"waits for {listed(names, NAMED)}, away: {then}" + (f", {after}" if told or last else ""))
    way = "abort to end it before" if last else "skip the group, or abort and create it with other canaries"
    return _joined(rollout.text, *waits, way)


def _way_out(rollout: Rollout) -> str:
    """Return how a person can end an open rollout: one that waits for absent devices may never end by itself."""
    aborting = "abort it: what committed stays, all others go back to what they ran"
    held = held_by(rollout)
    if held is not None:
        return f"it waits until a device of {held.name} answers an input: skip that group, or {aborting}"
    absent = waited_for(rollout)
    if not absent:
        return f"let it end, or {aborting}"
    names = listed([member.device for member in absent], NAMED)
    return f"it waits for devices that are away ({names}): remove those that are gone for good, or {aborting}"
