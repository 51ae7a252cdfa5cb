"""One slot of the whole fleet: windows in, flags out. A pure fold over slots in order of time.

The state is a function of the windows, in the order of their slots, of the kept baselines and of the slots in which
devices are commissioned again or keep another model: the same windows give the same state, in any order of arrival and
after every restart. The horizon bounds how far back windows are processed; an older baseline is kept, so a device is
still compared with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from server.drift.detection import pools as pooling
from server.drift.detection.baseline import FINAL, Kept, KeptOfDevice
from server.drift.detection.carrying import BankKey, Carried, StreamFacts, joined
from server.drift.detection.clock import HOURS
from server.drift.detection.detector_bank import DetectorBank, DetectorSettings, Observation, SlotContext
from server.drift.detection.evidence import Decision, e_bh, log_cap, values
from server.drift.detection.movement import CONTROL_DEVICES, ScoreColumns
from server.drift.detection.places import LOG_LIMIT
from server.drift.detection.pools import FLEET, Pool, PoolMovement, PoolName
from server.drift.detection.reference import Floats, Profile, Singles

KeptByBank = Mapping[BankKey, Mapping[str, KeptOfDevice]]
"""The kept baselines by bank and device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The bank of a device since slot ``since_slot``; ``previous``: the one before.

    ``was_quiet``: whether the device was quiet against the training reference in the previous bank.
    """

    key: BankKey
    since_slot: int
    previous: BankKey | None = None
    was_quiet: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotOutcome:
    """The result of one slot: log values by device (only complete baselines), thresholds, flags, pools.

    ``provisional``: those with a log value whose baseline is not complete. Pools in ``collecting`` have a value and
    never alarm: it takes complete baselines to know how a whole fleet moves. ``new_places``: the devices at a place
    that training does not know. ``completed``: the baselines estimated in this slot, by bank and (device, context), for
    the caller to store.
    """

    log_values: Mapping[str, float] = field(default_factory=dict)
    log_threshold: float = 0.0
    flagged: frozenset[str] = frozenset()
    provisional: frozenset[str] = frozenset()
    pool_values: Mapping[tuple[BankKey, PoolName], float] = field(default_factory=dict)
    pool_log_threshold: float = 0.0
    pool_alarms: frozenset[tuple[BankKey, PoolName]] = frozenset()
    collecting: frozenset[tuple[BankKey, PoolName]] = frozenset()
    new_places: frozenset[str] = frozenset()
    completed: Mapping[BankKey, Mapping[tuple[str, int], Kept]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class FoldState:
    """The state of the fleet after a slot.

    ``flagged_since``: the slot since which each flagged device is; ``facts``: what is known of the streams of a bank;
    ``carried``: its devices that are judged by their baselines under the release before. ``commissioned``: from when on
    (UTC ms) the windows of devices count that were commissioned again; ``committed``: since when devices kept each
    model to which they changed, the last time: windows under other models from before don't count. ``expected``:
    devices whose answers under a release are meant to be others; they are not judged so. It is given before each slot.
    """

    slot: int = -1
    banks: dict[BankKey, DetectorBank] = field(default_factory=dict)
    pools: dict[tuple[BankKey, PoolName], Pool] = field(default_factory=dict)
    movement: dict[BankKey, dict[PoolName, PoolMovement]] = field(default_factory=dict)
    current: dict[str, Current] = field(default_factory=dict)
    flagged: frozenset[str] = frozenset()
    flagged_since: dict[str, int] = field(default_factory=dict)
    facts: dict[BankKey, StreamFacts] = field(default_factory=dict)
    carried: dict[BankKey, Carried] = field(default_factory=dict)
    commissioned: dict[str, int] = field(default_factory=dict)
    committed: dict[str, dict[str, int]] = field(default_factory=dict)
    expected: Mapping[BankKey, frozenset[str]] = field(default_factory=dict)

    def copy(self, spare: FoldState | None = None) -> FoldState:
        """Return an independent copy; it reuses the arrays of ``spare``, which must not be used afterwards."""
        spares = spare.banks if spare is not None else {}
        banks = {key: bank.copy(spares.get(key)) for key, bank in self.banks.items()}
        older = spare.carried if spare is not None else {}
        return FoldState(
            slot=self.slot, banks=banks, pools=dict(self.pools), current=dict(self.current), flagged=self.flagged,
            movement={key: dict(of_bank) for key, of_bank in self.movement.items()},
            flagged_since=dict(self.flagged_since), facts=dict(self.facts),
            carried={key: one.copy(older.get(key)) for key, one in self.carried.items()},
            commissioned=dict(self.commissioned), expected=self.expected,
            committed={device: dict(of_device) for device, of_device in self.committed.items()},
        )  # fmt: skip

    def since_ms(self, device: str, model: str) -> int:
        """Return from when on (UTC ms) windows of ``device`` under ``model`` count, 0 since its installation."""
        return since_ms(device, model, self.commissioned, self.committed)

    def begin_anew(
        self, moments: Mapping[str, int], slot: int, attributes: Mapping[str, Mapping[str, str]],
        changes: Mapping[str, Mapping[str, int]],
    ) -> None:  # fmt: skip
        """Forget what is known of devices that are commissioned again with ``slot``, in every bank.

        Also the release before: nothing that its windows showed is compared any more. ``moments``: from when on (UTC
        ms) their windows count. ``changes``: since when devices kept each model; they are forgotten in the banks of
        all others. They leave their pools and join them like newcomers; a pool that keeps less than half of its
        members with a baseline begins again, and if it keeps none, so does what it learned.
        """
        anew = {device: from_ms for device, from_ms in moments.items() if self.commissioned.get(device, 0) < from_ms}
        kept: dict[str, dict[str, int]] = {}
        for device, by_model in changes.items():
            known = self.committed.get(device, {})
            if fresh := {model: ms for model, ms in by_model.items() if known.get(model, 0) < ms}:
                kept[device] = {**known, **fresh}
        changed = {*anew, *kept}
        if not changed:
            return
        older = self.commissioned, self.committed
        self.commissioned, self.committed = self.commissioned | anew, self.committed | kept
        ended: dict[BankKey, set[str]] = {}
        for key in self.banks:
            model = self.facts[key].model if key in self.facts else ""
            ended[key] = {one for one in changed if self.since_ms(one, model) > since_ms(one, model, *older)}
            self._forget(key, ended[key], slot, attributes)
        for key, carried in self.carried.items():
            carried.end(ended[key])
        here = {one for one in changed & self.current.keys() if one in ended[self.current[one].key]}
        self.flagged -= here
        for device in here:
            self.current[device] = replace(self.current[device], previous=None, was_quiet=False)

    def _forget(
        self, key: BankKey, anew: Collection[str], slot: int, attributes: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Forget the devices ``anew`` in one bank, and its pools that lose most of their members by that."""
        if not anew:
            return
        bank, left_out = self.banks[key], set(anew)
        here = [device for device in bank.devices if self.is_in(device, key)]
        named = {name: members for name, members in pooling.names(here, attributes).items() if members & left_out}
        before = {name: _with_baseline(bank, members) for name, members in named.items()}
        bank.forget(anew)
        for name, members in named.items():
            left = _with_baseline(bank, members)
            if left < pooling.MIN_MEMBERS or 2 * left < before[name]:
                self.pools.pop((key, name), None)
            known = self.movement.get(key, {}).get(name)
            if not left and known is not None and known.slot < slot:
                del self.movement[key][name]

    def keep_only(self, devices: Collection[str]) -> None:
        """Remove every device that is not in ``devices``: it was revoked or removed and is no longer judged."""
        for gone in self.current.keys() - set(devices):
            del self.current[gone]
        self.flagged = self.flagged & set(devices)
        for carried in self.carried.values():
            carried.end([device for device in carried.origins if device not in set(devices)])

    def is_in(self, device: str, key: BankKey) -> bool:
        """Return whether ``device`` belongs to the fleet and is in the bank ``key`` now."""
        now = self.current.get(device)
        return now is not None and now.key == key

    def open_bank(self, key: BankKey, columns: ScoreColumns, training: Profile | None) -> None:
        """Create the bank of ``key`` if there is none; the training profile may be set later."""
        if key not in self.banks:
            self.banks[key] = DetectorBank(columns=columns, training=training)
        elif training is not None:
            self.banks[key].training = training

    def carried_bank(self, device: str) -> DetectorBank | None:
        """Return the bank in which ``device`` is judged by its baseline under the release before, None if it is not."""
        now = self.current.get(device)
        carried = None if now is None else self.carried.get(now.key)
        return carried.bank if carried is not None and device in carried.kept else None


