"""Derives what is wrong now, as causes of alerts, from verdicts, rollouts, devices and the server's health; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from server.alerts.model import AlertCause, AlertKind, AlertSeverity
from server.app.vitals import Sign
from server.drift.ledger import StoredVerdict
from server.drift.verdicts import VerdictKind
from server.fleet.fleet import Device
from server.fleet.liveness import is_reachable, is_silent
from server.rollout.model import IN_VAIN, Member, Rollout, RolloutPhase
from server.rollout.planner import waited_for, with_away
from server.trust.repository import Expiry
from server.wording import listed
from wire.messages import DeviceState

_NAMED = 5
_BY_A_PERSON = "operator"  # the code of a rollout that a person paused
_TITLES = {
    VerdictKind.DEVICE_FAULT: "{where} has a fault",
    VerdictKind.DEVICE_LOCAL: "{where} sees something new",
    VerdictKind.SITE: "Site {where} sees something new",
    VerdictKind.COHORT: "Devices with {where} see something new",
    VerdictKind.FLEET: "The whole fleet sees something new",
    VerdictKind.RELEASE_REGRESSION: "Release {where} made devices worse",
    VerdictKind.NEW_PLACE: "{where} looks at a place that training does not know",
}
_GROUP_ACTION = "see whether power and network of the site are there; devices connect again by themselves"
_DEVICE_ACTION = "see whether it has power and network; it connects again by itself"
_UNREAD_ACTION = "look at its inputs, and roll out the release before if a release is the reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The fleet and the server at ``now_ms``, as far as alerts are concerned.

    ``verdicts``: the open ones; ``parts``: the verdicts that go on in one of them, by its id. ``rollouts``: the open
    ones; ``newest``: the one that was created last. ``silent_s``: how long a connected device may send nothing.
    ``muted``: the devices that raise no alert of their own. ``signs``: all checks of the server's health. ``ending``:
    metadata that expires, with the text. ``untrusted``: what is wrong with the signed metadata beside that, "" for
    nothing. ``harmed``: a text for each release that is wrong too often.
    """

    now_ms: int
    silent_s: float
    devices: Sequence[Device] = ()
    verdicts: Sequence[StoredVerdict] = ()
    parts: Mapping[int, Sequence[int]]
    rollouts: Sequence[Rollout] = ()
    newest: Rollout | None = None
    muted: Collection[str] = frozenset()
    signs: Sequence[Sign] = ()
    ending: Sequence[tuple[Expiry, float, str]] = ()
    untrusted: str = ""
    harmed: Sequence[str] = ()


def causes_of(seen: Observed, open_keys: Collection[str], site_devices: int) -> tuple[AlertCause, ...]:
    """Return everything that needs a person.

    ``open_keys``: those of the alerts that are not resolved: a site that has one keeps it while any of its devices is
    concerned. ``site_devices``: from how many devices of one site on they are the site's.
    """
    sites = {device.device: device.site for device in seen.devices}
    return (
        *(_verdict(one, seen.parts.get(one.id, ()), sites) for one in seen.verdicts if not one.is_of(seen.muted)),
        *_rollouts(seen, sites),
        *_away(seen, open_keys, site_devices),
        *_unread(seen, open_keys, site_devices),
        *_server(seen),
    )


def held_back(seen: Observed, open_keys: Collection[str], site_devices: int) -> frozenset[str]:
    """Return the keys of the causes that are there, and raise no alert because their devices are muted."""
    if not seen.muted:
        return frozenset()
    told = {one.key for one in causes_of(seen, open_keys, site_devices)}
    there = {one.key for one in causes_of(replace(seen, muted=frozenset()), open_keys, site_devices)}
    there |= {
        _key(kind, "", (device.device,)) for device in seen.devices if device.device in seen.muted
        for kind in (AlertKind.AWAY, AlertKind.ANSWERS_NOTHING)
    }  # fmt: skip
    return frozenset(there - told)


