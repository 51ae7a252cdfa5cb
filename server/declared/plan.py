"""What differs between the wanted and the present state of a fleet, as changes in their order. Pure.

1. Users, then devices, then rollouts: who may approve and which tags a scope names is settled before a rollout begins.
2. Only what the file names is changed. What it does not name is removed only with ``prune``: tags, names and mutes of
   devices. Users and rollouts are never removed.
3. A rollout of the file is there if the newest one on its scope and model is of its release. Where somebody has gone
   on to another release or aborted it, the plan refuses: a file does not overrule what a person decided since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from server.client import DeviceInfo, RolloutInfo
from server.declared.wanted import WantedDevice, WantedFleet, WantedRollout, WantedUser, scope_key
from server.rollout.model import OPEN_PHASES, RolloutPhase
from wire.settings import given_of, nearest

_OPEN = frozenset(phase.value for phase in OPEN_PHASES)
_IN_VAIN = frozenset({RolloutPhase.ABORTING.value, RolloutPhase.ABORTED.value, RolloutPhase.FAILED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentFleet:
    """What a server has of what a file may name. ``account``: who asks. ``models``: of each release."""

    account: str = ""
    users: Mapping[str, WantedUser] = field(default_factory=dict)
    devices: Mapping[str, DeviceInfo] = field(default_factory=dict)
    rollouts: Sequence[RolloutInfo] = ()
    models: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference. ``action``: create, add, change or remove; ``rollout``: the one to create."""

    action: str
    kind: str
    name: str
    key: str
    now: object
    wanted: object
    rollout: WantedRollout | None = None


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The changes in their order, and what can't be done; with a refusal nothing is to be done."""

    changes: tuple[Change, ...]
    refusals: tuple[str, ...]


def plan(wanted: WantedFleet, present: PresentFleet, *, prune: bool = False, again: bool = False) -> FleetPlan:
    """Return what is to be done. ``again``: roll out where a newer or aborted rollout stands, too."""
    changes: list[Change] = []
    refusals: list[str] = []
    for name, user in wanted.users.items():
        known = present.users.get(name)
        found = [] if known is None else list(_user(name, user, known))
        changes += found
        if known is None:
            refusals.append(f"Expected the user {name}, got none: fleet-server users add {name}, which asks a password")
        elif found and name == present.account:
            refusals.append(f"Expected another account than {name}, which asks for it: let another admin change it")
    for name, wanted_device in {**wanted.devices, **(_unnamed(wanted, present) if prune else {})}.items():
        device = present.devices.get(name)
        if device is None:
            hint = nearest(name, present.devices)
            refusals.append(f"Expected the device {name}, got none in this fleet{hint}: it enrols with a claim first")
        else:
            changes += _device(wanted_device, device, prune=prune)
    for rollout in wanted.rollouts:
        why = rollout_refusal(rollout, present, again=again)
        refusals += [why] if why else []
        if not why and not _is_there(rollout, present):
            changes.append(_creation(rollout))
    return FleetPlan(tuple(changes), tuple(refusals))


def _unnamed(wanted: WantedFleet, present: PresentFleet) -> Mapping[str, WantedDevice]:
    left = sorted(set(present.devices) - set(wanted.devices))
    return {name: WantedDevice(title="", tags=(), muted=False) for name in left}


def _creation(rollout: WantedRollout) -> Change:
    return Change(
        action="create", kind="rollout", name=rollout.release, key="scope", now="",
        wanted=scope_key(given_of(rollout.scope)), rollout=rollout,
    )  # fmt: skip


def standing(present: PresentFleet) -> tuple[RolloutInfo, ...]:
    """Return the newest rollout of each scope and model, unless it ended in vain or was aborted."""
    newest: dict[tuple[str, str], RolloutInfo] = {}
    for one in present.rollouts:
        newest.setdefault((scope_key(one.scope), present.models.get(one.release, "")), one)
    return tuple(one for one in newest.values() if one.phase not in _IN_VAIN)


def _user(name: str, wanted: WantedUser, known: WantedUser) -> Iterator[Change]:
    for key in ("role", "enabled"):
        now, then = getattr(known, key), getattr(wanted, key)
        if then is not None and now != then:
            yield Change(action="change", kind="user", name=name, key=key, now=now, wanted=then)


def _device(wanted: WantedDevice, device: DeviceInfo, *, prune: bool) -> Iterator[Change]:
    if wanted.title is not None and wanted.title != device.title:
        action = "change" if device.title and wanted.title else "add" if wanted.title else "remove"
        yield _of(device, action, "title", device.title, wanted.title)
    if wanted.tags is not None:
        come = _missing(wanted.tags, device.tags)
        if come:
            yield _of(device, "add", "tags", (), come)
        gone = _missing(device.tags, wanted.tags) if prune else ()
        if gone:
            yield _of(device, "remove", "tags", gone, ())
    if wanted.muted is not None and wanted.muted != (device.muted_ms > 0):
        yield _of(device, "change", "muted", device.muted_ms > 0, wanted.muted)


def _of(device: DeviceInfo, action: str, key: str, now: object, wanted: object) -> Change:
    return Change(action=action, kind="device", name=device.device, key=key, now=now, wanted=wanted)


def _missing(these: Sequence[str], those: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(set(these) - set(those)))


def _newest_first(wanted: WantedRollout, present: PresentFleet) -> list[RolloutInfo]:
    """Return the rollouts on the same scope for the same model."""
    key, model = scope_key(given_of(wanted.scope)), present.models.get(wanted.release)
    return [one for one in present.rollouts if scope_key(one.scope) == key and present.models.get(one.release) == model]


def _is_there(wanted: WantedRollout, present: PresentFleet) -> bool:
    same = _newest_first(wanted, present)
    return bool(same) and same[0].release == wanted.release and same[0].phase not in _IN_VAIN


def rollout_refusal(wanted: WantedRollout, present: PresentFleet, *, again: bool) -> str:
    """Return why a wanted rollout can't be had, "" if it can."""
    if wanted.release not in present.models:
        hint = nearest(wanted.release, present.models)
        return f"Expected the published release {wanted.release}, got none{hint}: compressor publish"
    same = _newest_first(wanted, present)
    return _overruled(wanted, same, again=again) if same else ""


def _overruled(wanted: WantedRollout, same: Sequence[RolloutInfo], *, again: bool) -> str:
    """Return why the rollouts on the same scope, the newest first, leave no room for the wanted one; "" if they do."""
    newest = same[0]
    if newest.release == wanted.release and newest.phase not in _IN_VAIN:
        return ""
    if newest.phase in _OPEN:
        text = f"Expected no open rollout on the scope of {wanted.release}, got {newest.id} of {newest.release}"
        return f"{text} ({newest.phase}): wait for its end, or abort it"
    if again or wanted.release not in {one.release for one in same}:
        return ""
    if newest.release == wanted.release:
        text = f"Expected {wanted.release} to be rolled out, got its rollout {newest.id}, which is {newest.phase}"
        return f"{text}: --again creates another"
    text = f"Expected {wanted.release} to be the newest on its scope, got {newest.release}, rolled out since"
    return f"{text} ({newest.id}): change the file, or --again goes back"