def since_ms(
    device: str, model: str, commissioned: Mapping[str, int], committed: Mapping[str, Mapping[str, int]]
) -> int:
    """Return from when on (UTC ms) windows of ``device`` under ``model`` count: its last commission, or its last stay.

    A stay under a model ends for good when the device keeps another one; what it tries in probation ends nothing.
    """
    ended = (from_ms for other, from_ms in committed.get(device, {}).items() if other != model)
    return max(commissioned.get(device, 0), *ended, 0)


def fold_slot(
    state: FoldState, slot: int, windows: Mapping[BankKey, Sequence[Observation]],
    attributes: Mapping[str, Mapping[str, str]], settings: DetectorSettings, kept: KeptByBank | None = None,
) -> SlotOutcome:  # fmt: skip
    """Update ``state`` with one slot's windows (their banks must be open); return the outcome."""
    state.slot = slot
    before = _decided(state.pools, settings)
    for device in _follow(state, slot, windows, settings):
        mine = {FLEET, *attributes.get(device, {}).items()}
        alarms = frozenset(one[0] for one in before.alarms if one[1] in mine and not state.pools[one].collecting)
        _carry(state, device, alarms, kept or {}, settings)
    for key, judged_before in state.carried.items():
        judged_before.judge_no_more(state.expected.get(key, ()))
    members = max(len(state.current), 1)
    completed = {}
    for key, window in windows.items():
        cap = log_cap(members, state.banks[key].tilts, settings.log_alpha)
        carried = state.carried.get(key)
        moment = SlotContext(
            slot=slot, log_cap=cap, kept=(kept or {}).get(key, {}), flagged=state.flagged,
            alarming=_alarming(state, key, before, settings),
        )  # fmt: skip
        aged = state.banks[key].aged.copy() if carried is not None else None
        completed[key] = state.banks[key].step(window, settings, moment)
        if carried is not None and aged is not None:
            none = np.zeros(len(carried.facts.names), np.bool_)
            carried.bank.step(carried.windows(window), settings, replace(moment, kept=carried.kept, alarming=none))
            _settle_carried(state, key, completed[key], aged, settings)
    log_values, decision = _devices(state, settings)
    flagged = frozenset(name for name, hit in zip(sorted(log_values), decision.flagged, strict=True) if hit)
    _step_pools(state, windows, attributes, settings, left_out=flagged | state.flagged)
    state.flagged = flagged
    state.flagged_since = {device: state.flagged_since.get(device, slot) for device in flagged}
    return _outcome(state, settings, log_values, decision.log_threshold, completed)


