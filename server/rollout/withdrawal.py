"""Withdraws releases: a person decides, for good, that a release may not be rolled out any more.

A withdrawn release can't start a rollout, its open rollouts are aborted, and a device that is assigned it but does not
run it yet is assigned its current release. Devices that run it go on, because no better release is known for them;
they are listed. The signed metadata still names it, because only the release key can change that; the server offers it
to no device.

``turn`` applies the decision, whether this process or a command beside it made it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from server.access.audit_log import record_act
from server.clock import Clock
from server.errors import ReleaseWithdrawnError, ServerError
from server.fleet.fleet import Device, Fleet
from server.ingest.faults import said_text, shortened
from server.people import MAX_NAME, MAX_WHY, SOMEBODY, By, actor_of
from server.registry.events import event_row
from server.registry.versions import Release, Versions
from server.rollout.assignments import pointer
from server.rollout.model import ABORTABLE
from server.rollout.service import RolloutService
from server.store import registry as store
from server.store.events import insert_events
from wire.messages import Desired, Severity

_LOG = logging.getLogger(__name__)
_CHECK_EVERY_MS = 2_000


@dataclass(eq=False, slots=True, kw_only=True)
class Withdrawal:
    """Withdraws releases. ``turn`` is for one thread, the rest for any."""

    versions: Versions
    fleet: Fleet
    rollouts: RolloutService
    clock: Clock
    _checked_ms: int = -_CHECK_EVERY_MS

    def withdraw(self, name: str, why: str = "", *, by: By = SOMEBODY) -> tuple[Device, ...]:
        """Offer the release ``name`` to no device any more, as ``by`` decided; return the devices that still run it.

        Raises:
            UnknownReleaseError: If there is none.
        """
        self.versions.release(name)
        now_ms, why, who = self.clock(), said_text(why, "a reason", MAX_WHY), shortened(actor_of(by).name, MAX_NAME)
        text = f"Release {name} was withdrawn by {who}" + (f": {why}" if why else "")
        data = {"release": name, "by": who}
        event = event_row(now_ms, "release", "withdrawn", Severity.WARNING, text, data=data)
        with self.versions.database.begin() as connection:
            if store.withdraw_release(connection, name, now_ms, why=why, by=who):
                insert_events(connection, [event])
                record_act(connection, by, "release.withdraw", name, now_ms, data={"why": why})
        self._stop_rollouts({name: self.versions.release(name)})
        return self.running(name)

    def running(self, name: str) -> tuple[Device, ...]:
        """Return the devices that report running the release ``name``."""
        return tuple(device for device in self.fleet.devices() if device.release == name)

    def turn(self, now_ms: int) -> None:
        """Every 2 s: abort rollouts of withdrawn releases, and replace assignments to them."""
        if now_ms - self._checked_ms < _CHECK_EVERY_MS:
            return
        self._checked_ms = now_ms
        releases = self.versions.releases()
        withdrawn = {release.name: release for release in releases if release.withdrawn_ms}
        if not withdrawn:
            return
        self._stop_rollouts(withdrawn)
        busy = {member.device for rollout in self.rollouts.ledger.open() for member in rollout.members}
        for device in self.fleet.devices():
            if device.desired_release not in withdrawn or device.desired_release == device.release:
                continue
            if device.device not in busy:
                current = device.reported.current if device.reported else None
                running = next((one for one in releases if current is not None and one.sha256 == current.sha256), None)
                probation_s = device.desired.probation_s if device.desired else Desired().probation_s
                wanted = Desired() if running is None else pointer(running, probation_s)
                try:
                    self.fleet.set_desired(
                        device.device, release=wanted.release, target=wanted.target, sha256=wanted.sha256,
                        length_bytes=wanted.length_bytes, probation_s=wanted.probation_s,
                    )  # fmt: skip
                except ServerError as error:  # the device left the fleet meanwhile
                    _LOG.warning("A device can't be assigned its release. device=%s error=%s", device.device, error)

    def _stop_rollouts(self, withdrawn: Mapping[str, Release]) -> None:
        for rollout in self.rollouts.ledger.open():
            if rollout.release in withdrawn and rollout.phase in ABORTABLE:
                release = withdrawn[rollout.release]
                why = "the release was withdrawn" + (f": {release.withdrawn_why}" if release.withdrawn_why else "")
                by = release.withdrawn_by or SOMEBODY
                self.rollouts.abort(rollout.id, by=by, why=why, code=ReleaseWithdrawnError.code)
