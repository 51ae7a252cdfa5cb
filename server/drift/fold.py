"""One slot of the whole fleet: windows in, flags out. A pure fold over slots in order of time.

The state is a function of the windows, in the order of their slots, and of the kept baselines: the same windows give
the same state, however they arrived, after every restart. The horizon bounds how far back windows are folded; a
baseline from before it is kept, so a device goes on being compared with its own commissioning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from server.drift import pools as pooling
from server.drift.baseline import Kept, KeptOfDevice
from server.drift.evidence import Decision, e_bh, log_cap, values
from server.drift.lane import Lane, Moment, Observation, Settings
from server.drift.pools import FLEET, Pool, PoolName
from server.drift.reference import Floats, Profile

LaneKey = tuple[str, str]
"""(reference id, artifact), 32 hex digits each."""
KeptBaselines = Mapping[LaneKey, Mapping[str, KeptOfDevice]]
"""The kept baselines by lane and device."""


@dataclass(frozen=True, slots=True)
class Current:
    """The lane a device is in since slot ``since_slot``; ``previous``: the one before.

    ``was_quiet``: whether the device was quiet against the training reference in that one.
    """

    key: LaneKey
    since_slot: int
    previous: LaneKey | None = None
    was_quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one slot said: log values by device (only complete baselines), thresholds, flags, pools.

    ``completed``: the baselines completed in this slot, by lane and (device, context): to be kept.
    """

    log_values: Mapping[str, float]
    log_threshold: float
    flagged: frozenset[str]
    pool_values: Mapping[tuple[LaneKey, PoolName], float]
    pool_log_threshold: float
    pool_alarms: frozenset[tuple[LaneKey, PoolName]]
    completed: Mapping[LaneKey, Mapping[tuple[str, int], Kept]] = field(default_factory=dict)


@dataclass(slots=True)
class FoldState:
    """The fleet after some slot."""

    slot: int = -1
    lanes: dict[LaneKey, Lane] = field(default_factory=dict)
    pools: dict[tuple[LaneKey, PoolName], Pool] = field(default_factory=dict)
    current: dict[str, Current] = field(default_factory=dict)
    flagged: frozenset[str] = frozenset()

    def copy(self, spare: FoldState | None = None) -> FoldState:
        """Return an independent copy, in the memory of ``spare`` where that fits: it must not be used any more."""
        spares = spare.lanes if spare is not None else {}
        lanes = {key: lane.copy(spares.get(key)) for key, lane in self.lanes.items()}
        return FoldState(self.slot, lanes, dict(self.pools), dict(self.current), self.flagged)

    def open_lane(self, key: LaneKey, streams: int, training: Profile | None) -> None:
        """Make the lane of ``key`` if there is none; the training profile may come later."""
        if key not in self.lanes:
            self.lanes[key] = Lane(streams, training)
        elif training is not None:
            self.lanes[key].training = training


def fold_slot(
    state: FoldState, slot: int, windows: Mapping[LaneKey, Sequence[Observation]],
    attributes: Mapping[str, Mapping[str, str]], settings: Settings, kept: KeptBaselines | None = None,
) -> Outcome:  # fmt: skip
    """Take one slot's windows into ``state`` (its lanes must be open); return what follows from them."""
    state.slot = slot
    _follow(state, slot, windows, settings)
    members = max(len(state.current), 1)
    completed = {}
    for key, window in windows.items():
        cap = log_cap(members, state.lanes[key].streams, settings.log_alpha)
        completed[key] = state.lanes[key].step(window, settings, Moment(slot, cap, (kept or {}).get(key, {})))
    log_values, decision = _devices(state, settings)
    flagged = frozenset(name for name, hit in zip(sorted(log_values), decision.flagged, strict=True) if hit)
    _step_pools(state, windows, attributes, settings, left_out=flagged | state.flagged)
    state.flagged = flagged
    return _outcome(state, settings, log_values, decision.log_threshold, completed)