def outcome_of(state: FoldState, settings: DetectorSettings) -> SlotOutcome:
    """Return the outcome of the slot after which ``state`` holds."""
    log_values, decision = _devices(state, settings)
    return _outcome(state, settings, log_values, decision.log_threshold, {})


def _devices(state: FoldState, settings: DetectorSettings) -> tuple[dict[str, float], Decision]:
    """Return the log values by device, and the decision on them in the order of names."""
    log_values: dict[str, float] = {}
    for key, bank in state.banks.items():
        of_bank: Floats = bank.log_values()
        log_values |= {device: float(of_bank[row]) for device, row in _judged(state, key).items()}
        if key in state.carried and state.carried[key].kept:
            of_bank, rows = state.carried[key].bank.log_values(), state.carried[key].bank.rows
            log_values |= {device: float(of_bank[rows[device]]) for device in state.carried[key].kept}
    return log_values, e_bh(np.array([log_values[name] for name in sorted(log_values)]), settings.log_alpha)


def _judged(state: FoldState, key: BankKey) -> dict[str, int]:
    """Return the rows of the devices of a bank that are judged by a baseline under its reference, by device."""
    bank = state.banks[key]
    here = {device: row for device, row in bank.rows.items() if bank.stage[row] and state.is_in(device, key)}
    lowest = 1 if len(here) >= CONTROL_DEVICES else FINAL
    return {device: row for device, row in here.items() if bank.stage[row] >= lowest}


