"""Assigns a release to single devices; a crash at any point neither repeats nor loses an assignment.

An assignment is stored as ``assigning`` before ``desired`` is set and as ``assigned`` after. After a crash in between,
the next start finds either the old ``desired`` (and sets the new one) or the new one (and takes over its ``gen``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.fleet.fleet import Device, Fleet
from server.registry.versions import Release
from server.rollout.figures.forecast import at_assignment
from server.rollout.ledger import RolloutLedger
from server.rollout.model import ABORTED, IN_VAIN, Member, MemberStanding, Rollout, Settle
from server.rollout.planner import left_out, so_far
from server.rollout.selection import choose_bundle
from wire.codec import decode, encode
from wire.messages import Desired


@dataclass(frozen=True, slots=True)
class Assigner:
    """Writes ``desired`` documents for the devices of a rollout."""

    ledger: RolloutLedger
    fleet: Fleet
    releases: Sequence[Release]

    def assign(self, rollout: Rollout, member: Member, device: Device, now_ms: int) -> Settle | None:
        """Assign the release to ``device``; return its settlement if no bundle fits it."""
        bundle = choose_bundle(self.releases, rollout.release, device)
        if bundle is None:
            return left_out(member, "no_bundle_for_it")
        told = device.desired_release == rollout.release and device.desired_gen > member.gen
        if member.standing is MemberStanding.ASSIGNING and told:
            gen = device.desired_gen
        else:
            again = member.before and device.desired_release == rollout.release
            before = member.before if again or not device.desired else encode(device.desired).decode()
            intent = {"standing": MemberStanding.ASSIGNING.value, "before": before, "assigned_ms": now_ms}
            intent |= {"gen": device.desired_gen, **at_assignment(member, device, bundle)}
            self.ledger.change_member(rollout.id, member.device, intent)
            gen = self._tell(device, pointer(bundle, rollout.probation_s), rollout)
        before_bytes = _now(member, device, rollout).air_bytes
        changes = {"standing": MemberStanding.ASSIGNED.value, "gen": gen}
        bytes_so_far = {"air_bytes": before_bytes, "earlier_bytes": before_bytes}
        self.ledger.change_member(rollout.id, member.device, {**changes, **bytes_so_far})
        return None

    def set_back(self, rollout: Rollout, member: Member, device: Device) -> Settle | None:
        """Restore the previous ``desired`` of ``device``; a device that failed or is stuck keeps its standing.

        A way back waits for no maintenance window.
        """
        self._tell(device, self._before(rollout, member, device))
        if member.standing in IN_VAIN:
            return None
        return left_out(_now(member, device, rollout), ABORTED)

    def _before(self, rollout: Rollout, member: Member, device: Device) -> Desired:
        before = decode(Desired, member.before.encode()) if member.before else Desired()
        if before.sha256 and before.release != rollout.release:
            return before
        current = device.reported.current if device.reported else None
        running = next((item for item in self.releases if current and item.sha256 == current.sha256), None)
        return pointer(running, before.probation_s) if running and running.name != rollout.release else Desired()

    def _tell(self, device: Device, desired: Desired, rollout: Rollout | None = None) -> int:
        """Set ``desired``, with window, shadow and rate limit of ``rollout``; None: a way back, which has none."""
        return self.fleet.set_desired(
            device.device, release=desired.release, target=desired.target, sha256=desired.sha256,
            length_bytes=desired.length_bytes, probation_s=desired.probation_s,
            window=rollout.window if rollout else None, shadow=rollout.shadow if rollout else None,
            max_bytes_per_s=rollout.max_bytes_per_s if rollout else 0,
        )  # fmt: skip


def _now(member: Member, device: Device, rollout: Rollout) -> Member:
    return so_far(member, device.reported.update, rollout.release) if device.reported else member


def pointer(bundle: Release, probation_s: float) -> Desired:
    """Return the ``desired`` that points at ``bundle``."""
    return Desired(
        release=bundle.name, target=bundle.path, sha256=bundle.sha256, length_bytes=bundle.length_bytes,
        probation_s=probation_s,
    )  # fmt: skip
