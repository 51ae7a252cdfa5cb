"""Derives verdicts that a person can act on from flagged devices and pools; pure.

The rules, in their order (``docs/explanation/drift.md``, "Verdicts"):

1. a health check fails: ``device_fault`` (soon after a release, in the model's outputs: ``release_regression``)
2. an alarm that starts with a release: ``release_regression``: pause the rollout, never retrain
   (beside both, and beside drift: a device at a place that training does not know: ``new_place``)
3. flagged devices that share attributes (one-sided hypergeometric p < 0.01, risk ratio >= 3, at least 3 devices), or
   an alarm of a cohort's pool: ``cohort``; at least half of one site: ``site``
4. half of the fleet, or an alarm of its pool, without concentration: ``fleet``; not while most baselines of the
   devices are provisional. A fleet that lives at one site is that site: ``site``
5. all other flagged devices: ``device_local``

Rules 3 to 5 are about the devices of one model at a time: another model has other inputs, answers and streams, and its
devices are neither part of this one's fleet nor evidence about it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import combinations

_P_LIMIT = 0.01
_RISK_RATIO = 3.0
_MIN_DEVICES = 3
_MIN_SITE = 2
_EXPLAINED_RATIO = 0.8
_HALF = 0.5
_NOTHING = 1e-17  # relative to a sum: a smaller term can't change it
SITE = "site"

Attribute = tuple[str, str]
Attributes = tuple[Attribute, ...]


class VerdictKind(StrEnum):
    """The kind of problem; each kind has its own action."""

    DEVICE_FAULT = "device_fault"  # repair or look at the device
    DEVICE_LOCAL = "device_local"  # something in front of this device
    SITE = "site"  # something at this place
    COHORT = "cohort"  # something that these devices share
    FLEET = "fleet"  # the world changed
    RELEASE_REGRESSION = "release_regression"  # pause the rollout
    NEW_PLACE = "new_place"  # training does not know what stands before this device


GROUPS = frozenset({VerdictKind.SITE, VerdictKind.COHORT, VerdictKind.FLEET})
"""The kinds of a drift of several devices, of which one drift may be several, one after the other."""
ACTIONS: Mapping[VerdictKind, str] = {
    VerdictKind.DEVICE_FAULT: "look at the device",
    VerdictKind.DEVICE_LOCAL: "look at what stands before the device",
    VerdictKind.SITE: "collect samples at the site",
    VerdictKind.COHORT: "collect samples of the cohort",
    VerdictKind.FLEET: "collect samples across the fleet",
    VerdictKind.RELEASE_REGRESSION: "pause the rollout, label the samples, roll out the release before if it is worse",
    VerdictKind.NEW_PLACE: "label the samples that it was asked for, or accept the place",
}
_YOURSELF = "label them elsewhere, such as in Label Studio, add them to the data of its recipe, and run the recipe"
_UNASKED: Mapping[VerdictKind, str] = {
    VerdictKind.SITE: f"collect inputs at the site yourself, {_YOURSELF}",
    VerdictKind.COHORT: f"collect inputs of the cohort yourself, {_YOURSELF}",
    VerdictKind.FLEET: f"collect inputs across the fleet yourself, {_YOURSELF}",
    VerdictKind.RELEASE_REGRESSION: "pause the rollout, look at answers on the devices, roll out the release before if "
    "it is worse",
    VerdictKind.NEW_PLACE: f"collect inputs at the place yourself, {_YOURSELF}, or accept the place",
}


def action(kind: VerdictKind, not_asked: str = "") -> str:
    """Return what a person does about a verdict of ``kind``.

    ``not_asked``: why devices with its release are asked for no samples, "" if they are; it follows "a release with".
    """
    if not_asked and kind in _UNASKED:
        return f"{_UNASKED[kind]}; no samples are asked for of a release with {not_asked}"
    return ACTIONS[kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceView:
    """The input of the rules for one device. ``attributes`` include its site; ``fault`` is a health code or "".

    ``regression`` names the release that the trouble started with, or ""; ``provisional``: its baseline is not
    complete; ``new_place``: it looks at a place that training does not know, and nobody has accepted it. ``model``:
    which it runs, "" if that is not known.
    """

    device: str
    attributes: Mapping[str, str]
    flagged: bool = False
    fault: str = ""
    regression: str = ""
    provisional: bool = False
    new_place: bool = False
    model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftVerdict:
    """One finding: its kind, its devices, and the attributes that they share.

    ``model``: that of drifted devices, "" for other kinds of finding.
    """

    kind: VerdictKind
    devices: tuple[str, ...]
    attributes: Attributes = ()
    detail: str = ""
    model: str = ""

    @property
    def key(self) -> str:
        """The identity of the finding over windows among those of its model, although its devices may change."""
        if self.kind in {VerdictKind.DEVICE_FAULT, VerdictKind.DEVICE_LOCAL, VerdictKind.NEW_PLACE}:
            return f"{self.kind}:{','.join(self.devices)}:{self.detail}"
        return f"{self.kind}:{','.join(f'{name}={value}' for name, value in self.attributes)}:{self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Which pools of a model alarm: all devices, cohorts by (attribute, value). ``watched``: all cohort pools.

    ``site``: the one at which all devices of the alarming pools of all devices are, "" if they are at several.
    """

    fleet: bool = False
    cohorts: frozenset[tuple[str, str]] = frozenset()
    watched: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    site: str = ""