def _outcome(
    state: FoldState, settings: DetectorSettings, log_values: Mapping[str, float], log_threshold: float,
    completed: Mapping[BankKey, Mapping[tuple[str, int], Kept]],
) -> SlotOutcome:  # fmt: skip
    judged = _decided({key: pool for key, pool in state.pools.items() if not pool.collecting}, settings)
    return SlotOutcome(
        log_values=log_values,
        log_threshold=log_threshold,
        flagged=state.flagged,
        provisional=frozenset(
            device
            for key, bank in state.banks.items()
            for device, row in bank.rows.items()
            if device in log_values and bank.stage[row] < FINAL and state.is_in(device, key)
        ),
        pool_values=_decided(state.pools, settings).values,
        pool_log_threshold=judged.log_threshold,
        pool_alarms=judged.alarms,
        collecting=frozenset(key for key, pool in state.pools.items() if pool.collecting),
        new_places=frozenset(
            bank.devices[row]
            for key, bank in state.banks.items()
            for row in np.flatnonzero(bank.place >= LOG_LIMIT).tolist()
            if state.is_in(bank.devices[row], key)
        ),
        completed=completed,
    )


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The log values of all pools, the threshold, and which alarm."""

    values: Mapping[tuple[BankKey, PoolName], float]
    log_threshold: float
    alarms: frozenset[tuple[BankKey, PoolName]]


def _decided(pools: Mapping[tuple[BankKey, PoolName], Pool], settings: DetectorSettings) -> _Pooled:
    alike: dict[BankKey, list[tuple[BankKey, PoolName]]] = {}
    for name in pools:
        alike.setdefault(name[0], []).append(name)
    by_name: dict[tuple[BankKey, PoolName], float] = {}
    for several in alike.values():  # at once: this is done four times a slot
        log_m = np.stack([pools[name].log_m for name in several])
        class_m = np.stack([pools[name].class_m for name in several])
        by_name |= zip(several, values(log_m, class_m).tolist(), strict=True)
    found = {name: by_name[name] for name in sorted(by_name)}
    decision = e_bh(np.array(list(found.values())), settings.log_alpha)
    alarms = frozenset(key for key, hit in zip(found, decision.flagged, strict=True) if hit)
    return _Pooled(found, decision.log_threshold, alarms)


def _alarming(state: FoldState, key: BankKey, pooled: _Pooled, settings: DetectorSettings) -> NDArray[np.bool_]:
    """Return the streams (S,) in which the fleet's pool of a bank alarms; all while it cannot be judged.

    Three days are too few to show that most of a fleet has moved, and it would be the healthy devices that differ.
    Neither is what most of it does on a weekend known to baselines that had none; devices do not follow it alike.
    """
    pool, movement = state.pools.get((key, FLEET)), state.movement.get(key, {}).get(FLEET)
    unseen = pooling.is_unseen_weekend(movement, state.slot, settings)
    if unseen or (pool is not None and pool.collecting):
        return np.ones(state.banks[key].streams, np.bool_)
    if pool is None or (key, FLEET) not in pooled.alarms:
        return np.zeros(state.banks[key].streams, np.bool_)
    found: NDArray[np.bool_] = pool.log_m.max(axis=1) >= pooled.log_threshold
    for place, stream in enumerate(state.banks[key].columns.classes):
        found[stream] |= bool(pool.class_m[place].max() >= pooled.log_threshold)
    return found


def _follow(
    state: FoldState, slot: int, windows: Mapping[BankKey, Sequence[Observation]], settings: DetectorSettings
) -> list[str]:
    """Update the current bank of each device: a new reference means a new baseline; the old one is kept.

    In the slot of a swap a device has windows in two banks; the bank it was not in before is the newer one. Returns the
    devices that were in another bank before.
    """
    moved: list[str] = []
    banks_of: dict[str, list[BankKey]] = {}
    for key in sorted(windows):
        for seen in windows[key]:
            banks_of.setdefault(seen.device, []).append(key)
    for device, keys in banks_of.items():
        now = state.current.get(device)
        fresh = [key for key in keys if now is None or key != now.key]
        if fresh:
            quiet = now is not None and _is_quiet(state, device, now.key, settings)
            state.current[device] = Current(
                key=fresh[0], since_slot=slot, previous=now.key if now else None, was_quiet=quiet
            )
            if now is not None:
                moved.append(device)
    return moved


def _carry(
    state: FoldState, device: str, alarms: Collection[BankKey], kept: KeptByBank, settings: DetectorSettings
) -> None:
    """Judge ``device``, which has another release now, by its baseline under the release before.

    Not if that is of another model. Not if it was in alarm, itself or one of its pools: then the release may be what is
    done about it, and what it was made for is no drift to it; an alarm of the outputs alone was the release before, so
    it is judged on. Not if it was on this release before and has a baseline there. ``alarms``: the banks in which one
    of its pools alarms.
    """
    now = state.current[device]
    if now.previous is None:
        return
    older, before = state.carried.get(now.previous), state.banks[now.previous]
    stage = before.stage[before.rows[device]] if device in before.rows else 0
    provisional = stage and len(before.devices) >= CONTROL_DEVICES
    origin = now.previous if stage == FINAL or provisional else older.origins.get(device) if older else None
    regressed = older is not None and older.outputs_alone(device, limit_of(state, settings))
    if older is not None:
        older.end([device])
    if origin is None or not {origin, now.key} <= state.facts.keys():
        return
    if state.facts[origin].model != state.facts[now.key].model:
        return
    bank, known = state.banks[now.key], kept.get(now.key, {}).get(device, {}).values()
    complete = device in bank.rows and bank.stage[bank.rows[device]] == FINAL
    complete = complete or any(one.slot < state.slot and not one.provisional for one in known)
    if (device in state.flagged and not regressed) or now.previous in alarms or complete:
        return
    carried = state.carried.setdefault(now.key, Carried(facts=state.facts[now.key]))
    carried.begin(device, (origin, state.banks[origin], state.facts[origin]), state.slot)


def _settle_carried(
    state: FoldState, key: BankKey, completed: dict[tuple[str, int], Kept], aged: Singles, settings: DetectorSettings
) -> None:
    """Give the baselines estimated in this slot, ``completed``, the inputs of those under the release before.

    ``aged`` (D, K): what baselines had followed before this slot. A device with an own baseline is judged by that.
    """
    carried, bank = state.carried[key], state.banks[key]
    rows, inputs = [], ~carried.facts.outputs[bank.columns.stream]
    for (device, context), kept in list(completed.items()):
        origin = carried.origins.get(device)
        if origin is None:
            continue
        before, row = state.banks[origin], bank.rows[device]
        older = before.commissioning[before.rows[device]].estimated.get(context)
        if older is not None:
            collected = joined(kept.collected, older, state.facts[origin], carried.facts)
            completed[device, context] = Kept(kept.slot, collected, kept.provisional)
            bank.commissioning[row].estimated[context] = collected
        judged_here = device in carried.kept
        followed = carried.bank.aged[carried.bank.rows[device]] if judged_here else aged[row]
        bank.aged[row, inputs] = followed[inputs]
        rows.append(row)
    bank.complete(list(dict.fromkeys(rows)), settings)
    judged = _judged(state, key)
    carried.judge_no_more([device for device in carried.kept if device in judged])
    carried.end([device for device in carried.origins if device in judged and bank.stage[judged[device]] == FINAL])


def _with_baseline(bank: DetectorBank, devices: Iterable[str]) -> int:
    return sum(bool(bank.stage[bank.rows[device]]) for device in devices)


def _is_quiet(state: FoldState, device: str, key: BankKey, settings: DetectorSettings) -> bool:
    bank = state.banks[key]
    if device not in bank.rows:
        return False
    value = float(values(bank.training_m[bank.rows[device]])) if bank.training else np.inf
    return bool(device not in state.flagged and value < limit_of(state, settings))


def limit_of(state: FoldState, settings: DetectorSettings) -> float:
    """Return the log evidence from which on a single device of the fleet is flagged."""
    return float(np.log(max(len(state.current), 1)) - settings.log_alpha)


def _step_pools(
    state: FoldState, windows: Mapping[BankKey, Sequence[Observation]], attributes: Mapping[str, Mapping[str, str]],
    settings: DetectorSettings, *, left_out: frozenset[str],
) -> None:  # fmt: skip
    before, after = state.pools, dict[tuple[BankKey, PoolName], Pool]()
    steps: dict[BankKey, _PoolStep] = {}
    for key, bank in state.banks.items():
        here = [device for device in bank.devices if state.is_in(device, key)]
        named = pooling.names(here, attributes)
        movement = state.movement.setdefault(key, {})
        weekend = pooling.is_weekend(state.slot, settings)
        if key in windows:
            movement |= pooling.learn(movement, named, bank.ended, state.slot, settings)
        rhythm = pooling.rhythm_of(movement, bank.columns)
        judged = pooling.JudgedWindows.of(bank, windows.get(key, ()), left_out=left_out)
        steps[key] = _PoolStep(
            named=named, left_out=left_out, places=judged.places(),
            windows=pooling.PoolWindows(
                bank=bank, judged=judged, settings=settings, movement=movement, weekend=weekend,
                between=pooling.between_batches(movement, named, rhythm), rhythm=rhythm, hour=state.slot % HOURS,
                fleet=judged.whole(bank), unseen=pooling.is_unseen_weekend(movement.get(FLEET), state.slot, settings),
                log_cap=log_cap(len(named), bank.tilts, settings.log_alpha),
            ),
        )  # fmt: skip
        for name in named:
            pool = steps[key].take(before.get((key, name)), name)
            if pool is not None:
                after[key, name] = pool
    pooled = _decided(after, settings)
    for key, step in steps.items():
        alarms = {name: after[key, name].log_value for bank_key, name in pooled.alarms if bank_key == key}
        for name, others in _overlapping(step.named, alarms):
            pool = step.take(before.get((key, name)), name, without=others)
            after.pop((key, name))
            if pool is not None:
                after[key, name] = pool
    state.pools = after


@dataclass(frozen=True, slots=True, kw_only=True)
class _PoolStep:
    """The input of one bank's pools in one slot: the members of each pool, the excluded devices, and the windows."""

    named: Mapping[PoolName, frozenset[str]]
    left_out: frozenset[str]
    places: Mapping[str, Sequence[int]]
    windows: pooling.PoolWindows

    def take(self, pool: Pool | None, name: PoolName, *, without: frozenset[str] = frozenset()) -> Pool | None:
        """Return the pool ``name`` after this slot, ``without`` some of its members; None where too few are left."""
        members = self.named[name] - without
        if len(members - self.left_out) < pooling.MIN_MEMBERS:
            return None
        part = range(len(self.windows.judged.devices)) if name == FLEET else sorted(
            place for device in members for place in self.places.get(device, ())
        )  # fmt: skip
        others = np.array([place for device in without for place in self.places.get(device, ())], np.int64)
        return self.windows.step(pool, name, np.array(part, np.int64), without=others)


def _overlapping(
    named: Mapping[PoolName, frozenset[str]], alarms: Mapping[PoolName, float]
) -> Iterator[tuple[PoolName, frozenset[str]]]:
    """Yield the alarming cohorts that share devices with a stronger alarm, each with the devices of the stronger ones.

    A change at one site also reaches two of the three devices with some lens: that lens would be blamed, and with it
    an unaffected device elsewhere. If all cohorts of an attribute alarm, that is no evidence about any one of them.
    """
    quiet = {attribute for attribute, value in named if (attribute, value) not in alarms}
    mixed = sorted((name for name in alarms if name != FLEET and name[0] in quiet), key=lambda name: -alarms[name])
    for place, name in enumerate(mixed):
        stronger = frozenset[str]().union(*(named[other] for other in mixed[:place]))
        if named[name] & stronger:
            yield name, stronger