def outcome_of(state: FoldState, settings: Settings) -> Outcome:
    """Return what the slot said after which the fleet stands at ``state``."""
    log_values, decision = _devices(state, settings)
    return _outcome(state, settings, log_values, decision.log_threshold, {})


def _devices(state: FoldState, settings: Settings) -> tuple[dict[str, float], Decision]:
    """Return the log values by device, and the decision on them in the order of names."""
    log_values = _log_values(state)
    return log_values, e_bh(np.array([log_values[name] for name in sorted(log_values)]), settings.log_alpha)


def _outcome(
    state: FoldState, settings: Settings, log_values: Mapping[str, float], log_threshold: float,
    completed: Mapping[LaneKey, Mapping[tuple[str, int], Kept]],
) -> Outcome:  # fmt: skip
    keys = sorted(state.pools)
    pool_values = {key: state.pools[key].log_value for key in keys}
    pooled = e_bh(np.array([pool_values[key] for key in keys]), settings.log_alpha)
    alarms = frozenset(key for key, hit in zip(keys, pooled.flagged, strict=True) if hit)
    return Outcome(log_values, log_threshold, state.flagged, pool_values, pooled.log_threshold, alarms, completed)


def _follow(state: FoldState, slot: int, windows: Mapping[LaneKey, Sequence[Observation]], settings: Settings) -> None:
    """Note which lane each device is in now: a new reference means a new baseline, the old one is kept.

    In the slot of a swap a device has windows in two lanes; the one it was not in before is the newer.
    """
    heard: dict[str, list[LaneKey]] = {}
    for key in sorted(windows):
        for seen in windows[key]:
            heard.setdefault(seen.device, []).append(key)
    for device, keys in heard.items():
        now = state.current.get(device)
        fresh = [key for key in keys if now is None or key != now.key]
        if fresh:
            quiet = now is not None and _is_quiet(state, device, now.key, settings)
            state.current[device] = Current(fresh[0], slot, now.key if now else None, quiet)


def _is_quiet(state: FoldState, device: str, key: LaneKey, settings: Settings) -> bool:
    lane = state.lanes[key]
    if device not in lane.rows:
        return False
    value = float(values(lane.training_m[lane.rows[device]])) if lane.training else np.inf
    return bool(device not in state.flagged and value < np.log(max(len(state.current), 1)) - settings.log_alpha)


def _log_values(state: FoldState) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, lane in state.lanes.items():
        log_values: Floats = lane.log_values()
        for device, row in lane.rows.items():
            if lane.ready[row] and state.current[device].key == key:
                found[device] = float(log_values[row])
    return found


def _step_pools(
    state: FoldState, windows: Mapping[LaneKey, Sequence[Observation]], attributes: Mapping[str, Mapping[str, str]],
    settings: Settings, *, left_out: frozenset[str],
) -> None:  # fmt: skip
    live: set[tuple[LaneKey, PoolName]] = set()
    for key, lane in state.lanes.items():
        here = [device for device in lane.devices if state.current[device].key == key]
        named = pooling.names(here, attributes)
        cap = log_cap(len(named), lane.streams, settings.log_alpha)
        judged = pooling.Judged.of(lane, (seen for seen in windows.get(key, ()) if seen.device not in left_out))
        places = judged.places()
        for name, members in named.items():
            if len(members - left_out) < pooling.MIN_MEMBERS:
                continue
            live.add((key, name))
            part = range(len(judged.devices)) if name == FLEET else sorted(
                place for device in members for place in places.get(device, ())
            )  # fmt: skip
            pool = pooling.step(state.pools.get((key, name)), lane, judged, np.array(part, np.int64), settings,
                                log_cap=cap)  # fmt: skip
            if pool is not None:
                state.pools[key, name] = pool
    state.pools = {key: pool for key, pool in state.pools.items() if key in live}
