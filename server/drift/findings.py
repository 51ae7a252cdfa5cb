"""Prepares the input of the verdict rules from the detectors' state, and words the cause.

Decides which release an alarm is attributed to. A device that is judged by its baseline under the release before has an
alarm of the release if it began soon after, in the outputs alone. While another device's baseline is being collected,
an alarm against the training reference is only shown, with one exception: the inputs look as in training, the outputs
do not and are less confident, and the device was quiet under the previous release.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from server.drift.config import DriftConfig
from server.drift.detection.attribution import Share, main_streams, sentence, shares
from server.drift.detection.carrying import BankKey
from server.drift.detection.evidence import values
from server.drift.detection.pools import FLEET, PoolName
from server.drift.detection.reference import Floats
from server.drift.detection.replays import allowed_ratio, exceeds
from server.drift.detection.slot_update import FoldState, SlotOutcome, limit_of
from server.drift.health import Fault, Usual
from server.drift.ledger import Finding
from server.drift.verdicts import SITE, DeviceView, DriftVerdict, Pools, VerdictKind, conclude, only_site
from wire.shadow import ShadowCounts

_LESS_SURE = {("confidence", "down"), ("margin", "down"), ("entropy", "up")}
_FAINT = 2.0  # nats of fading evidence of one device: chance alone reaches that in a stream without drift
_TOLD = 3  # devices whose labels are named
_DEGREES = 1.0  # nats below the threshold at which inputs still count as quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class BankFacts:
    """Registry data of one bank: its release and model, and its usual streams (None: the bundle is unknown).

    ``error_bound``: of its answers, where its gates judged them. ``pictures``: whether its inputs are.
    ``not_asked``: why its devices are asked for no samples, "" if they are.
    """

    release: str = ""
    model: str = ""
    usual: Usual | None = None
    error_bound: float = 1.0
    pictures: bool = True
    not_asked: str = ""

    def streams(self, count: int) -> list[tuple[str, str]]:
        """Return (name, kind) of every stream; numbered names if the reference is unknown."""
        if self.usual is None:
            return [(f"stream {index}", "input") for index in range(count)]
        return list(zip(self.usual.names, self.usual.kinds, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The input of one window's verdicts; ``senders``: the devices that sent a window in ``slot``.

    ``replays``: how devices' releases answered inputs of the one before.
    ``accepted``: the devices whose place is accepted, although training does not know it.
    ``renewed``: the devices that were commissioned again after this slot: it opens no alarm of theirs.
    ``labels``: what labels show of devices whose release answers otherwise, in words.
    """

    state: FoldState
    outcome: SlotOutcome
    facts: Mapping[BankKey, BankFacts]
    attributes: Mapping[str, Mapping[str, str]]
    faults: Mapping[str, Fault]
    config: DriftConfig
    slot: int
    senders: frozenset[str] = frozenset()
    replays: Mapping[str, ShadowCounts] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()
    renewed: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def new_places(self) -> frozenset[str]:
        """The devices at places that training does not know and nobody has accepted."""
        return self.outcome.new_places - self.accepted

    def facts_of(self, key: BankKey) -> BankFacts:
        """Return the facts of a bank; those of an unknown bundle if the registry has none."""
        return self.facts.get(key, BankFacts())


def findings(scene: Scene) -> tuple[Finding, ...]:
    """Return the verdicts of one window with their causes."""
    devices = []
    for device in sorted(scene.state.current.keys() | scene.faults.keys()):
        fault = scene.faults.get(device)
        view = DeviceView(
            device=device,
            attributes=scene.attributes.get(device, {}),
            flagged=device in scene.outcome.flagged - scene.renewed,
            fault=fault.code if fault else "",
            regression="" if device in scene.renewed else _regression(scene, device, fault),
            provisional=device in scene.outcome.provisional,
            new_place=device in scene.new_places - scene.renewed,
            model=_model_of(scene, device),
        )
        devices.append(view)
    return tuple(
        _finding(scene, verdict)
        for verdict in conclude(devices, _pools(scene))
        if verdict.kind is VerdictKind.DEVICE_FAULT or not scene.renewed.issuperset(verdict.devices)
    )


