"""Forecasts how many bytes a rollout takes over the network, from what each device has now. Pure.

A device fetches nothing of a bundle that it has in one of its two slots, the shortest patch whose base it has there,
or else the whole bundle. Counted is what ``UpdateStatus.fetched_bytes`` counts: bodies, without the headers below and
the signed metadata. Not foreseen: transfers in vain and retries.

The forecast of a device is kept when it is assigned the release, because it has another one afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.model import OPEN_PHASES, Member, MemberStanding, Rollout
from server.rollout.selection import choose_bundle
from server.wording import in_bytes

_UNTOLD = frozenset({MemberStanding.WAITING, MemberStanding.PENDING})


@dataclass(frozen=True, slots=True)
class Forecast:
    """How many bytes one or more devices fetch. ``upper``: for how many of them it is an upper bound.

    Those have not reported yet, so that nobody knows which bundles they have.
    """

    air_bytes: int
    upper: int = 0

    @property
    def text(self) -> str:
        """The figure in words, "" for nothing."""
        if not self.air_bytes:
            return ""
        who = "1 device has not reported what it has"
        who = who if self.upper == 1 else f"{self.upper} devices have not reported what they have"
        bound = f", at most: {who}" if self.upper else ""
        return in_bytes(self.air_bytes) + bound


def forecast_of(device: Device, bundle: Release) -> Forecast:
    """Return what ``device`` will fetch of ``bundle``."""
    reported = device.reported
    if reported is None:
        return Forecast(bundle.length_bytes, upper=1)
    held = {one.sha256 for one in (reported.current, reported.previous) if one is not None}
    if bundle.sha256 in held:
        return Forecast(0)
    patches = [delta.length_bytes for delta in bundle.custom.deltas if delta.base_sha256 in held]
    return Forecast(min([bundle.length_bytes, *(length for length in patches if length > 0)]))


def at_assignment(member: Member, device: Device, bundle: Release) -> Mapping[str, object]:
    """Return the columns of ``member`` with the forecast of the attempt that begins, added to that of earlier ones."""
    found = forecast_of(device, bundle)
    if member.standing is MemberStanding.ASSIGNING and member.forecast_bytes is not None:
        return {}  # the same attempt, after a crash
    if member.gen and member.forecast_bytes is None:
        return {}  # an older server began it without a forecast
    earlier = member.forecast_bytes or 0
    return {"forecast_bytes": earlier + found.air_bytes, "forecast_upper": member.forecast_upper or found.upper > 0}


def foreseen(rollout: Rollout, devices: Mapping[str, Device], releases: Sequence[Release]) -> Rollout:
    """Return an open rollout with the forecasts of the members that have not been assigned the release yet."""
    if rollout.phase not in OPEN_PHASES:
        return rollout
    bundles = [release for release in releases if release.name == rollout.release]
    return replace(rollout, members=tuple(_with_forecast(one, devices, bundles, rollout) for one in rollout.members))


def _with_forecast(member: Member, devices: Mapping[str, Device], bundles: Sequence[Release], of: Rollout) -> Member:
    device = devices.get(member.device)
    if member.standing not in _UNTOLD or member.gen or device is None:
        return member
    bundle = choose_bundle(bundles, of.release, device)
    if bundle is None:
        return member
    found = forecast_of(device, bundle)
    return replace(member, forecast_bytes=found.air_bytes, forecast_upper=found.upper > 0)


def total(members: Iterable[Member]) -> Forecast | None:
    """Return the forecast of ``members`` together; None if an older server assigned the release to one of them."""
    members = tuple(members)
    if any(member.gen and member.forecast_bytes is None for member in members):
        return None
    return Forecast(
        sum(member.forecast_bytes or 0 for member in members), sum(member.forecast_upper for member in members)
    )
