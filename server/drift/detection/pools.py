"""Pools the evidence of many devices: one pool for the fleet, and one for each value of each attribute.

A pool detects drift that no single device shows. Each device counts at most the median number of samples; flagged
devices are left out from the window in which they are flagged: leaving out a device with much evidence can only lower
a pool. The pool's normaliser is that of its members' baselines, mixed as in the current window: by concavity of the
logarithm the product of the devices' own expectations is at most the power of their weighted mean.

What devices share (a common hour, weather, light) makes the mean of many devices far less certain than that of
independent ones. A cohort is therefore compared with the rest of its fleet, and a pool has a memory of its own: how
much more its mean moved from batch to batch, while baselines were collected, than that of independent samples; and
what it moved from day to day is tolerated on top. The fleet's pool has no other fleet to learn from: only days do.

The prior counts once, after mixing. With a prior per member, its share of the mixture (8 of each member's n + 8) would
not shrink with the number of members, while the allowance for the baselines' sampling error does: in a stream that is
always in one bin, every sample would then add a little evidence forever. For the same reason the prior may only raise
a normaliser, never lower it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.baseline import FINAL
from server.drift.detection.clock import HOURS, HourlySums, Rhythm, rhythm
from server.drift.detection.detector_bank import ROWS, DetectorBank, DetectorSettings, Observation
from server.drift.detection.evidence import class_increments, fade, increments, sums, update, values
from server.drift.detection.movement import CONTROL_DEVICES, KAPPA, LENGTHS, Movement, Pairs, ScoreColumns, ageing
from server.drift.detection.reference import (
    CLASS_TILTS,
    OWN_SHAPES,
    SHAPE_MEMORY,
    SHAPE_SIGNS,
    THETAS,
    TILTS,
    Floats,
    class_log_normaliser,
    deviations,
    log_normaliser,
    proportions,
    shapes,
    shares,
)
from wire.histogram import BINS

PoolName = tuple[str, str]
FLEET: PoolName = ("", "")
MIN_MEMBERS = 2
_MAX_POOLS = 64
_COHORT_WEIGHT = 60.0  # pairs of batches that the other cohorts of an attribute are worth beside a cohort's own
_MEMORY_LENGTHS = (0, 1, 2, 4, 5)  # 1, 2, 4, 8 and 12 windows
_DAY_MS, _THURSDAY, _SATURDAY = 86_400_000, 3, 5  # 1 January 1970 was a Thursday; Monday is 0
_MIN_DAYS = 2  # pairs of days, from which on the movement between days is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool's detectors, (S, 24) and (C, 80) each, and its members in the latest window.

    ``aged`` (K,): the slow change that its baseline has followed. ``stage``: that of the baselines of most members;
    when it rises, the pool begins again, because its evidence was against other baselines. ``collecting``: it has no
    rest of the fleet to compare with, and no complete baselines yet: its value is known, and it opens nothing.
    """

    log_m: Floats
    recent: Floats
    class_m: Floats
    class_recent: Floats
    aged: Floats
    members: int = 0
    stage: int = 0
    collecting: bool = False

    @classmethod
    def empty(cls, columns: ScoreColumns) -> Pool:
        """Return the pool before its first window."""
        tilts, class_tilts = (columns.streams, TILTS), (len(columns.classes), CLASS_TILTS)
        return cls(
            log_m=np.full(tilts, -np.inf), recent=np.zeros(tilts), class_m=np.full(class_tilts, -np.inf),
            class_recent=np.zeros(class_tilts), aged=np.zeros(columns.count),
        )  # fmt: skip

    @property
    def log_value(self) -> float:
        """Log of the mean of M over streams and tilts."""
        return float(values(self.log_m, self.class_m))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMovement:
    """How much more the mean of a pool moved than that of independent samples: sums over pairs of batches, by length.

    A pair whose squared difference is X times what independent samples would differ, with N samples a batch, adds
    N (X - 1) to ``excess`` and N^2 to ``weight`` (7, K each), and 1 to ``pairs`` (7,): excess / weight is the variance
    between batches over that of a sample. ``slot``: the latest slot with a pair. ``weekend_windows``: how many windows
    of weekends were seen; if the baselines had too few, ``weekend`` (S, 16) has by how many counts of ``weekend_n``
    (S,) samples the first weekend differed from them. ``clock``: of the whole fleet, by the hour of the day.
    """

    excess: Floats
    weight: Floats
    pairs: Floats
    weekend: Floats
    weekend_n: Floats
    weekend_windows: int = 0
    slot: int = -1
    clock: HourlySums | None = None

    @classmethod
    def empty(cls, columns: ScoreColumns) -> PoolMovement:
        """Return the movement before the first pair."""
        each = (len(LENGTHS), columns.count)
        return cls(
            excess=np.zeros(each), weight=np.zeros(each), pairs=np.zeros(len(LENGTHS)),
            weekend=np.zeros((columns.streams, BINS)), weekend_n=np.zeros(columns.streams),
        )  # fmt: skip