def _pools(scene: Scene) -> dict[str, Pools]:
    """Return the pools by model, those of its releases together."""
    watched: dict[str, set[PoolName]] = {}
    alarms: dict[str, set[PoolName]] = {}
    for key, name in scene.outcome.pool_values:
        model = scene.facts_of(key).model
        watched.setdefault(model, set()).add(name)
        alarms.setdefault(model, set()).update([name] if (key, name) in scene.outcome.pool_alarms else [])
    return {
        model: Pools(
            fleet=FLEET in alarms[model], cohorts=frozenset(alarms[model] - {FLEET}),
            watched=frozenset(names - {FLEET}), site=_site(scene, model),
        )
        for model, names in watched.items()
    }  # fmt: skip


def _site(scene: Scene, model: str) -> str:
    """Return the site of all devices with the releases of ``model`` whose whole pool alarms, "" for several or none."""
    keys = {key for key, name in scene.outcome.pool_alarms if name == FLEET and scene.facts_of(key).model == model}
    return only_site(
        scene.attributes.get(device, {}) for device, now in scene.state.current.items() if now.key in keys
    )  # fmt: skip


def _model_of(scene: Scene, device: str) -> str:
    """Return the model whose windows ``device`` sends, "" if that is not known."""
    now = scene.state.current.get(device)
    return scene.facts_of(now.key).model if now is not None else ""


def _regression(scene: Scene, device: str, fault: Fault | None) -> str:
    """Return the release with which this device's alarm or fault started, or ""."""
    now = scene.state.current.get(device)
    if now is None or now.previous is None or (fault is None and device in scene.state.expected.get(now.key, ())):
        return ""
    release, windows = scene.facts_of(now.key).release or now.key[0], scene.config.release_windows
    carried = scene.state.carried.get(now.key)
    if fault is None and _replay_text(scene, device):
        return release
    if fault is None and carried is not None and device in carried.kept:
        soon = scene.state.flagged_since.get(device, scene.slot) - now.since_slot < windows
        limit = limit_of(scene.state, scene.config.settings)
        alone = device in scene.outcome.flagged and carried.outputs_alone(device, limit)
        return release if soon and alone else ""
    if scene.slot - now.since_slot >= windows:
        return ""
    if fault is not None:
        return release if fault.kind != "input" and fault.code == "invalid_values" else ""
    return release if now.was_quiet and _outputs_alone(scene, device, now.key) else ""


def _replay_text(scene: Scene, device: str) -> str:
    """Return how many inputs of the release before get other answers if it is more than its gates allow, else "".

    Of a device that was in alarm before the release nothing is said: the release may be what was done about it. Nor of
    another model or another number of classes: there one input has two labels that are both right.
    """
    counts, now = scene.replays.get(device), scene.state.current[device]
    carried = scene.state.carried.get(now.key)
    if counts is None or carried is None or device not in carried.origins:
        return ""
    origin = carried.origins[device]
    after, before = scene.facts_of(now.key), scene.facts_of(origin)
    known = scene.state.facts
    if after.model != before.model or known[now.key].classes != known[origin].classes:
        return ""
    ratio = allowed_ratio(before.error_bound, after.error_bound)
    if not exceeds(counts, ratio, -limit_of(scene.state, scene.config.settings)):
        return ""
    others, n = counts.disagreed + counts.errors, counts.n + counts.errors
    return f"answers {others} of {n} kept inputs otherwise than {before.release}, where {ratio:.0%} are allowed for"


def _outputs_alone(scene: Scene, device: str, key: BankKey) -> bool:
    bank, facts = scene.state.banks[key], scene.facts_of(key)
    if bank.training is None or facts.usual is None:
        return False
    row, kinds = bank.rows[device], np.array(facts.usual.kinds)
    limit = limit_of(scene.state, scene.config.settings)
    outputs, inputs = bank.training_m[row][kinds == "output"], bank.training_m[row][kinds == "input"]
    if not outputs.size or float(values(outputs)) < limit:
        return False
    if inputs.size and float(values(inputs)) >= limit - _DEGREES:
        return False
    found = shares(bank.training_recent[row], facts.streams(bank.streams))
    return any((share.stream, share.shape) in _LESS_SURE for share in found[:2])