def _verdict(verdict: StoredVerdict, parts: Sequence[int], sites: Mapping[str, str]) -> AlertCause:
    where = ", ".join(
        value if name == verdict.kind.value else f"{name} {value}" for name, value in verdict.attributes.items()
    )
    subject = verdict.release if verdict.kind is VerdictKind.RELEASE_REGRESSION else where
    title = _TITLES[verdict.kind].format(where=subject or listed(verdict.devices, _NAMED))
    one_device = len(verdict.devices) == 1
    return AlertCause(
        key=f"verdict:{verdict.id}",
        subject=f"verdict:{'|'.join(verdict.identity)}",
        continues=tuple(f"verdict:{part}" for part in parts),
        kind=AlertKind.VERDICT,
        severity=AlertSeverity.ATTENTION if verdict.provisional or verdict.dismissed_ms else AlertSeverity.ALARM,
        title=title,
        cause=verdict.cause or "not known yet",
        action=verdict.action,
        devices=verdict.devices,
        sites=_sites(verdict.devices, sites) or _named_site(verdict),
        page=f"/device/{verdict.devices[0]}" if one_device else "/",
        verdict=verdict.id,
    )


def _named_site(verdict: StoredVerdict) -> tuple[str, ...]:
    return (verdict.attributes["site"],) if "site" in verdict.attributes else ()


def _rollouts(seen: Observed, sites: Mapping[str, str]) -> Iterator[AlertCause]:
    """Yield the rollouts that stopped by themselves; what a person paused or aborted is no alert."""
    here = frozenset(
        device.device for device in seen.devices if is_reachable(device, seen.now_ms, seen.silent_s)
    )  # fmt: skip
    for rollout in seen.rollouts:
        members = [one for one in rollout.members if one.standing in IN_VAIN]
        if rollout.phase is RolloutPhase.PAUSED and rollout.code != _BY_A_PERSON:
            action = "look at the devices that failed, then resume or abort it (fleet-server rollouts)"
            yield _rollout(rollout, "paused", rollout.text, action, members, sites)
        elif rollout.phase is RolloutPhase.RUNNING:
            absent = waited_for(with_away(rollout, here))
            if absent:
                text = f"It waits for {listed([one.device for one in absent], _NAMED)}, and for nothing else"
                action = "bring these devices back, or remove those that are gone for good"
                yield _rollout(rollout, "waits for devices that are away", text, action, absent, sites)
    newest = seen.newest
    if newest is not None and newest.phase is RolloutPhase.FAILED:
        members = [one for one in newest.members if one.standing in IN_VAIN]
        action = "look at why its devices failed, and make a new rollout; the next one ends this alert"
        yield _rollout(newest, "failed", newest.text or "no device committed it", action, members, sites)


def _rollout(
    rollout: Rollout, stands: str, text: str, action: str, members: Iterable[Member], sites: Mapping[str, str]
) -> AlertCause:  # fmt: skip
    devices = tuple(member.device for member in members)
    waits = rollout.phase is RolloutPhase.RUNNING
    failed = rollout.phase is RolloutPhase.FAILED
    return AlertCause(
        key=f"rollout:{rollout.id}",
        kind=AlertKind.ROLLOUT,
        severity=AlertSeverity.ALARM if failed else AlertSeverity.ATTENTION,
        title=f"Rollout of {rollout.release} {stands}",
        cause=text or stands,
        action=action,
        devices=devices,
        sites=_sites(devices or [one.device for one in rollout.members], sites),
        page="/rollouts",
        flickers=waits,
        patient=waits,
    )


def _away(seen: Observed, open_keys: Collection[str], site_devices: int) -> Iterator[AlertCause]:
    found = [
        device for device in seen.devices
        if device.last_seen_ms > 0 and device.device not in seen.muted
        and (device.state is DeviceState.LOST or is_silent(device, seen.now_ms, seen.silent_s))
    ]  # fmt: skip
    lost = {device.device for device in found if device.state is DeviceState.LOST}
    for site, group in _by_site(found, AlertKind.AWAY, open_keys, site_devices):
        names = tuple(device.device for device in group)
        gone = sum(name in lost for name in names)
        counted = [f"{gone} lost"] * bool(gone) + [f"{len(names) - gone} silent"] * bool(len(names) - gone)
        what = "is lost" if gone else "is silent"
        yield AlertCause(
            key=_key(AlertKind.AWAY, site, names),
            continues=tuple(_key(AlertKind.AWAY, "", (name,)) for name in names) if site else (),
            kind=AlertKind.AWAY,
            severity=AlertSeverity.ALARM if gone else AlertSeverity.ATTENTION,
            title=f"Site {site}: {len(names)} of its devices are away" if site else f"Device {names[0]} {what}",
            cause=f"{' and '.join(counted)} (lost: the connection broke; silent: connected, but nothing comes)",
            action=_GROUP_ACTION if site else _DEVICE_ACTION,
            devices=names,
            sites=(group[0].site,),
            page=f"/device/{names[0]}" if not site else "/",
            flickers=True,
            patient=not gone,
        )