def names(devices: Iterable[str], attributes: Mapping[str, Mapping[str, str]]) -> dict[PoolName, frozenset[str]]:
    """Return the pools and their members: all devices, and each attribute value that some but not all share."""
    everyone = frozenset(devices)
    found: dict[PoolName, set[str]] = {}
    for device in everyone:
        for pair in attributes.get(device, {}).items():
            found.setdefault(pair, set()).add(device)
    shared = {
        pair: frozenset(members)
        for pair, members in sorted(found.items())
        if MIN_MEMBERS <= len(members) < len(everyone)
    }
    largest = sorted(shared, key=lambda pair: -len(shared[pair]))[: _MAX_POOLS - 1]
    pools = {FLEET: everyone} if len(everyone) >= MIN_MEMBERS else {}
    return pools | {pair: shared[pair] for pair in largest}


def learn(
    known: Mapping[PoolName, PoolMovement], named: Mapping[PoolName, frozenset[str]],
    ended: Sequence[tuple[Movement, Pairs]], slot: int, settings: DetectorSettings,
) -> dict[PoolName, PoolMovement]:  # fmt: skip
    """Return the movement of the pools ``named`` with all pairs of batches that ``ended`` in ``slot``.

    A pool that has already learned from this slot is not changed.
    """
    weekend, hourly = is_weekend(slot, settings), settings.window_ms * HOURS == _DAY_MS
    found: dict[PoolName, PoolMovement] = {}
    for movement, pairs in ended:
        devices = [movement.devices[row] for row in pairs.rows]
        member = np.array([[device in members for device in devices] for members in named.values()], np.float64)
        member = member.reshape(len(named), len(devices))  # also where one device makes no pool
        parts = (pairs.samples * pairs.differences, pairs.samples * pairs.variances, pairs.samples)
        whole, of_pool, count = (
            [part.sum(axis=0) for part in parts],
            [member @ part for part in parts],
            member.sum(axis=1),
        )
        for place, name in enumerate(named):
            older = known.get(name) or PoolMovement.empty(movement.columns)
            if count[place] < MIN_MEMBERS or older.slot >= slot:
                continue
            older = found.get(name, older)
            moved, noise, n = (part[place] for part in of_pool)
            several = np.maximum(n, 1e-9)
            difference, variance = moved / several, noise / several
            chance = variance / several
            if _is_controlled(name, int(count[place]), len(devices)):
                rest = np.maximum(whole[2] - n, 1e-9)
                difference = difference - (whole[0] - moved) / rest
                chance = chance + (whole[1] - noise) / rest**2
            varies = (chance > 0) & (n > 0)
            chance = np.where(varies, chance, 1.0)
            size = np.where(varies, 2 * variance / chance, 0.0)  # samples a batch, as if all were independent
            excess, weight, seen = older.excess.copy(), older.weight.copy(), older.pairs.copy()
            excess[pairs.length] += size * (difference**2 / chance - 1)
            weight[pairs.length] += size**2
            seen[pairs.length] += 1
            clock = older.clock
            if name == FLEET and hourly:
                apart = difference / np.sqrt(np.where(varies, variance, 1.0))
                clock = (clock or HourlySums.empty(movement.columns)).after(pairs, apart, size, member[place] > 0)
            found[name] = replace(
                older, excess=excess, weight=weight, pairs=seen, slot=slot, clock=clock,
                weekend_windows=older.weekend_windows + (weekend and pairs.length == 0),
            )  # fmt: skip
    return found


def _is_controlled(name: PoolName, members: int, devices: int) -> bool:
    """Return whether the ``members`` of a pool are compared with the rest of ``devices``: never the whole fleet."""
    return name != FLEET and devices >= CONTROL_DEVICES and devices - members >= CONTROL_DEVICES // 2


