"""From flagged devices and pools to a verdict a person can act on; pure.

The rules, in their order (shared/DRIFT.md, "Verdicts"):
1. a health check fails: ``device_fault`` (soon after a release, in the model's outputs: ``release_regression``)
2. an alarm that starts with a release: ``release_regression``: pause the rollout, never retrain
3. flagged devices that share attributes (one-sided hypergeometric p < 0.01, risk ratio >= 3, at least 3 devices), or
   the pool of a cohort: ``cohort``; at least half of one site: ``site``
4. half of the fleet, or its pool, without concentration: ``fleet``
5. what remains: ``device_local``
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import reduce
from itertools import combinations

_P_LIMIT = 0.01
_RISK_RATIO = 3.0
_MIN_DEVICES = 3
_MIN_SITE = 2
_EXPLAINED_RATIO = 0.8
_HALF = 0.5
_MAX_ATTRIBUTES = 2
SITE = "site"

Attributes = tuple[tuple[str, str], ...]


class VerdictKind(StrEnum):
    """What is the matter; each kind has its own action."""

    DEVICE_FAULT = "device_fault"  # repair or look at the device
    DEVICE_LOCAL = "device_local"  # something in front of this device
    SITE = "site"  # something at this place
    COHORT = "cohort"  # something that these devices share
    FLEET = "fleet"  # the world changed
    RELEASE_REGRESSION = "release_regression"  # pause the rollout


ACTIONS: Mapping[VerdictKind, str] = {
    VerdictKind.DEVICE_FAULT: "look at the device",
    VerdictKind.DEVICE_LOCAL: "look at what stands before the device",
    VerdictKind.SITE: "collect samples at the site",
    VerdictKind.COHORT: "collect samples of the cohort",
    VerdictKind.FLEET: "collect samples across the fleet",
    VerdictKind.RELEASE_REGRESSION: "pause the rollout",
}


@dataclass(frozen=True, slots=True)
class DeviceView:
    """What the rules see of one device. ``attributes`` include its site; ``fault`` is a health code or "".

    ``regression`` names the release that the trouble started with, or "".
    """

    device: str
    attributes: Mapping[str, str]
    flagged: bool = False
    fault: str = ""
    regression: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One finding: its kind, whom it concerns, and what they share."""

    kind: VerdictKind
    devices: tuple[str, ...]
    attributes: Attributes = ()
    detail: str = ""

    @property
    def key(self) -> str:
        """What makes it the same finding in the next window, though devices come and go."""
        if self.kind in {VerdictKind.DEVICE_FAULT, VerdictKind.DEVICE_LOCAL}:
            return f"{self.kind}:{','.join(self.devices)}:{self.detail}"
        return f"{self.kind}:{','.join(f'{name}={value}' for name, value in self.attributes)}:{self.detail}"


@dataclass(frozen=True, slots=True)
class Pools:
    """Which pools alarm: the fleet's, and cohorts by (attribute, value). ``watched`` are all cohort pools."""

    fleet: bool = False
    cohorts: frozenset[tuple[str, str]] = frozenset()
    watched: frozenset[tuple[str, str]] = field(default_factory=frozenset)


def hypergeometric_p(drawn_marked: int, drawn: int, marked: int, total: int) -> float:
    """Return P(X >= ``drawn_marked``) when ``drawn`` of ``total`` are drawn, ``marked`` of which are marked.

    Source: Fisher's exact test, one-sided.
    """
    ways = math.comb(total, drawn)
    high = min(drawn, marked)
    hits = sum(math.comb(marked, k) * math.comb(total - marked, drawn - k) for k in range(drawn_marked, high + 1))
    return hits / ways


def conclude(devices: Sequence[DeviceView], pools: Pools) -> tuple[Verdict, ...]:
    """Return the verdicts of one window."""
    found = [
        Verdict(VerdictKind.DEVICE_FAULT, (view.device,), detail=view.fault)
        for view in devices
        if view.fault and not view.regression
    ]
    found += _regressions(devices)
    healthy = [view for view in devices if not view.fault and not view.regression]
    return (*found, *_drift(healthy, pools))


def _regressions(devices: Sequence[DeviceView]) -> list[Verdict]:
    releases = sorted({view.regression for view in devices if view.regression})
    return [
        Verdict(VerdictKind.RELEASE_REGRESSION, _names(view for view in devices if view.regression == release),
                detail=release)
        for release in releases
    ]  # fmt: skip


def _drift(devices: Sequence[DeviceView], pools: Pools) -> list[Verdict]:
    flagged = [view for view in devices if view.flagged]
    found, rest = _concentrated(devices, flagged)
    sites, rest = _sites(devices, rest)
    found += sites
    if len(flagged) >= max(_MIN_DEVICES, _HALF * len(devices)) and not _explained(found, len(flagged)):
        return [Verdict(VerdictKind.FLEET, _names(flagged))]
    found += _from_pools(devices, pools, {verdict.attributes for verdict in found})
    found += [Verdict(VerdictKind.DEVICE_LOCAL, (view.device,)) for view in rest]
    return found


