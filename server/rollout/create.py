"""Turns an operator's request into a rollout: checks it and forms groups. Pure; neither stores nor starts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from server.errors import RolloutRefusedError
from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.config import MAX_TIME_S, RolloutConfig
from server.rollout.model import Group, Rollout, RolloutPhase
from server.rollout.scope import Scope
from server.rollout.selection import Eligibility, as_members, pick_canaries
from server.rollout.thresholds import MAX_CANARIES
from server.wording import listed
from wire.errors import MessageError
from wire.messages import MaintenanceWindow
from wire.shadow import ShadowOrder

MAX_RATE = 2**40  # bytes a second: beyond any network, and within what every database holds
_NAMED = 3  # at most so many devices are named with their reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """A request for a rollout; None takes the setting of ``[rollout]``.

    ``canary``: a number of devices, or a list. ``groups``: device lists that follow; the other devices of ``scope``
    come last. ``newcomers``: devices of the scope that enrol while it runs join them. ``approved``: start at once.
    ``window``: in which devices may switch. ``shadow``: for how long they compare the release with the one that serves
    before. ``max_bytes_per_s``: how fast they may download, 0 for no limit; a lower limit of the device's own holds.
    ``withheld``: devices that don't get it, and ``last``: devices that come last, after all others, each with the
    reason.
    """

    release: str
    canary: int | Sequence[str] | None = None
    groups: Sequence[Sequence[str]] = ()
    probation_s: float | None = None
    deadline_s: float | None = None
    success_ratio: float | None = None
    error_ratio: float | None = None
    approved: bool = False
    window: MaintenanceWindow | None = None
    shadow: ShadowOrder | None = None
    max_bytes_per_s: int = 0
    scope: Scope = field(default_factory=Scope)
    newcomers: bool = False
    withheld: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)


def window_of(start: str, end: str, days: Sequence[str] = (), time_zone: str = "") -> MaintenanceWindow:
    """Return the maintenance window from ``start`` to ``end`` (``HH:MM``) on ``days``; no days: each.

    Raises:
        RolloutRefusedError: If a time or day is none, or the time zone is not in the IANA database.
    """
    try:
        ZoneInfo(time_zone or "UTC")
    except (LookupError, ValueError, OSError) as error:
        message = f"Expected a time zone of the IANA database such as Europe/Berlin, got {time_zone[:80]!r}"
        raise RolloutRefusedError(message) from error
    try:
        return MaintenanceWindow(start=start, end=end, days=tuple(days), time_zone=time_zone)
    except MessageError as error:
        raise RolloutRefusedError(str(error)) from error


def shadow_of(seconds: float, max_ratio: float = 1.0, *, required: bool = False) -> ShadowOrder:
    """Return the order to compare for ``seconds`` before the switch.

    Raises:
        RolloutRefusedError: If a number is impossible.
    """
    try:
        return ShadowOrder(seconds, max_ratio, required=required)
    except MessageError as error:
        raise RolloutRefusedError(str(error)) from error


def draft(
    request: RolloutOptions, config: RolloutConfig, devices: Sequence[Device], releases: Sequence[Release], *,
    identity: str, now_ms: int,
) -> Rollout:  # fmt: skip
    """Return the rollout for ``request``; ``config`` gives the defaults.

    Raises:
        RolloutRefusedError: If no device can run it, or a number is impossible.
    """
    if isinstance(request.canary, int) and not 1 <= request.canary <= MAX_CANARIES:
        message = f"Expected canary from 1 to {MAX_CANARIES}, got {request.canary}"
        raise RolloutRefusedError(message)
    for key in ("success_ratio", "error_ratio"):
        ratio = getattr(request, key)
        if ratio is not None and not 0 <= ratio <= 1:
            message = f"Expected {key} from 0 to 1, got {ratio}"
            raise RolloutRefusedError(message)
    for key in ("probation_s", "deadline_s"):
        time_s = getattr(request, key)
        if time_s is not None and not 0 < time_s <= MAX_TIME_S:
            message = f"Expected {key} above 0 and at most {MAX_TIME_S} (a year), got {time_s}"
            raise RolloutRefusedError(message)
    if not 0 <= request.max_bytes_per_s <= MAX_RATE:
        message = f"Expected max_bytes_per_s from 0 to {MAX_RATE}, got {request.max_bytes_per_s}"
        raise RolloutRefusedError(message)
    choice = _Choice(
        request, {device.device: device for device in devices}, Eligibility.of(devices, releases, request.release)
    )
    takers = choice.takers()
    names, groups = _grouping(request, config, choice, takers, identity)
    held = {device.device for device in takers}
    success = config.success_ratio if request.success_ratio is None else request.success_ratio
    errors = config.error_ratio if request.error_ratio is None else request.error_ratio
    return Rollout(
        id=identity,
        release=request.release,
        groups=tuple(
            Group(name=name, success_ratio=success, error_ratio=errors, named=_listed(request, index))
            for index, name in enumerate(names)
        ),
        members=as_members(groups),
        phase=RolloutPhase.RUNNING if request.approved else RolloutPhase.AWAITING_APPROVAL,
        probation_s=config.probation_s if request.probation_s is None else request.probation_s,
        deadline_s=config.deadline_s if request.deadline_s is None else request.deadline_s,
        window=request.window,
        shadow=request.shadow,
        max_bytes_per_s=request.max_bytes_per_s,
        scope=request.scope,
        dynamic=request.newcomers,
        cautions={name: why for name, why in {**request.last, **request.withheld}.items() if name in held},
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _listed(request: RolloutOptions, index: int) -> bool:
    """Return whether the request lists the devices of group ``index``; 0 is the canary."""
    by_name = request.canary is not None and not isinstance(request.canary, int)
    return by_name if index == 0 else index <= len(request.groups)


@dataclass(frozen=True, slots=True)
class _Choice:
    """The devices that a request is for, and the reasons for those that it names in vain."""

    request: RolloutOptions
    fleet: Mapping[str, Device]
    rules: Eligibility

    def takers(self) -> tuple[Device, ...]:
        """Return the devices of the scope that may get the release, withheld ones included.

        Raises:
            RolloutRefusedError: If the scope lists a device that may not, or moves devices that it does not name.
        """
        scope = self.request.scope
        if scope.move and not scope.names_models:
            raise RolloutRefusedError(
                "Expected a scope that names what moves to another model (devices, sites, attributes, releases or "
                "models), got move alone"
            )
        for name in scope.devices:
            self.check(name, named=False)
        return tuple(device for device in self.fleet.values() if not self.rules.refusal(device, scope))

    def check(self, name: str, *, named: bool = True) -> None:
        """Check that the device ``name``, which the request lists, may get the release.

        Raises:
            RolloutRefusedError: If it may not; the text has the reason.
        """
        why = "it is no registered device: see fleet-server devices"
        if name in self.fleet:
            why = self.rules.refusal(self.fleet[name], self.request.scope, named=named)
            why = why or (self.request.withheld.get(name, "") if named else "")
        if why:
            message = f"Expected devices that may get {self.request.release}, got {name[:80]!r}: {why}"
            raise RolloutRefusedError(message)

    def nobody(self) -> str:
        """Return why no device of the scope may get the release."""
        scope, found = self.request.scope, []
        for device in self.fleet.values():
            why = self.rules.refusal(device, scope) or self.request.withheld.get(device.device, "")
            found += [f"{device.device}: {why}"] if why and not self.rules.outside(device, scope) else []
        if not found:
            return f"no device is in the scope ({scope.text})" if scope.text else "the fleet has no device"
        return listed(found, _NAMED)


def _grouping(
    request: RolloutOptions, config: RolloutConfig, choice: _Choice, takers: Sequence[Device], seed: str
) -> tuple[list[str], list[tuple[str, ...]]]:
    canary = config.canary if request.canary is None else request.canary
    later = dict.fromkeys(name for group in request.groups for name in group)
    allowed = [device for device in takers if device.device not in request.withheld]
    free = [device for device in allowed if device.device not in later]
    first = pick_canaries(free, canary, seed) if isinstance(canary, int) else tuple(canary)
    named = [first, *(tuple(group) for group in request.groups)]
    chosen = Counter(name for group in named for name in group)
    for name in [*later, *first]:
        if chosen[name] > 1:
            message = f"Expected each device in one group, got {name[:80]!r} in {chosen[name]} places"
            raise RolloutRefusedError(message)
        choice.check(name)
    if not first:
        why = "all are in the groups that follow" if allowed and later else choice.nobody()
        message = f"Expected at least one device that can go first with {request.release}, got none: {why}"
        raise RolloutRefusedError(message)
    if not all(named):
        message = f"Expected at least one device in each group, got none in group {named.index(()) + 1}"
        raise RolloutRefusedError(message)
    rest = {device.device for device in allowed} - set(chosen)
    before = tuple(sorted(rest - request.last.keys()))
    if before and before != tuple(sorted(rest)):  # those that come last are the last group
        named.append(before)
        rest -= set(before)
    return ["canary", *(f"group {number + 2}" for number in range(len(named) - 1)), "rest"], [
        *named,
        tuple(sorted(rest)),
    ]
