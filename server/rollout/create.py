"""Turns an operator's request into a rollout: checks it and forms groups. Pure; neither stores nor starts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.errors import RolloutRefusedError
from server.fleet.fleet import Device
from server.registry.versions import Release
from server.rollout.config import MAX_TIME_S, RolloutConfig
from server.rollout.model import Group, Rollout, RolloutPhase
from server.rollout.selection import as_members, candidates, pick_canaries
from server.rollout.thresholds import MAX_CANARIES
from wire.messages import MaintenanceWindow
from wire.shadow import ShadowOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """A request for a rollout; None takes the setting of ``[rollout]``.

    ``canary``: a number of devices, or a list. ``groups``: device lists that follow; devices in no list come last,
    together with devices that enrol later. ``approved``: start at once. ``window``: in which devices may switch.
    ``shadow``: for how long they compare the release with the one that serves before. ``max_bytes_per_s``: how fast
    they may download, 0 for no limit; a lower limit of the device's own holds. ``withheld``: devices that don't get it,
    and ``last``: devices that come last, after all others, each with the reason.
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
    withheld: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)


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
    takers = candidates(devices, releases, request.release)
    allowed = [device for device in takers if device.device not in request.withheld]
    names, groups = _grouping(request, config, allowed, identity)
    held = {device.device for device in takers}
    success = config.success_ratio if request.success_ratio is None else request.success_ratio
    errors = config.error_ratio if request.error_ratio is None else request.error_ratio
    return Rollout(
        id=identity,
        release=request.release,
        groups=tuple(Group(name=name, success_ratio=success, error_ratio=errors) for name in names),
        members=as_members(groups),
        phase=RolloutPhase.RUNNING if request.approved else RolloutPhase.AWAITING_APPROVAL,
        probation_s=config.probation_s if request.probation_s is None else request.probation_s,
        deadline_s=config.deadline_s if request.deadline_s is None else request.deadline_s,
        window=request.window,
        shadow=request.shadow,
        max_bytes_per_s=request.max_bytes_per_s,
        cautions={name: why for name, why in {**request.last, **request.withheld}.items() if name in held},
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _grouping(
    request: RolloutOptions, config: RolloutConfig, allowed: Sequence[Device], seed: str
) -> tuple[list[str], list[tuple[str, ...]]]:
    canary = config.canary if request.canary is None else request.canary
    first = pick_canaries(allowed, canary, seed) if isinstance(canary, int) else tuple(canary)
    named = [first, *(tuple(group) for group in request.groups)]
    known, chosen = {device.device for device in allowed}, [name for group in named for name in group]
    for name in chosen:
        if name not in known or chosen.count(name) > 1:
            message = f"Expected registered devices, each once, that can run {request.release} and don't, got {name!r}"
            raise RolloutRefusedError(message)
    if not first:
        message = f"Expected at least one device that can run {request.release} and does not yet, got none"
        raise RolloutRefusedError(message)
    if not all(named):
        message = f"Expected at least one device in each group, got none in group {named.index(()) + 1}"
        raise RolloutRefusedError(message)
    rest = known - set(chosen)
    before = tuple(sorted(rest - request.last.keys()))
    if before and before != tuple(sorted(rest)):  # those that come last are the last group
        named.append(before)
        rest -= set(before)
    return ["canary", *(f"group {number + 2}" for number in range(len(named) - 1)), "rest"], [
        *named,
        tuple(sorted(rest)),
    ]