def hypergeometric_p(drawn_marked: int, drawn: int, marked: int, total: int) -> float:
    """Return P(X >= ``drawn_marked``) when ``drawn`` of ``total`` are drawn, ``marked`` of which are marked.

    Source: Fisher's exact test, one-sided.
    """
    high = min(drawn, marked)
    k = max(drawn_marked, drawn + marked - total, 0)
    if k > high:
        return 0.0
    term = math.exp(_log_ways(marked, k) + _log_ways(total - marked, drawn - k) - _log_ways(total, drawn))
    found = term
    while k < high and term > found * _NOTHING:
        term *= (marked - k) * (drawn - k) / ((k + 1) * (total - marked - drawn + k + 1))
        found, k = found + term, k + 1
    return min(found, 1.0)


def _log_ways(total: int, drawn: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(drawn + 1) - math.lgamma(total - drawn + 1)


def conclude(devices: Sequence[DeviceView], pools: Mapping[str, Pools]) -> tuple[DriftVerdict, ...]:
    """Return the verdicts of one window; ``pools`` are by model."""
    found = [
        DriftVerdict(kind=VerdictKind.DEVICE_FAULT, devices=(view.device,), detail=view.fault)
        for view in devices
        if view.fault and not view.regression
    ]
    found += _regressions(devices)
    found += [
        DriftVerdict(kind=VerdictKind.NEW_PLACE, devices=(view.device,))
        for view in devices
        if view.new_place and not view.fault
    ]
    alike: dict[str, list[DeviceView]] = {model: [] for model in pools}
    for view in devices:
        alike.setdefault(view.model, []).append(view)
    for model, views in sorted(alike.items()):
        own = pools.get(model, Pools())
        own = replace(own, site=own.site or only_site(view.attributes for view in views))
        drifted = _drift([view for view in views if not view.fault and not view.regression], own)
        found += [replace(verdict, model=model) for verdict in drifted]
    return tuple(found)


def only_site(attributes: Iterable[Mapping[str, str]]) -> str:
    """Return the site of devices with these ``attributes`` if it is the same for all, else ""."""
    sites = {of_device.get(SITE, "") for of_device in attributes}
    return sites.pop() if len(sites) == 1 else ""


def _regressions(devices: Sequence[DeviceView]) -> list[DriftVerdict]:
    releases = sorted({view.regression for view in devices if view.regression})
    return [
        DriftVerdict(
            kind=VerdictKind.RELEASE_REGRESSION,
            devices=_names(view for view in devices if view.regression == release),
            detail=release,
        )
        for release in releases
    ]


def _drift(devices: Sequence[DeviceView], pools: Pools) -> list[DriftVerdict]:
    flagged = [view for view in devices if view.flagged]
    found, rest = _concentrated(devices, flagged)
    sites, rest = _sites(devices, rest)
    found += sites
    final = sum(not view.provisional for view in flagged)
    if len(flagged) >= max(_MIN_DEVICES, _HALF * len(devices)) and final >= _HALF * len(flagged) and not any(
        len(verdict.devices) >= _EXPLAINED_RATIO * len(flagged) for verdict in found
    ):  # fmt: skip
        return [_of_all(flagged, only_site(view.attributes for view in devices))]
    found += _from_pools(devices, pools, {verdict.attributes for verdict in found})
    found += [DriftVerdict(kind=VerdictKind.DEVICE_LOCAL, devices=(view.device,)) for view in rest]
    return found


def _concentrated(
    devices: Sequence[DeviceView], flagged: list[DeviceView]
) -> tuple[list[DriftVerdict], list[DeviceView]]:
    """Return cohorts until 80 % of the flagged devices are explained (or none is concentrated), and the rest."""
    found: list[DriftVerdict] = []
    shared = Counter(one for seen in flagged for one in seen.attributes.items())
    having: dict[Attribute, set[str]] = {one: set() for one, count in shared.items() if count >= _MIN_DEVICES}
    for seen in devices:
        for one in seen.attributes.items():
            if one in having:
                having[one].add(seen.device)
    members = {one: frozenset(names) for one, names in having.items()}
    rest = {view.device: view for view in flagged}
    own = {view.device: sorted(item for item in view.attributes.items() if item in members) for view in flagged}
    hits: Counter[Attributes] = Counter((item,) for items in own.values() for item in items)
    while len(rest) > (1 - _EXPLAINED_RATIO) * len(flagged):
        best = _best(hits, members, len(rest), len(devices))
        if best is None:
            pairs: Counter[Attributes] = Counter(pair for device in rest for pair in combinations(own[device], 2))
            best = _best(pairs, members, len(rest), len(devices))
        if best is None:
            break
        inside = [view for view in rest.values() if _has(view, best)]
        kind = VerdictKind.SITE if [name for name, _ in best] == [SITE] else VerdictKind.COHORT
        found.append(DriftVerdict(kind=kind, devices=_names(inside), attributes=best))
        for view in inside:
            del rest[view.device]
            hits.subtract((item,) for item in own[view.device])
    return found, list(rest.values())


def _best(
    hits: Mapping[Attributes, int], members: Mapping[Attribute, frozenset[str]], flagged: int, total: int
) -> Attributes | None:
    """Return the concentrated set of attributes that explains most; source: Nazar, arXiv:2305.07772.

    ``hits``: how many of the ``flagged`` devices have each set, of ``total`` devices. It lists only sets that a flagged
    device has, so the work grows with the devices, not with the square of the values.
    """
    scored = [
        (-count, -count / size, subset, size)
        for subset, count in hits.items()
        if count >= _MIN_DEVICES
        for size in [len(frozenset.intersection(*(members[item] for item in subset)))]
    ]
    for count, _, subset, size in sorted(scored):
        if _is_concentrated(-count, size, flagged, total):
            return subset
    return None


def _is_concentrated(hits: int, members: int, flagged: int, total: int) -> bool:
    """Return whether a cohort of ``members`` devices, of which ``hits`` are flagged, passes the tests.

    ``flagged`` of ``total`` devices are flagged.
    """
    outside = total - members
    if not outside:
        return False
    risk_outside = max(flagged - hits, 0.5) / outside  # at least half a device: never divide by 0
    if hits / members < _RISK_RATIO * risk_outside:
        return False
    return hypergeometric_p(hits, members, flagged, total) < _P_LIMIT


def _sites(devices: Sequence[DeviceView], flagged: list[DeviceView]) -> tuple[list[DriftVerdict], list[DeviceView]]:
    members = Counter(view.attributes.get(SITE, "") for view in devices)
    inside: dict[str, list[DeviceView]] = {}
    for view in flagged:
        inside.setdefault(view.attributes.get(SITE, ""), []).append(view)
    found = [
        DriftVerdict(kind=VerdictKind.SITE, devices=_names(views), attributes=((SITE, site),))
        for site, views in sorted(inside.items())
        if site and len(views) >= _MIN_SITE and len(views) / members[site] >= _HALF
    ]
    explained = {device for verdict in found for device in verdict.devices}
    return found, [view for view in flagged if view.device not in explained]


def _from_pools(devices: Sequence[DeviceView], pools: Pools, known: set[Attributes]) -> list[DriftVerdict]:
    """Return verdicts from pools, which hold the devices that are not flagged: cohorts if only some pools alarm."""
    mixed = [
        (name, value)
        for name, value in sorted(pools.cohorts)
        if any(other == name and (other, at) not in pools.cohorts for other, at in pools.watched)
    ]
    if pools.fleet and not mixed and not known:
        here = [view for view in devices if pools.site in {"", view.attributes.get(SITE, "")}]
        return [_of_all(here, pools.site)]
    found = []
    for pair in mixed:
        if (pair,) not in known:
            kind = VerdictKind.SITE if pair[0] == SITE else VerdictKind.COHORT
            found.append(
                DriftVerdict(
                    kind=kind, devices=_names(view for view in devices if _has(view, (pair,))), attributes=(pair,)
                )
            )
    return found


def _of_all(devices: Sequence[DeviceView], site: str) -> DriftVerdict:
    """Return the verdict of a whole fleet: of the ``site`` at which all of it is, if there is one."""
    if site:
        return DriftVerdict(kind=VerdictKind.SITE, devices=_names(devices), attributes=((SITE, site),))
    return DriftVerdict(kind=VerdictKind.FLEET, devices=_names(devices))


def _has(view: DeviceView, subset: Attributes) -> bool:
    return all(view.attributes.get(name) == value for name, value in subset)


def _names(views: Iterable[DeviceView]) -> tuple[str, ...]:
    return tuple(sorted(view.device for view in views))
