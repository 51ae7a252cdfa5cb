"""Carries rollouts out: asks the planner, writes down each step, then takes it. Idempotent after a restart."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from server.clock import Clock, system_now_ms
from server.errors import RolloutPhaseError, RolloutRefusedError
from server.fleet import Device, Fleet
from server.registry.events import EventLog
from server.registry.versions import Release, Versions
from server.rollout.config import RolloutConfig
from server.rollout.drafting import Request, draft
from server.rollout.ledger import Ledger
from server.rollout.model import (
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
from server.rollout.planner import plan
from server.rollout.selection import candidates
from server.rollout.telling import Teller
from wire.messages import Severity, UpdateStatus

_LOG = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class RolloutService:
    """All rollouts of one server. Safe to share between threads."""

    ledger: Ledger
    fleet: Fleet
    versions: Versions
    events: EventLog
    config: RolloutConfig = field(default_factory=RolloutConfig)
    clock: Clock = system_now_ms
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def list(self) -> tuple[Rollout, ...]:
        """Return every rollout, newest first."""
        return self.ledger.all()

    def get(self, rollout: str) -> Rollout:
        """Return one rollout.

        Raises:
            UnknownRolloutError: If there is none of that id.
        """
        return self.ledger.get(rollout)

    def create(self, request: Request) -> Rollout:
        """Make a rollout; it runs at once when ``approved``.

        Raises:
            UnknownReleaseError: If the release is not published.
            RolloutRefusedError: If there is no device for it, a threshold is impossible, or another is open.
        """
        with self._lock:
            self.versions.release(request.release)
            devices, releases = self.fleet.devices(), self.versions.releases()
            rollout = draft(request, self.config, devices, releases, identity=secrets.token_hex(4), now_ms=self.clock())
            self._refuse_overlap(rollout)
            self.ledger.add(rollout)
            count = len(rollout.members)
            self._note(rollout, "created", Severity.INFO, f"Rollout of {rollout.release} to {count} devices")
            return rollout

    def approve(self, rollout: str) -> Rollout:
        """Let a rollout begin.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it does not await approval.
        """
        return self._move(rollout, {Phase.AWAITING_APPROVAL}, Phase.RUNNING, "approved", "Approved by an operator")

    def pause(self, rollout: str, code: str = "operator", text: str = "") -> Rollout:
        """Tell no further device; pausing what is paused keeps the first reason.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it is over, or awaits approval and so does nothing anyway.
        """
        with self._lock:
            known = self.get(rollout)
            if known.phase is Phase.PAUSED:
                return known
            reason = text or "Paused by an operator"
            return self._move(rollout, {Phase.RUNNING}, Phase.PAUSED, code, reason)

    def pause_release(self, release: str, code: str, text: str = "") -> tuple[str, ...]:
        """Pause every running rollout of ``release`` (a ``release_regression``, say); return their ids."""
        with self._lock:
            opened = [known for known in self.ledger.open() if known.release == release]
            running = [known.id for known in opened if known.phase is Phase.RUNNING]
            return tuple(self.pause(known, code, text or f"Paused: {code}").id for known in running)

    def resume(self, rollout: str) -> Rollout:
        """Go on; the failures so far leave the count, since a person has seen them.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it is not paused.
        """
        with self._lock:
            if self.get(rollout).phase is Phase.PAUSED:
                self.ledger.tolerate_failures(rollout)
            return self._move(rollout, {Phase.PAUSED}, Phase.RUNNING, "resumed", "Resumed by an operator")

    def abort(self, rollout: str) -> Rollout:
        """End a rollout; who has not committed is set back to what it was to run before.

        Raises:
            UnknownRolloutError: If there is none of that id.
            RolloutPhaseError: If it is over.
        """
        allowed = {Phase.AWAITING_APPROVAL, Phase.RUNNING, Phase.PAUSED}
        return self._move(rollout, allowed, Phase.ABORTING, "aborted", "Aborted by an operator")

    def turn(self, now_ms: int) -> None:
        """Take the next steps of every open rollout."""
        with self._lock:
            rollouts = self.ledger.open()
            if not rollouts:
                return
            devices = {device.device: device for device in self.fleet.devices()}
            releases = self.versions.releases()
            for rollout in rollouts:
                self._turn(self._with_newcomers(rollout, devices, releases), devices, releases, now_ms)

    def _turn(self, rollout: Rollout, devices: Mapping[str, Device], releases: Sequence[Release], now_ms: int) -> None:
        statuses = {name: _status(device) for name, device in devices.items()}
        members = {member.device: member for member in rollout.members}
        teller = Teller(self.ledger, self.fleet, releases)
        for action in plan(rollout, statuses, now_ms, limit=self.config.assignments_a_turn):
            match action:
                case Assign(device):
                    self._settle(rollout, teller.assign(rollout, members[device], devices[device], now_ms), now_ms)
                case SetBack(device):
                    self._settle(rollout, teller.set_back(rollout, members[device], devices[device]), now_ms)
                case Settle():
                    self._settle(rollout, action, now_ms)
                case _:
                    self._decide(rollout, action, now_ms)

    def _refuse_overlap(self, rollout: Rollout) -> None:
        devices = {member.device for member in rollout.members}
        for other in self.ledger.open():
            if devices & {member.device for member in other.members}:
                message = (
                    f"Expected devices without an open rollout, got some of {other.id} ({other.release}, "
                    f"{other.phase}): let it end or abort it"
                )
                raise RolloutRefusedError(message)

    def _with_newcomers(self, rollout: Rollout, devices: Mapping[str, Device], releases: Sequence[Release]) -> Rollout:
        if not rollout.dynamic or rollout.phase is not Phase.RUNNING:
            return rollout
        taken = {member.device for other in self.ledger.open() for member in other.members}
        fresh = candidates(devices.values(), releases, rollout.release)
        last = len(rollout.groups) - 1
        added = tuple(Member(device.device, last) for device in fresh if device.device not in taken)
        if added:
            self.ledger.add_members(rollout.id, added)
        return replace(rollout, members=(*rollout.members, *added))

    def _settle(self, rollout: Rollout, settle: Settle | None, now_ms: int) -> None:
        if settle is None:
            return
        changes = {
            "standing": settle.standing.value, "code": settle.code, "air_bytes": settle.air_bytes,
            "settled_ms": now_ms, "tolerated": False,
        }  # fmt: skip
        self.ledger.change_member(rollout.id, settle.device, changes)
        if settle.standing is Standing.FAILED:
            text = f"{settle.device} failed in the rollout of {rollout.release}: {settle.code}"
            self._note(rollout, settle.code, Severity.WARNING, text, device=settle.device)

    def _decide(self, rollout: Rollout, action: Action, now_ms: int) -> None:
        match action:
            case OpenGroup(index):
                self.ledger.change(rollout.id, {"opened": index + 1}, now_ms)
                text = f"Group {rollout.groups[index].name} of the rollout of {rollout.release} is open"
                self._note(rollout, "group_opened", Severity.INFO, text)
            case Pause(code, text):
                self.ledger.change(rollout.id, {"phase": Phase.PAUSED.value, "code": code, "text": text}, now_ms)
                self._note(rollout, code, Severity.ERROR, f"Rollout of {rollout.release} paused: {text}")
            case Finish(phase):
                self.ledger.change(rollout.id, {"phase": phase.value}, now_ms)
                self._note(rollout, phase.value, Severity.INFO, f"Rollout of {rollout.release}: {phase.value}")

    def _move(self, rollout: str, allowed: set[Phase], phase: Phase, code: str, text: str) -> Rollout:
        with self._lock:
            known = self.get(rollout)
            if known.phase not in allowed:
                wanted = " or ".join(sorted(allowed))
                message = f"Expected a rollout that is {wanted}, got {rollout}, which is {known.phase.value}"
                raise RolloutPhaseError(message)
            self.ledger.change(rollout, {"phase": phase.value, "code": code, "text": text}, self.clock())
            severity = Severity.WARNING if phase is not Phase.RUNNING else Severity.INFO
            self._note(known, code, severity, f"Rollout of {known.release} {phase.value}: {text}")
            return self.get(rollout)

    def _note(self, rollout: Rollout, code: str, severity: Severity, text: str, *, device: str | None = None) -> None:
        data = {"rollout": rollout.id, "release": rollout.release}
        self.events.add(self.clock(), "rollout", code, severity, text, device=device, data=data)
        _LOG.info("Rollout changed. id=%s release=%s code=%s", rollout.id, rollout.release, code)


def _status(device: Device) -> DeviceStatus:
    update = device.reported.update if device.reported else UpdateStatus()
    return DeviceStatus(device.device, device.desired_release, device.desired_gen, update)