def _unread(seen: Observed, open_keys: Collection[str], site_devices: int) -> Iterator[AlertCause]:
    found = [
        device for device in seen.devices
        if device.last_seen_ms > 0 and device.device not in seen.muted and device.answers_nothing
    ]  # fmt: skip
    for site, group in _by_site(found, AlertKind.ANSWERS_NOTHING, open_keys, site_devices):
        names = tuple(device.device for device in group)
        yield AlertCause(
            key=_key(AlertKind.ANSWERS_NOTHING, site, names),
            continues=tuple(_key(AlertKind.ANSWERS_NOTHING, "", (name,)) for name in names) if site else (),
            kind=AlertKind.ANSWERS_NOTHING,
            severity=AlertSeverity.ALARM,
            title=f"Site {site}: {len(names)} devices answer nothing" if site else f"Device {names[0]} answers nothing",
            cause=f"{names[0]} {group[0].answers_nothing}",
            action=group[0].unread_step or _UNREAD_ACTION,
            devices=names,
            sites=(group[0].site,),
            page=f"/device/{names[0]}" if not site else "/",
            flickers=True,
        )


def _by_site(
    found: Iterable[Device], kind: AlertKind, open_keys: Collection[str], site_devices: int
) -> Iterator[tuple[str, list[Device]]]:
    """Yield the devices of each site that are many, and each other device with "" for the site."""
    sites: dict[str, list[Device]] = {}
    for device in found:
        sites.setdefault(device.site, []).append(device)
    for site, group in sorted(sites.items()):
        if len(group) >= site_devices or _key(kind, site, ()) in open_keys:
            yield site, group
        else:
            yield from (("", [device]) for device in group)


def _key(kind: AlertKind, site: str, names: Sequence[str]) -> str:
    return f"{kind}:site:{site}" if site else f"{kind}:device:{names[0]}"


def _server(seen: Observed) -> Iterator[AlertCause]:
    for sign in seen.signs:
        if not sign.ok:
            yield AlertCause(
                key=f"server:{sign.name}", kind=AlertKind.SERVER, severity=AlertSeverity.ALARM,
                title=f"The server is unwell: {sign.name}", cause=sign.text,
                action="follow what its check says; fleet-server status prints all checks", flickers=True,
            )  # fmt: skip
    for expiry, left_days, text in seen.ending:
        yield AlertCause(
            key=f"metadata:{expiry.role}", kind=AlertKind.METADATA,
            severity=AlertSeverity.ALARM if left_days <= 0 else AlertSeverity.ATTENTION,
            title=f"The {expiry.role} metadata {'expires' if left_days > 0 else 'expired'}",
            cause=text.partition(": ")[0], action=text.partition(": ")[2] or text,
        )  # fmt: skip
    if seen.untrusted:
        yield AlertCause(
            key="metadata:store", kind=AlertKind.METADATA, severity=AlertSeverity.ALARM,
            title="The signed metadata can't be used", cause=seen.untrusted,
            action="no update reaches a device until it is mended",
        )  # fmt: skip
    for text in seen.harmed:
        release = text.partition(" on ")[0]
        yield AlertCause(
            key=f"harmed:{release}", kind=AlertKind.HARMED, severity=AlertSeverity.ALARM,
            title=f"Release {release} is wrong too often", cause=text,
            action="roll out the release before, or retrain it with the labelled samples",
        )  # fmt: skip


def _sites(devices: Iterable[str], sites: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted({sites[name] for name in devices if name in sites}))
