"""Selects the devices of a rollout, their groups and their bundles. Pure; does not decide when they are assigned."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from server.fleet.fleet import Device
from server.fleet.liveness import AWAY
from server.registry.versions import Release
from server.rollout.model import NO_MODEL, Member, MemberStanding, Rollout, RolloutPhase, Settle
from server.rollout.planner import left_out
from server.rollout.scope import Scope
from server.wording import listed
from wire.manifest import model_in
from wire.messages import Reported
from wire.tuf_target import TargetCustom

TARGET_ATTRIBUTE = "target"
_NAMED = 6
_UNTOLD = frozenset({MemberStanding.WAITING, MemberStanding.PENDING})


def choose_bundle(releases: Iterable[Release], name: str, device: Device) -> Release | None:
    """Return the bundle of the release ``name`` that ``device`` can run, None when there is none.

    The device's attribute ``target`` decides if it is set, otherwise its reported runtimes and hardware. A device
    that has not reported yet gets the bundle if the release has only one.
    """
    bundles = [release for release in releases if release.name == name]
    wanted = device.attributes.get(TARGET_ATTRIBUTE)
    if wanted:
        return next((bundle for bundle in bundles if bundle.target == wanted), None)
    reported = device.reported
    if reported is None:
        return bundles[0] if len(bundles) == 1 else None
    return next((bundle for bundle in bundles if _runs(bundle.custom, reported)), None)


def _runs(custom: TargetCustom, reported: Reported) -> bool:
    runtime = not reported.runtimes or not custom.runtime or custom.runtime in reported.runtimes
    hardware = not custom.hardware or not reported.hardware or reported.hardware in custom.hardware
    return runtime and hardware


@dataclass(frozen=True, slots=True, kw_only=True)
class Eligibility:
    """Which devices may get one release, with the reason for each that may not.

    A device that runs a model gets releases of this model alone, unless the scope names it and moves it. A blank
    device, which runs and is assigned nothing, joins if the scope names it by device, site, attribute or tag, or
    if the fleet has one model only.
    """

    name: str
    model: str
    bundles: tuple[Release, ...]
    models: Mapping[str, str]
    other_models: tuple[str, ...]

    @classmethod
    def of(cls, devices: Iterable[Device], releases: Sequence[Release], name: str) -> Eligibility:
        """Return the rules for the release ``name`` in this fleet."""
        models = {release.name: release.model for release in releases}
        model = models.get(name, "")
        offered = {release.model for release in releases if not release.withdrawn_ms}
        used = {_assigned_model(device, models) for device in devices}
        bundles = tuple(release for release in releases if release.name == name)
        others = tuple(sorted((offered | used) - {"", model}))
        return cls(name=name, model=model, bundles=bundles, models=models, other_models=others)

    def refusal(self, device: Device, scope: Scope, *, named: bool = False) -> str:
        """Return why ``device`` can't get the release, in words; "" if it can.

        Args:
            device: a device of the fleet.
            scope: the scope of the rollout.
            named: whether the request names this very device, in its canary or in a group.
        """
        model = _assigned_model(device, self.models)
        outside = self.outside(device, scope)
        if outside:
            return outside
        if device.desired_release == device.release == self.name and not device.in_trouble:
            return "it runs this release already"  # in trouble, it may be assigned the same again
        if model and model != self.model and not scope.move:
            what = device.desired_release or device.release
            return f"it is on {what}, a release of {model}, and moves to {self.model} only by a scope with move"
        if not model and self.other_models and not (named or scope.names_devices):
            others = listed(self.other_models, _NAMED)
            return f"it runs no model yet and the fleet also has {others}: name it by device, site, attribute or tag"
        return "" if choose_bundle(self.bundles, self.name, device) else self._unable(device)

    def outside(self, device: Device, scope: Scope) -> str:
        """Return why ``device`` is outside of ``scope``, in words; "" if it is inside."""
        return scope.mismatch(device, running_model(device, self.models))

    def _unable(self, device: Device) -> str:
        targets = listed([bundle.target for bundle in self.bundles], _NAMED)
        wanted, reported = device.attributes.get(TARGET_ATTRIBUTE), device.reported
        if wanted:
            return f"its attribute target is {wanted}, and the release has bundles for {targets or 'nothing'}"
        if reported is None:
            return f"it has not reported what it can run, and the release has bundles for {targets}"
        needs = [
            f"{bundle.custom.runtime or 'any runtime'} on {listed(bundle.custom.hardware, _NAMED) or 'any hardware'}"
            for bundle in self.bundles
        ]
        has = f"{listed(reported.runtimes, _NAMED) or 'no runtime'} on {reported.hardware or 'unknown hardware'}"
        return f"it has {has}, and the release needs {' or '.join(needs)}"


def is_blank(device: Device) -> bool:
    """Return whether ``device`` runs and is assigned nothing."""
    return not (device.desired_release or device.release)


def running_model(device: Device, models: Mapping[str, str]) -> str:
    """Return the model that ``device`` runs, or is assigned if it has reported none; "" for a blank device.

    ``models``: by release. A release that the server does not know (installed on site) names its model itself.
    """
    return _model(device.release or device.desired_release, models)


def _assigned_model(device: Device, models: Mapping[str, str]) -> str:
    """Return the model that ``device`` is assigned, or runs if nothing is assigned; "" for a blank device."""
    return _model(device.desired_release or device.release, models)


def _model(release: str, models: Mapping[str, str]) -> str:
    return models.get(release) or model_in(release) or release


def candidates(devices: Collection[Device], releases: Sequence[Release], name: str) -> tuple[Device, ...]:
    """Return the devices that may get the release ``name`` without a filter: see ``Eligibility``."""
    rules, everywhere = Eligibility.of(devices, releases, name), Scope()
    return tuple(device for device in devices if not rules.refusal(device, everywhere))


def candidate_counts(devices: Iterable[Device], releases: Sequence[Release], names: Sequence[str]) -> dict[str, int]:
    """Return how many devices may get each release of ``names`` without a filter, as ``candidates`` counts them.

    Devices that are alike in all that decides it are looked at once: a large fleet has few kinds.
    """
    kinds: dict[Hashable, tuple[Device, int]] = {}
    for device in devices:
        reported = device.reported
        runs = (reported.runtimes, reported.hardware) if reported else None
        wanted = device.attributes.get(TARGET_ATTRIBUTE)
        kind = (device.desired_release, device.release, device.in_trouble, wanted, runs)
        first, count = kinds.get(kind, (device, 0))
        kinds[kind] = first, count + 1
    each, numbers = [first for first, _ in kinds.values()], {id(first): count for first, count in kinds.values()}
    return {name: sum(numbers[id(one)] for one in candidates(each, releases, name)) for name in names}


def without_model(rollout: Rollout, devices: Mapping[str, Device], releases: Sequence[Release]) -> tuple[Settle, ...]:
    """Return the settlements of blank members that were taken while the fleet had one model, and now has several.

    Only while it runs, and only those that nobody named, by the scope or in a group, and that were never assigned the
    release.
    """
    if rollout.phase is not RolloutPhase.RUNNING or rollout.scope.names_devices:
        return ()
    blank = [
        member for member in rollout.members
        if member.standing in _UNTOLD and not member.gen and not rollout.groups[member.group].named
        and member.device in devices and is_blank(devices[member.device])
    ]  # fmt: skip
    if not blank or not Eligibility.of(devices.values(), releases, rollout.release).other_models:
        return ()
    return tuple(left_out(member, NO_MODEL) for member in blank)


def pick_canaries(devices: Iterable[Device], count: int, seed: str) -> tuple[str, ...]:
    """Return ``count`` devices: connected ones first, and one of each site before a second of any site.

    Ties are ordered by a hash of ``seed`` and device, so that the canaries are not always the same devices.
    """
    ordered = sorted(devices, key=lambda device: (_away(device), _hash(seed, device.device)))
    ranked: list[tuple[bool, int, str]] = []
    seen: dict[str, int] = {}
    for device in ordered:
        rank = seen.get(device.site, 0)
        seen[device.site] = rank + 1
        ranked.append((_away(device), rank, device.device))
    return tuple(name for *_, name in sorted(ranked, key=lambda item: item[:2])[:count])


def _away(device: Device) -> bool:
    """Return whether a device is away, or has never connected; one without a release may well be connected."""
    return device.state in AWAY or not device.last_seen_ms


def _hash(seed: str, device: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{device}".encode()).digest()


def as_members(groups: Iterable[Iterable[str]]) -> tuple[Member, ...]:
    """Return a member for each device of each group."""
    return tuple(Member(device=device, group=index) for index, group in enumerate(groups) for device in group)