def causes(scene: Scene, devices: Iterable[str], *, training: bool = False) -> tuple[Share, ...]:
    """Return the shares of the summed evidence of ``devices``, in the bank of most of them.

    Streams with no more evidence than chance has are left out, unless none has more (``is_faint``).
    """
    found = _recent(scene, devices, training=training)
    if found is None:
        return ()
    recent, faint, facts = found
    best = recent.max(axis=1)
    telling = np.where((best >= min(faint, best.max()))[:, None], recent, 0.0)
    return shares(telling, facts.streams(len(recent)), pictures=facts.pictures)


def is_faint(scene: Scene, devices: Iterable[str]) -> bool:
    """Return whether the last windows of ``devices`` show no cause any more: an alarm fades more slowly than that."""
    found = _recent(scene, devices, training=False)
    return found is not None and bool(found[0].max() < found[1])


def _recent(scene: Scene, devices: Iterable[str], *, training: bool) -> tuple[Floats, float, BankFacts] | None:
    """Return the summed evidence, how much of it chance has, and the bank's facts; None if no device is known."""
    by_bank: dict[tuple[BankKey, bool], list[str]] = {}
    for device in devices:
        if device in scene.state.current:
            carried = scene.state.carried_bank(device) is not None
            by_bank.setdefault((scene.state.current[device].key, carried), []).append(device)
    if not by_bank:
        return None
    key, carried = max(sorted(by_bank), key=lambda bank_key: len(by_bank[bank_key]))
    bank = scene.state.carried[key].bank if carried else scene.state.banks[key]
    rows = [bank.rows[device] for device in by_bank[key, carried]]
    of_training = training and not carried
    recent: Floats = (bank.training_recent[rows] if of_training else bank.evidence(rows)).sum(axis=0)
    faint = 0.0 if of_training else _FAINT * len(rows)
    return recent, faint, scene.facts_of(key)


def _finding(scene: Scene, verdict: DriftVerdict) -> Finding:
    keys = (scene.state.current[device].key for device in verdict.devices if device in scene.state.current)
    facts = scene.facts_of(next(keys, ("", "")))
    fresh = not scene.senders.isdisjoint(verdict.devices)
    if verdict.kind is VerdictKind.DEVICE_FAULT:
        return Finding(
            verdict=verdict, cause=scene.faults[verdict.devices[0]].text, release=facts.release, model=facts.model
        )
    training = verdict.kind in {VerdictKind.RELEASE_REGRESSION, VerdictKind.NEW_PLACE}
    found = causes(scene, verdict.devices, training=training)
    if not any(device in scene.outcome.flagged for device in verdict.devices) and not training:
        found = _pool_causes(scene, verdict) or found
    unsure = sum(device in scene.outcome.provisional for device in verdict.devices)
    cause = sentence(found)
    if training:
        heard = scene.outcome.flagged.intersection(verdict.devices)
        if any(scene.state.carried_bank(device) is not None for device in heard):
            cause += "; the inputs are as under the release before"
        said = (_replay_text(scene, device) for device in verdict.devices)
        replayed = next(filter(None, said), "")
        labels = (scene.labels[device] for device in verdict.devices if device in scene.labels)
        cause = "; ".join(filter(None, (cause if heard or not replayed else "", replayed, *islice(labels, _TOLD))))
    return Finding(
        verdict=verdict, cause=cause, release=facts.release, model=verdict.model or facts.model, fresh=fresh,
        provisional=not training and 2 * unsure >= len(verdict.devices),
        faint=bool(scene.outcome.flagged.intersection(verdict.devices)) and is_faint(scene, verdict.devices),
        not_asked=facts.not_asked, streams=main_streams(found),
    )  # fmt: skip


def _pool_causes(scene: Scene, verdict: DriftVerdict) -> tuple[Share, ...]:
    """Return the shares of the evidence of the pool that alarms; of a site that is the whole fleet, the fleet's."""
    names = [verdict.attributes[0]] if verdict.attributes else []
    if not names or names[0][0] == SITE:
        names.append(FLEET)
    alarming = {key: pool for key, pool in scene.state.pools.items() if key in scene.outcome.pool_alarms}
    for name in names:
        for key, pool in alarming.items():
            facts = scene.facts_of(key[0])
            if facts.model == verdict.model and key[1] == name:
                recent = scene.state.banks[key[0]].with_classes(pool.recent, pool.class_recent)
                return shares(recent, facts.streams(len(pool.recent)), pictures=facts.pictures)
    return ()
