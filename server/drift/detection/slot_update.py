"""One slot of the whole fleet: windows in, flags out. A pure fold over slots in order of time.

The state is a function of the windows, in the order of their slots, and of the kept baselines: the same windows give
the same state, in any order of arrival and after every restart. The horizon bounds how far back windows are processed;
an older baseline is kept, so a device is still compared with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.drift.detection import pools as pooling
from server.drift.detection.baseline import FINAL, Kept, KeptOfDevice
from server.drift.detection.detector_bank import DetectorBank, DetectorSettings, Observation, SlotContext
from server.drift.detection.evidence import Decision, e_bh, log_cap, values
from server.drift.detection.movement import CONTROL_DEVICES, ScoreColumns
from server.drift.detection.pools import FLEET, Pool, PoolMovement, PoolName
from server.drift.detection.reference import Floats, Profile

BankKey = tuple[str, str]
"""(reference id, artifact), 32 hex digits each."""
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
    never alarm: it takes complete baselines to know how a whole fleet moves. ``completed``: the baselines estimated in
    this slot, by bank and (device, context), for the caller to store.
    """

    log_values: Mapping[str, float] = field(default_factory=dict)
    log_threshold: float = 0.0
    flagged: frozenset[str] = frozenset()
    provisional: frozenset[str] = frozenset()
    pool_values: Mapping[tuple[BankKey, PoolName], float] = field(default_factory=dict)
    pool_log_threshold: float = 0.0
    pool_alarms: frozenset[tuple[BankKey, PoolName]] = frozenset()
    collecting: frozenset[tuple[BankKey, PoolName]] = frozenset()
    completed: Mapping[BankKey, Mapping[tuple[str, int], Kept]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class FoldState:
    """The state of the fleet after a slot."""

    slot: int = -1
    banks: dict[BankKey, DetectorBank] = field(default_factory=dict)
    pools: dict[tuple[BankKey, PoolName], Pool] = field(default_factory=dict)
    movement: dict[BankKey, dict[PoolName, PoolMovement]] = field(default_factory=dict)
    current: dict[str, Current] = field(default_factory=dict)
    flagged: frozenset[str] = frozenset()

    def copy(self, spare: FoldState | None = None) -> FoldState:
        """Return an independent copy; it reuses the arrays of ``spare``, which must not be used afterwards."""
        spares = spare.banks if spare is not None else {}
        banks = {key: bank.copy(spares.get(key)) for key, bank in self.banks.items()}
        return FoldState(
            slot=self.slot, banks=banks, pools=dict(self.pools), current=dict(self.current), flagged=self.flagged,
            movement={key: dict(of_bank) for key, of_bank in self.movement.items()},
        )  # fmt: skip

    def keep_only(self, devices: Collection[str]) -> None:
        """Remove every device that is not in ``devices``: it was revoked or removed and is no longer judged."""
        for gone in self.current.keys() - set(devices):
            del self.current[gone]
        self.flagged = self.flagged & set(devices)

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


def fold_slot(
    state: FoldState, slot: int, windows: Mapping[BankKey, Sequence[Observation]],
    attributes: Mapping[str, Mapping[str, str]], settings: DetectorSettings, kept: KeptByBank | None = None,
) -> SlotOutcome:  # fmt: skip
    """Update ``state`` with one slot's windows (their banks must be open); return the outcome."""
    state.slot = slot
    _follow(state, slot, windows, settings)
    members, before = max(len(state.current), 1), _decided(state.pools, settings)
    completed = {}
    for key, window in windows.items():
        cap = log_cap(members, state.banks[key].tilts, settings.log_alpha)
        moment = SlotContext(
            slot=slot, log_cap=cap, kept=(kept or {}).get(key, {}), alarming=_alarming(state, key, before),
            flagged=state.flagged,
        )  # fmt: skip
        completed[key] = state.banks[key].step(window, settings, moment)
    log_values, decision = _devices(state, settings)
    flagged = frozenset(name for name, hit in zip(sorted(log_values), decision.flagged, strict=True) if hit)
    _step_pools(state, windows, attributes, settings, left_out=flagged | state.flagged)
    state.flagged = flagged
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
        here = [(device, row) for device, row in bank.rows.items() if bank.stage[row] and state.is_in(device, key)]
        lowest = 1 if len(here) >= CONTROL_DEVICES else FINAL
        log_values |= {device: float(of_bank[row]) for device, row in here if bank.stage[row] >= lowest}
    return log_values, e_bh(np.array([log_values[name] for name in sorted(log_values)]), settings.log_alpha)


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
        completed=completed,
    )


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The log values of all pools, the threshold, and which alarm."""

    values: Mapping[tuple[BankKey, PoolName], float]
    log_threshold: float
    alarms: frozenset[tuple[BankKey, PoolName]]


def _decided(pools: Mapping[tuple[BankKey, PoolName], Pool], settings: DetectorSettings) -> _Pooled:
    found = {key: pools[key].log_value for key in sorted(pools)}
    decision = e_bh(np.array(list(found.values())), settings.log_alpha)
    alarms = frozenset(key for key, hit in zip(found, decision.flagged, strict=True) if hit)
    return _Pooled(found, decision.log_threshold, alarms)


def _alarming(state: FoldState, key: BankKey, pooled: _Pooled) -> NDArray[np.bool_]:
    """Return the streams (S,) in which the fleet's pool of a bank alarms."""
    if (key, FLEET) not in pooled.alarms:
        return np.zeros(state.banks[key].streams, np.bool_)
    pool = state.pools[key, FLEET]
    found: NDArray[np.bool_] = pool.log_m.max(axis=1) >= pooled.log_threshold
    for place, stream in enumerate(state.banks[key].columns.classes):
        found[stream] |= bool(pool.class_m[place].max() >= pooled.log_threshold)
    return found


def _follow(
    state: FoldState, slot: int, windows: Mapping[BankKey, Sequence[Observation]], settings: DetectorSettings
) -> None:
    """Update the current bank of each device: a new reference means a new baseline; the old one is kept.

    In the slot of a swap a device has windows in two banks; the bank it was not in before is the newer one.
    """
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


def _is_quiet(state: FoldState, device: str, key: BankKey, settings: DetectorSettings) -> bool:
    bank = state.banks[key]
    if device not in bank.rows:
        return False
    value = float(values(bank.training_m[bank.rows[device]])) if bank.training else np.inf
    return bool(device not in state.flagged and value < np.log(max(len(state.current), 1)) - settings.log_alpha)


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
            movement |= pooling.learn(movement, named, bank.ended, state.slot, weekend=weekend)
        judged = pooling.JudgedWindows.of(bank, windows.get(key, ()), left_out=left_out)
        steps[key] = _PoolStep(
            named=named, left_out=left_out, places=judged.places(),
            windows=pooling.PoolWindows(
                bank=bank, judged=judged, settings=settings, movement=movement, weekend=weekend,
                between=pooling.between_batches(movement, named),
                fleet=judged.whole(bank),
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