def _explained(found: Sequence[Verdict], flagged: int) -> bool:
    return any(len(verdict.devices) >= _EXPLAINED_RATIO * flagged for verdict in found)


def _concentrated(devices: Sequence[DeviceView], flagged: list[DeviceView]) -> tuple[list[Verdict], list[DeviceView]]:
    """Return cohorts until 80 % of the flagged are explained (or nothing more is concentrated), and the rest."""
    found, rest = [], list(flagged)
    while len(rest) > (1 - _EXPLAINED_RATIO) * len(flagged):
        best = _best_set(devices, rest)
        if best is None:
            break
        inside = [view for view in rest if _has(view, best)]
        kind = VerdictKind.SITE if [name for name, _ in best] == [SITE] else VerdictKind.COHORT
        found.append(Verdict(kind, _names(inside), best))
        rest = [view for view in rest if view not in inside]
    return found, rest


@dataclass(frozen=True, slots=True)
class _Members:
    """Who has one set of attributes, as one bit per device: of all devices, and of those that are flagged."""

    everyone: int
    flagged: int

    def with_all(self, other: _Members) -> _Members:
        """Return who has both."""
        return _Members(self.everyone & other.everyone, self.flagged & other.flagged)


def _best_set(devices: Sequence[DeviceView], flagged: Sequence[DeviceView]) -> Attributes | None:
    """Return the smallest attribute set that is concentrated and explains most; source: Nazar, arXiv:2305.07772."""
    members = _members(devices, {view.device for view in flagged})
    for size in range(1, _MAX_ATTRIBUTES + 1):
        scored = [
            (_score(reduce(_Members.with_all, (members[item] for item in subset)), len(flagged), len(devices)), subset)
            for subset in combinations(sorted(members), size)
        ]
        passing = [(score, subset) for score, subset in scored if score is not None]
        if passing:
            return max(passing, key=lambda pair: pair[0])[1]
    return None


def _members(devices: Sequence[DeviceView], flagged: Collection[str]) -> dict[tuple[str, str], _Members]:
    """Return the values that enough flagged devices have: a set holds no more of them than each of its values."""
    everyone: dict[tuple[str, str], int] = {}
    hits: dict[tuple[str, str], int] = {}
    for index, view in enumerate(devices):
        for item in view.attributes.items():
            everyone[item] = everyone.get(item, 0) | 1 << index
            if view.device in flagged:
                hits[item] = hits.get(item, 0) | 1 << index
    return {item: _Members(everyone[item], bits) for item, bits in hits.items() if bits.bit_count() >= _MIN_DEVICES}


def _score(found: _Members, flagged: int, total: int) -> tuple[float, float] | None:
    """Return (share explained, share of the cohort that is flagged) where the cohort passes the tests.

    ``flagged`` of ``total`` devices are flagged.
    """
    hits = found.flagged.bit_count()
    if hits < _MIN_DEVICES:
        return None
    members = found.everyone.bit_count()
    outside = total - members
    if not outside:
        return None
    risk_outside = max(flagged - hits, 0.5) / outside  # half a device where there is none: never divide by 0
    if hits / members < _RISK_RATIO * risk_outside:
        return None
    if hypergeometric_p(hits, members, flagged, total) >= _P_LIMIT:
        return None
    return hits / flagged, hits / members


def _sites(devices: Sequence[DeviceView], flagged: list[DeviceView]) -> tuple[list[Verdict], list[DeviceView]]:
    found, rest = [], list(flagged)
    for site in sorted({view.attributes.get(SITE, "") for view in flagged} - {""}):
        members = [view for view in devices if view.attributes.get(SITE) == site]
        inside = [view for view in flagged if view.attributes.get(SITE) == site]
        if len(inside) >= _MIN_SITE and len(inside) / len(members) >= _HALF:
            found.append(Verdict(VerdictKind.SITE, _names(inside), ((SITE, site),)))
            rest = [view for view in rest if view not in inside]
    return found, rest


def _from_pools(devices: Sequence[DeviceView], pools: Pools, known: set[Attributes]) -> list[Verdict]:
    """Return what the pools of the devices that are not flagged say: a cohort if only some of them alarm."""
    mixed = [
        (name, value)
        for name, value in sorted(pools.cohorts)
        if any(other == name and (other, at) not in pools.cohorts for other, at in pools.watched)
    ]
    if pools.fleet and not mixed and not known:
        return [Verdict(VerdictKind.FLEET, _names(devices))]
    found = []
    for pair in mixed:
        if (pair,) not in known:
            kind = VerdictKind.SITE if pair[0] == SITE else VerdictKind.COHORT
            found.append(Verdict(kind, _names(view for view in devices if _has(view, (pair,))), (pair,)))
    return found


def _has(view: DeviceView, subset: Attributes) -> bool:
    return all(view.attributes.get(name) == value for name, value in subset)


def _names(views: Iterable[DeviceView]) -> tuple[str, ...]:
    return tuple(sorted(view.device for view in views))