def is_weekend(slot: int, settings: DetectorSettings) -> bool:
    """Return whether ``slot`` is on a Saturday or Sunday, UTC; never for baselines of less than two days."""
    day = slot * settings.window_ms // _DAY_MS
    return settings.baseline_windows * settings.window_ms >= 2 * _DAY_MS and (day + _THURSDAY) % 7 >= _SATURDAY


def is_unseen_weekend(known: PoolMovement | None, slot: int, settings: DetectorSettings) -> bool:
    """Return whether ``slot`` is on a weekend and the baselines of the fleet, with this movement, had no day of one."""
    if not is_weekend(slot, settings):
        return False
    return known is None or known.weekend_windows * settings.window_ms < _DAY_MS or bool(known.weekend_n.any())


def rhythm_of(known: Mapping[PoolName, PoolMovement], columns: ScoreColumns) -> Rhythm | None:
    """Return the rhythm of the whole fleet, None if there is none or too few days were seen."""
    fleet = known.get(FLEET)
    if fleet is None or fleet.clock is None:
        return None
    found = rhythm(fleet.clock, fleet.excess, fleet.weight, fleet.pairs, columns)
    return found if found.used.any() else None


def between_batches(
    known: Mapping[PoolName, PoolMovement], named: Iterable[PoolName], fleets: Rhythm | None = None
) -> dict[PoolName, tuple[Floats, float]]:
    """Return of each pool the variance between batches over that of a sample (7, K), and the number of pairs of days.

    That of the whole fleet is without its rhythm, if it has one: ``fleets``.

    Cohorts of one attribute are shrunk to each other; a pool that has learned nothing has the values of the others of
    its attribute, or else of the fleet; it is left out if there are none.
    """
    if fleets is not None:
        known = {**known, FLEET: replace(known[FLEET], excess=fleets.excess)}
    by_attribute: dict[str, list[PoolMovement]] = {}
    for name, one in known.items():
        by_attribute.setdefault(name[0], []).append(one)
    together = {
        attribute: (
            np.sum([one.excess for one in alike], axis=0)
            / np.maximum(np.sum([one.weight for one in alike], axis=0), 1e-12),
            float(min(one.pairs[-1] for one in alike)),
        )
        for attribute, alike in by_attribute.items()
    }
    found = {}
    for name in named:
        if name in known:
            own, pairs = known[name].excess / np.maximum(known[name].weight, 1e-12), known[name].pairs
            mixed = (_COHORT_WEIGHT * together[name[0]][0] + pairs[:, None] * own) / (_COHORT_WEIGHT + pairs[:, None])
            found[name] = mixed, float(pairs[-1])
        elif name[0] in together or FLEET[0] in together:
            found[name] = together.get(name[0]) or together[FLEET[0]]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedWindows:
    """The windows of W devices in one bank that have a baseline: rows (W,), contexts (W,), counts (W, S, 16).

    ``counts`` are those of ``samples`` (W, S) samples: of each device at most the median of its context.
    """

    devices: tuple[str, ...]
    rows: NDArray[np.int64]
    contexts: NDArray[np.int64]
    counts: Floats
    samples: Floats

    @classmethod
    def of(
        cls, bank: DetectorBank, window: Iterable[Observation], *, left_out: frozenset[str] = frozenset()
    ) -> JudgedWindows:  # fmt: skip
        """Return the observations of ``window`` that are judged, without those of the devices ``left_out``."""
        by_context: dict[int, list[Observation]] = {}
        for one in window:
            by_context.setdefault(one.context, []).append(one)
        seen = [one for alike in by_context.values() for one in bank.judged(alike) if one.device not in left_out]
        contexts = np.array([one.context for one in seen], np.int64)
        counts = (
            np.stack([one.counts for one in seen]).astype(np.float64) if seen else np.zeros((0, bank.streams, BINS))
        )
        n = counts.sum(axis=2)  # (W, S): invalid values are in no bin
        samples = n.copy()
        for context in np.unique(contexts):
            here = contexts == context
            samples[here] = np.minimum(n[here], np.median(n[here], axis=0))
        counts *= (samples / np.maximum(n, 1))[..., None]
        return cls(
            devices=tuple(one.device for one in seen),
            rows=np.array([bank.rows[one.device] for one in seen], np.int64),
            contexts=contexts,
            counts=counts,
            samples=samples,
        )

    def places(self) -> dict[str, list[int]]:
        """Return the indices of each device's windows."""
        found: dict[str, list[int]] = {}
        for place, device in enumerate(self.devices):
            found.setdefault(device, []).append(place)
        return found

    def whole(self, bank: DetectorBank, without: NDArray[np.int64] | None = None) -> dict[int, PoolSums]:
        """Return the sums over all windows, but for those at the places ``without``, by context."""
        left = np.ones(len(self.devices), np.bool_)
        if without is not None:
            left[without] = False
        contexts = np.unique(self.contexts[left]).tolist()
        return {one: self.sums(bank, np.flatnonzero(left & (self.contexts == one)), one) for one in contexts}

    def sums(self, bank: DetectorBank, places: NDArray[np.int64], context: int) -> PoolSums:
        """Return the sums over the windows at ``places``, all in ``context``."""
        own = bank.contexts[context]
        total, expected = np.zeros((2, *self.counts.shape[1:]))
        n, limit = np.zeros((2, bank.streams))
        memory, moved, trend = np.zeros((3, bank.columns.count))
        hours = np.zeros((bank.streams, HOURS))
        for first in range(0, len(places), ROWS):  # bounds the size of temporary arrays
            some = places[first : first + ROWS]
            rows, samples = self.rows[some], self.samples[some]
            total += self.counts[some].sum(axis=0)
            expected += np.einsum("ds,dsb->sb", samples, own.usual[rows])
            n += samples.sum(axis=0)
            limit = np.maximum(limit, (samples / np.maximum(own.n_effective[rows], 1)).max(axis=0))
            wide = samples[:, bank.columns.stream]
            memory += (wide * bank.memory[rows]).sum(axis=0)
            moved += ((wide * bank.ordinary[rows]) ** 2).sum(axis=0)
            trend += (wide * bank.trend[rows]).sum(axis=0)
            hours += samples.T @ own.hours[rows]
        return PoolSums(
            count=len(places), total=total, expected=expected, n=n, limit=limit, memory=memory, moved=moved,
            trend=trend, hours=hours,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSums:
    """Sums over the windows of ``count`` devices: counts (S, 16), what their baselines expect, samples ``n`` (S,).

    ``limit`` (S,): the largest share of a baseline's independent samples that one device uses; ``memory`` (K,): the
    sum of the devices' memories, by samples; ``moved`` (K,): of the squares of their ordinary movements times samples;
    ``trend`` (K,): of their trends, by samples; ``hours`` (S, 24): of the shares of their baselines at each hour.
    """

    count: int
    total: Floats
    expected: Floats
    n: Floats
    limit: Floats
    memory: Floats
    moved: Floats
    trend: Floats
    hours: Floats

    def without(self, fleets: Rhythm, hour: int) -> PoolSums:
        """Return the sums less the rhythm of the fleet; nothing of streams whose rhythm is not known at this hour."""
        return replace(self, total=self.total - fleets.apart(hour, self.hours, self.n)).only(fleets.known[hour])

    def only(self, streams: NDArray[np.bool_]) -> PoolSums:
        """Return the sums of these ``streams`` (S,), and nothing of the others."""
        return replace(
            self, n=np.where(streams, self.n, 0.0), total=np.where(streams[:, None], self.total, 0.0),
            expected=np.where(streams[:, None], self.expected, 0.0),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWindows:
    """What the pools of one bank are judged by in one slot; ``fleet``: the sums over all, by context.

    ``movement`` of the pools: a first weekend is added to it; ``noted``: of which pools and contexts this slot was.
    ``rhythm`` of the whole fleet, if it has one, and the ``hour`` of the day. ``unseen``: the slot is on a weekend and
    the fleet's baselines had none: like the devices, cohorts are not judged where most of the fleet moved.
    """

    bank: DetectorBank
    judged: JudgedWindows
    fleet: Mapping[int, PoolSums]
    movement: dict[PoolName, PoolMovement]
    weekend: bool
    between: Mapping[PoolName, tuple[Floats, float]]
    settings: DetectorSettings
    log_cap: float
    noted: set[tuple[PoolName, int]] = field(default_factory=set)
    rhythm: Rhythm | None = None
    hour: int = 0
    unseen: bool = False

    def step(
        self, pool: Pool | None, name: PoolName, places: NDArray[np.int64], *, without: NDArray[np.int64]
    ) -> Pool | None:
        """Return the pool after the windows at ``places`` (flagged devices left out); unchanged if too few came.

        Each context is compared with the members' baselines in that context, and with the rest of the fleet ``without``
        the windows at some places.
        """
        fleet = self.judged.whole(self.bank, without) if without.size else self.fleet
        contexts = self.judged.contexts[places]
        stages = np.sort(self.bank.stage[self.judged.rows[places]])
        stage = max(int(stages[(len(stages) - 1) // 2]) if stages.size else 0, pool.stage if pool else 0)
        if pool is not None and pool.stage != stage:
            pool = None
            self._forget_weekend(name)
        for context in np.unique(contexts):
            part = places[contexts == context]
            if len(part) >= MIN_MEMBERS:
                whole = fleet[int(context)]
                sums_ = whole if name == FLEET else self.judged.sums(self.bank, part, int(context))
                if not self._knows_the_day(name, int(context), sums_, whole):
                    continue
                trend = self._trend(name, sums_, whole)
                if self.unseen and _is_controlled(name, sums_.count, whole.count):
                    sums_ = sums_.only(~self.bank.shared[int(context)].held)
                if self.rhythm is not None and name == FLEET:
                    sums_ = sums_.without(self.rhythm, self.hour)
                older = pool or Pool.empty(self.bank.columns)
                gain, class_gain, aged = self._gains(name, sums_, whole, older.aged if pool else None, trend)
                pool = Pool(
                    log_m=update(older.log_m, gain, log_cap=self.log_cap),
                    recent=fade(older.recent, gain),
                    class_m=update(older.class_m, class_gain, log_cap=self.log_cap),
                    class_recent=fade(older.class_recent, class_gain),
                    aged=aged,
                    members=len(part),
                    stage=stage,
                    collecting=stage < FINAL and not _is_controlled(name, sums_.count, whole.count),
                )
        return pool

    def _knows_the_day(self, name: PoolName, context: int, own: PoolSums, whole: PoolSums) -> bool:
        """Return whether a pool can be judged today; without a rest of the fleet, a first weekend is only noted.

        Each slot counts once, however many contexts it has and however often the pool is judged in it.
        """
        if not self.weekend or _is_controlled(name, own.count, whole.count):
            return True
        older = self.movement.get(name) or PoolMovement.empty(self.bank.columns)
        if older.weekend_windows * self.settings.window_ms >= _DAY_MS:
            return True
        if (name, context) not in self.noted:
            fresh = all(name != seen for seen, _ in self.noted)
            self.noted.add((name, context))
            self.movement[name] = replace(
                older, weekend=older.weekend + own.total - own.expected, weekend_n=older.weekend_n + own.n,
                weekend_windows=older.weekend_windows + fresh,
            )  # fmt: skip
        return False

    def _forget_weekend(self, name: PoolName) -> None:
        """Drop the noted weekend of a pool that begins again: the baselines that are new now contain it."""
        if name in self.movement:
            fresh = PoolMovement.empty(self.bank.columns)
            self.movement[name] = replace(self.movement[name], weekend=fresh.weekend, weekend_n=fresh.weekend_n)

    def _trend(self, name: PoolName, own: PoolSums, whole: PoolSums) -> Floats:
        """Return by how much a pool's members, less the rest of the fleet, aged in their baselines (K,), in sd.

        Of all streams, also of those that are not judged in this slot.
        """
        stream = self.bank.columns.stream
        found = own.trend / np.maximum(own.n, 1e-9)[stream]
        if _is_controlled(name, own.count, whole.count):
            found = found - (whole.trend - own.trend) / np.maximum(whole.n - own.n, 1e-9)[stream]
        return np.asarray(found)

    def _gains(
        self, name: PoolName, own: PoolSums, whole: PoolSums, aged: Floats | None, trend: Floats
    ) -> tuple[Floats, Floats, Floats]:  # fmt: skip
        """Return the increments (S, 24) and (C, 80) of a pool whose members sum up to ``own``, and its ageing (K,).

        At first that is the ``trend`` (K,) in the second half of its members' baselines.
        """
        z, epsilon, columns = self.settings.z, self.settings.epsilon, self.bank.columns
        n = np.maximum(own.n, 1e-9)
        total, p = own.total, shares(own.expected)  # as even as can be in a stream without samples
        rest_ratio = np.zeros(self.bank.streams)
        if _is_controlled(name, own.count, whole.count):  # what the rest did is taken off
            rest = np.maximum(whole.n - own.n, 1e-9)
            moved = ((whole.total - own.total) - (whole.expected - own.expected)) / rest[:, None]
            total, rest_ratio = own.total - own.n[:, None] * moved, own.n / rest
        elif self.weekend and name in self.movement:
            seen = self.movement[name]
            total = total - own.n[:, None] * seen.weekend / np.maximum(seen.weekend_n, 1)[:, None]
        n_effective = 1 / np.maximum(own.limit / n, 1e-12)
        smoothed = proportions(p * n_effective[:, None])
        shape = shapes(smoothed)
        memory, moved_by = self._memory(name, own, rest_ratio)
        by_shape, by_class = columns.by_stream(memory)
        shape_moved, class_moved = columns.by_stream(moved_by)
        of_shapes = deviations(p, shape)
        moved_by_shape = shape_moved[:, list(SHAPE_MEMORY)] * of_shapes
        tolerance = moved_by_shape[..., None] * np.array(THETAS)
        either, of_both = np.stack([p, smoothed]), np.broadcast_to(shape, (2, *shape.shape))
        log_z = log_normaliser(either, n_effective[:, None], of_both, z=z, epsilon=epsilon).max(axis=0)
        log_z += tolerance.reshape(log_z.shape)
        classes = list(columns.classes)
        deviation = columns.joined(of_shapes[:, list(OWN_SHAPES)], np.sqrt(p[classes] * (1 - p[classes])))
        aged = trend * deviation if aged is None else aged
        # If the rest of the fleet moved alone, a cohort that did not move differs from it, but is not the cause.
        taken, class_taken = columns.by_stream(aged)
        taken = own.n[:, None] * taken[:, list(SHAPE_MEMORY)] * SHAPE_SIGNS
        gain = np.minimum(*(
            increments(sums(counts, shape) - taken, own.n, log_z, by_shape[:, list(SHAPE_MEMORY)])
            for counts in (own.total, total)
        ))  # fmt: skip
        apart = total / n[:, None] - p
        residuals = columns.joined(sums(apart, shape)[:, list(OWN_SHAPES)], apart[classes])
        followed = aged + np.where(own.n[columns.stream] > 0, ageing(residuals - aged, deviation), 0.0)
        if not classes:
            return gain, np.zeros((0, CLASS_TILTS)), followed
        class_n = np.broadcast_to(n_effective[classes, None], (len(classes), BINS))
        class_log_z = class_log_normaliser(either[:, classes], class_n, moved=class_moved, z=z, epsilon=epsilon).max(
            axis=0
        )
        class_gain = (
            class_increments(
                counts[classes] - own.n[classes, None] * class_taken, own.n[classes], class_log_z, by_class
            )
            for counts in (own.total, total)
        )
        return gain, np.minimum(*class_gain), followed

    def _memory(self, name: PoolName, own: PoolSums, rest_ratio: Floats) -> tuple[Floats, Floats]:
        """Return the memory of a pool (K,), and how far it ordinarily moves from day to day, in sd of a sample (K,)."""
        stream = self.bank.columns.stream
        wider = 1 + rest_ratio[stream]
        if name == FLEET and self.rhythm is not None:
            wider = wider * self.rhythm.wider
        memory = np.maximum(own.memory / np.maximum(own.n[stream], 1e-9), 1.0)
        of_devices = KAPPA * np.sqrt(own.moved) / np.maximum(own.n[stream], 1e-9)  # independent of each other
        if name not in self.between:
            return memory * wider, of_devices
        between, days = self.between[name]
        batch = np.array(LENGTHS)[:, None] * np.maximum(own.n[stream] / wider, 1e-9)
        excess = between * batch
        memory = np.maximum(memory, 1 + np.maximum(excess, 0.0)[list(_MEMORY_LENGTHS)].max(axis=0))
        moved = 2 * np.maximum(excess[-1] + 1 - memory, 0.0) / batch[-1]  # beyond what the memory explains
        from_days = KAPPA * _few_days(days) * np.sqrt(moved) if days >= _MIN_DAYS else 0.0
        return memory * wider, np.maximum(of_devices, from_days)


def _few_days(pairs: float) -> float:
    """Return how much wider a bound at 99.5 % must be that rests on so few pairs of days: Student's t over Gaussian.

    Source: exact for 2; M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if pairs <= _MIN_DAYS:
        return 3.853
    x, v = 2.5758, pairs
    g1, g2 = (x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96
    g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
    return (x + g1 / v + g2 / v**2 + g3 / v**3) / x
