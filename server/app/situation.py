"""Reads the signals of the overall status from fleet and server; ``overall`` derives the status from them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from server.app.overall import NEAR_RATIO, Overall, Signals, overall
from server.app.vitals import Vitals
from server.clock import Clock
from server.drift.latest import NotableEvidence, collecting_pools, newest_pools, notable
from server.drift.ledger import StoredVerdict, Verdicts
from server.errors import TrustStoreError
from server.fleet.device_list import DeviceList
from server.fleet.fleet import Device, Fleet
from server.fleet.liveness import Presence, is_reachable, is_silent, presence
from server.fleet.mutes import muted_names, until_text
from server.fleet.signs import DeviceSign, DeviceSigns
from server.registry.versions import Versions
from server.rollout.ledger import RolloutLedger
from server.rollout.model import IN_FLIGHT, IN_VAIN, UNPROVEN, Rollout, RolloutPhase
from server.rollout.planner import waited_for, with_away
from server.trust.expiry import ending
from server.trust.repository import TrustRepository
from server.wording import listed

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """The fleet at ``now_ms``: its devices, and those of them whose newest evidence concerns somebody."""

    now_ms: int
    devices: Sequence[Device]
    evidence: NotableEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The signals of one server. Safe to share between threads.

    ``evidence_ms``: a connected device whose newest window began longer ago counts as not judged. ``harmed`` returns
    where labels show that a release is wrong more often than allowed, ``settings`` those that have no effect,
    ``undelivered`` the routes by which alerts reach nobody.
    """

    fleet: Fleet
    verdicts: Verdicts
    rollouts: RolloutLedger
    versions: Versions
    trust: TrustRepository
    vitals: Vitals
    clock: Clock
    silent_s: float
    evidence_ms: int
    harmed: Callable[[], tuple[str, ...]] = tuple
    settings: Callable[[], tuple[str, ...]] = tuple
    undelivered: Callable[[], tuple[str, ...]] = tuple
    _signs: DeviceSigns = field(default_factory=DeviceSigns)

    def read(self) -> Reading:
        """Return the fleet as it is now; the figures of devices and the status are made from one reading."""
        now_ms = self.clock()
        evidence = notable(
            self.verdicts.database, near_ratio=NEAR_RATIO, late_ms=now_ms - self.evidence_ms,
            there_since_ms=now_ms - int(self.silent_s * 1000),
        )  # fmt: skip
        return Reading(now_ms, self.fleet.devices(), evidence)

    def overall(self, reading: Reading | None = None) -> Overall:
        """Return the overall status as of ``reading``, by default now."""
        return overall(self.signals(reading))

    @property
    def listing(self) -> DeviceList:
        """The list of devices, a page at a time."""
        return DeviceList(database=self.verdicts.database, clock=self.clock, silent_s=self.silent_s)

    def presence(self, device: Device) -> Presence:
        """Return the presence of ``device`` now."""
        return presence(device, self.clock(), self.silent_s)

    def signals(self, reading: Reading | None = None) -> Signals:
        """Return the problems as of ``reading``, by default now."""
        reading = reading or self.read()
        devices, now_ms, evidence = reading.devices, reading.now_ms, reading.evidence
        pools = newest_pools(self.verdicts.database)
        opened, newest = self.rollouts.open(), self.rollouts.newest()
        muted = muted_names(devices, now_ms)
        told = [device for device in devices if device.device not in muted] if muted else devices
        seen, shown = [device for device in told if device.last_seen_ms > 0], self._signs.of(devices)
        if muted:  # refusing this server's metadata is no concern of the device alone
            shown = {
                sign: found if sign is DeviceSign.METADATA_OLDER else [one for one in found if one.device not in muted]
                for sign, found in shown.items()
            }
            evidence = _without(evidence, muted)
        withdrawn = {release.name for release in self.versions.releases() if release.withdrawn_ms}
        return Signals(
            devices=len(devices),
            lost=_names(shown[DeviceSign.LOST]),
            silent=_names(device for device in seen if is_silent(device, now_ms, self.silent_s)),
            disconnected=_names(shown[DeviceSign.DISCONNECTED]),
            never_seen=_names(shown[DeviceSign.NEVER_SEEN]),
            degraded=_names(shown[DeviceSign.DEGRADED]),
            answers_nothing=tuple(
                f"{device.device} ({device.answers_nothing})" for device in shown[DeviceSign.ANSWERS_NOTHING]
            ),
            update_failed=_names(shown[DeviceSign.UPDATE_FAILED]),
            withdrawn=_names(device for device in seen if device.release in withdrawn) if withdrawn else (),
            clock_off=_names(shown[DeviceSign.CLOCK_OFF]),
            faulty=evidence.faulty,
            flagged=evidence.flagged,
            near=evidence.near,
            unjudged=_names(device for device in seen if not self._is_judged(device, evidence, now_ms)),
            pools_near=tuple(name for name, ratio in pools.items() if ratio >= NEAR_RATIO),
            collecting=collecting_pools(self.verdicts.database),
            verdicts=tuple(_words(one) for one in self.verdicts.open() if not one.is_of(muted)),
            harmed=self.harmed(),
            paused=_releases(opened, RolloutPhase.PAUSED),
            unproven=_releases([one for one in opened if one.code == UNPROVEN], RolloutPhase.RUNNING),
            stalled=tuple(self._stalled(opened, devices, now_ms)),
            unapproved=_releases(opened, RolloutPhase.AWAITING_APPROVAL),
            aborting=_releases(opened, RolloutPhase.ABORTING),
            failed=(newest.release,) if newest is not None and newest.phase is RolloutPhase.FAILED else (),
            members_failed=tuple(
                member.device for rollout in opened for member in rollout.members if member.standing in IN_VAIN
            ),
            server=tuple(f"{sign.name}: {sign.text}" for sign in self.vitals.signs(now_ms) if not sign.ok),
            settings=self.settings(),
            undelivered=self.undelivered(),
            muted=tuple(
                f"{device.device} {until_text(device.muted_until_ms)}" for device in devices if device.device in muted
            ),
            metadata=(*self._metadata(now_ms), *_refused_as_older(shown[DeviceSign.METADATA_OLDER])),
        )  # fmt: skip

    def _stalled(self, opened: Sequence[Rollout], devices: Sequence[Device], now_ms: int) -> Iterator[str]:
        """Yield each running rollout that waits for devices that are away alone, with them."""
        running = [rollout for rollout in opened if rollout.phase is RolloutPhase.RUNNING]
        asked = {one.device for rollout in running for one in rollout.members if one.standing in IN_FLIGHT}
        here = {one.device for one in devices if one.device in asked and is_reachable(one, now_ms, self.silent_s)}
        for rollout in running:
            absent = waited_for(with_away(rollout, here))
            if absent:
                yield f"{rollout.release} ({listed([member.device for member in absent], _NAMED)})"

    def _is_judged(self, device: Device, evidence: NotableEvidence, now_ms: int) -> bool:
        if device.device in evidence.unjudged:
            return False
        late = device.device in evidence.late
        return not (late and is_reachable(device, now_ms, self.silent_s))  # an absent one has its own signal

    def _metadata(self, now_ms: int) -> tuple[str, ...]:
        if self.trust.root() is None:
            return ("Expected an installed root, got none: fleet-server trust",)
        try:
            return tuple(text for _, _, text in ending(self.trust.expiries(), now_ms))
        except TrustStoreError as error:
            return (str(error),)


def _refused_as_older(devices: Sequence[Device]) -> tuple[str, ...]:
    """Return what to do about ``devices``, which refused this server's metadata as older than what they had seen."""
    if not devices:
        return ()
    who = listed(_names(devices), _NAMED)
    return (f"refused as older than seen by {who} (metadata_rollback): publish again (compressor publish), then retry",)


def _without(evidence: NotableEvidence, muted: Collection[str]) -> NotableEvidence:
    """Return ``evidence`` without the devices that are muted."""
    faulty, flagged, near = (
        tuple(one for one in names if one not in muted) for names in (evidence.faulty, evidence.flagged, evidence.near)
    )
    return replace(evidence, faulty=faulty, flagged=flagged, near=near)


def _words(verdict: StoredVerdict) -> str:
    return f"{verdict.kind.value} ({verdict.cause or 'cause unknown'}{', provisional' if verdict.provisional else ''})"


def _names(devices: Iterable[Device]) -> tuple[str, ...]:
    return tuple(device.device for device in devices)


def _releases(rollouts: Sequence[Rollout], phase: RolloutPhase) -> tuple[str, ...]:
    return tuple(rollout.release for rollout in rollouts if rollout.phase is phase)
