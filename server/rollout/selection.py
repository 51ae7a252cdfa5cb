"""Selects the devices of a rollout, their groups and their bundles. Pure; does not decide when they are assigned."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from server.fleet.fleet import Device
from server.fleet.liveness import AWAY
from server.registry.versions import Release
from server.rollout.model import Member
from wire.messages import Reported
from wire.tuf_target import TargetCustom

TARGET_ATTRIBUTE = "target"


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


def candidates(devices: Iterable[Device], releases: Sequence[Release], name: str) -> tuple[Device, ...]:
    """Return the devices for a rollout of ``name``: they can run it, don't have it, and run no other model.

    One that has it and is in trouble may be assigned it again.
    """
    model = next((release.model for release in releases if release.name == name), "")
    models = {release.name: release.model for release in releases}
    return tuple(
        device
        for device in devices
        if choose_bundle(releases, name, device) is not None
        and not (device.desired_release == device.release == name and not device.in_trouble)
        and models.get(device.desired_release or device.release, model) == model
    )


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
