"""How streams ordinarily move while baselines are collected: in batches of windows, in time.

Frames of one scene, hours of one weather and devices under one sun are not independent. This module measures by how
much: the differences of adjacent batches of 1 to 24 windows, compared with what independent samples would differ. For
a device they give its *memory*, the samples that one independent sample is worth; for a pool, over the mean of its
members, they also contain what the members have in common. Differences need no baseline, and slower movement does not
enter them.

Decides nothing about alarms. A batch of L windows is the slots of one multiple of L: a missing window makes a batch
smaller, and a gap of up to a day is bridged, which can only make movement larger.

Sources: J. von Neumann, Distribution of the ratio of the mean square successive difference to the variance, Annals of
Mathematical Statistics 12 (1941) 367-395; ``docs/explanation/drift.md``, "Memory" and "Pools".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from server.drift.detection.reference import Floats, Ints, Singles, shapes
from wire.histogram import BINS

LENGTHS = (1, 2, 4, 6, 8, 12, 24)
"""In windows; a device's memory uses those up to 6, a pool's all but 6, and the last is a day."""
_OF_DEVICES = 4
_SERIES = 3  # the place of the length whose batches show how far a stream ordinarily moves
_LAGS = (1, 2, 4, 8, 16, 32)  # batches of 6 windows: 6 hours to 8 days
_LONGEST = 2 / 3  # of a baseline, up to which movement is measured
_GAP = 24  # windows that two batches may lie apart and still count as adjacent
_FLEET_WEIGHT = 60.0  # pairs of batches that the fleet's mean is worth beside a device's own
_FLEET_DAYS = 20.0  # days of a device's own that the fleet's movement is worth
_SHORT_DAYS = 3.0  # days of a baseline whose own mean is as uncertain as one level
_RESTLESS = 4.0  # times the fleet's movement and noise: what a device moves beyond that is its own
_SILL_ERRORS, _SILL_DEVICES, _SILL_RATIO = 3.0, 8, 0.9  # growth in standard errors, and devices, that show it
_CHANCE_ERRORS = 2.0  # standard errors by which movement must exceed chance
_FEWEST = 4  # pairs of batches of 6 windows from which on movement is measured
_STILL = 1e-3  # variance below which a column stands still: what others share is no movement of its own
_ENOUGH = 8  # pairs of batches over the whole fleet, from which on a length is used
KAPPA = 3.5  # times as far as it ordinarily moves, a stream may move without evidence
_AGEING = 0.03  # standard deviations a day that a baseline follows
CONTROL_DEVICES = 8  # from so many devices on, what they share is taken off
Halves = NDArray[np.float16]
"""The precision of kept means, of size 1 to 2: an error of 0.001, where streams move by 0.03 and more."""
BASIS = np.concatenate([shapes(np.full(BINS, 1 / BINS))[[0, 2, 4]], np.eye(BINS)[[0, BINS - 1]]])
"""(5, 16): Legendre 1 to 3 and both end bins over even bins. Ratios to the variance hold for other shapes as well."""
SHAPES = len(BASIS)


@lru_cache(maxsize=64)
def _stream_of(streams: int, classes: tuple[int, ...]) -> NDArray[np.int64]:
    found = np.concatenate([np.repeat(np.arange(streams), SHAPES), np.repeat(classes, BINS)]).astype(int)
    found.flags.writeable = False
    return found


@dataclass(frozen=True, slots=True)
class ScoreColumns:
    """The K functions of a window's counts that are followed: 5 shapes of each stream, then each bin of class streams.

    ``streams``: how many; ``classes``: the places of the C streams whose value is a class.
    """

    streams: int
    classes: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """K."""
        return self.streams * SHAPES + len(self.classes) * BINS

    @property
    def stream(self) -> NDArray[np.int64]:
        """The stream of each column, (K,); not writeable."""
        return _stream_of(self.streams, self.classes)

    def sums(self, counts: Ints | Floats, *, power: int = 1) -> Floats:
        """Return the sums (..., K) of the functions, to the power of ``power``, over ``counts`` (..., S, 16)."""
        return self.joined(counts @ (BASIS**power).T, counts[..., list(self.classes), :])

    def variances(self, counts: Ints | Floats) -> Floats:
        """Return the variances (..., K) of the functions over the samples ``counts`` (..., S, 16)."""
        n = np.maximum(counts.sum(axis=-1), 1)[..., self.stream]
        return np.asarray(np.maximum(self.sums(counts, power=2) / n - (self.sums(counts) / n) ** 2, 0.0))

    def joined(self, of_shapes: Floats | Ints, of_classes: Floats | Ints) -> Floats:
        """Return the values (..., S, 5) of shapes and (..., C, 16) of classes as (..., K)."""
        lead, k = of_shapes.shape[:-2], self.streams * SHAPES
        flat = of_classes.reshape(*lead, self.count - k)
        return np.asarray(np.concatenate([of_shapes.reshape(*lead, k), flat], axis=-1), np.float64)

    def by_stream(self, values: Floats | Singles) -> tuple[Floats, Floats]:
        """Return ``values`` (..., K) as (..., S, 5) and (..., C, 16)."""
        lead, cut = values.shape[:-1], self.streams * SHAPES
        return (
            np.asarray(values[..., :cut].reshape(*lead, self.streams, SHAPES), np.float64),
            np.asarray(values[..., cut:].reshape(*lead, len(self.classes), BINS), np.float64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordinary:
    """How R devices moved while their baselines were collected; final, and stored with each.

    ``memory`` (R, K): samples for one independent one; ``movement`` (R, K): how far the mean of 6 windows ordinarily
    moves, in standard deviations of a sample. Of the device alone, before the fleet's were mixed in: ``ratios``
    (R, 4, K) by length, of ``pairs`` (R, 4) of batches; ``moved`` (R, 6, K): the mean squared differences by lag, in
    variances of a sample and beyond what the memory explains, and whether a lag was seen, ``lags`` (R, 6); ``trend``
    (R, K): by how many standard deviations of a sample the second half of the baseline lies above the first, at most
    what a baseline follows in half of that time; ``hours`` (R, 24): the shares of its samples at each hour of the day,
    all 0 for a baseline of an older version.
    """

    memory: Singles
    movement: Singles
    ratios: Singles
    pairs: Singles
    moved: Singles
    lags: Singles
    trend: Singles
    hours: Singles

    def of(self, row: int) -> Ordinary:
        """Return that of one device, R = 1."""
        return Ordinary(**{one.name: getattr(self, one.name)[row : row + 1] for one in fields(self)})

    @staticmethod
    def joined(parts: Sequence[Ordinary]) -> Ordinary:
        """Return that of all devices of ``parts``."""
        return Ordinary(**{
            one.name: np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Ordinary)
        })  # fmt: skip

    @staticmethod
    def layout(columns: ScoreColumns) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of one device, R = 1, in the order of the fields."""
        k, four, six = columns.count, _OF_DEVICES, len(_LAGS)
        return {
            "memory": (1, k), "movement": (1, k), "ratios": (1, four, k), "pairs": (1, four), "moved": (1, six, k),
            "lags": (1, six), "trend": (1, k), "hours": (1, LENGTHS[-1]),
        }  # fmt: skip


@dataclass(slots=True, kw_only=True)
class FleetMovement:
    """Sums over all devices with a baseline of what ``Ordinary`` has of each alone; arrays are never changed in place.

    ``growth`` and ``growth_squares`` (5, K): by how much the movement differs from one lag to the next.
    """

    ratios: Floats
    pairs: Floats
    pair_devices: Floats
    moved: Floats
    lag_devices: Floats
    growth: Floats
    growth_squares: Floats

    @classmethod
    def empty(cls, columns: ScoreColumns) -> FleetMovement:
        """Return the sums over no device."""
        four, six, k = _OF_DEVICES, len(_LAGS), columns.count
        return cls(
            ratios=np.zeros((four, k)), pairs=np.zeros(four), pair_devices=np.zeros(four), moved=np.zeros((six, k)),
            lag_devices=np.zeros(six), growth=np.zeros((six - 1, k)), growth_squares=np.zeros((six - 1, k)),
        )  # fmt: skip

    def add(self, one: Ordinary, *, times: float = 1.0) -> None:
        """Add devices; with ``times`` -1 take away what was added before, because they are measured again."""
        self.add_ratios(one.ratios.astype(np.float64), one.pairs.astype(np.float64), times=times)
        self.add_moved(one.moved.astype(np.float64), one.lags.astype(np.float64), times=times)

    def add_ratios(self, ratios: Floats, pairs: Floats, *, times: float = 1.0) -> None:
        """Add the own ``ratios`` (R, 4, K) of ``pairs`` (R, 4) of devices."""
        self.ratios = self.ratios + times * np.where((pairs > 0)[..., None], ratios, 0.0).sum(axis=0)
        self.pairs = self.pairs + times * pairs.sum(axis=0)
        self.pair_devices = self.pair_devices + times * (pairs > 0).sum(axis=0)

    def add_moved(self, moved: Floats, lags: Floats, *, times: float = 1.0) -> None:
        """Add the own movement ``moved`` (R, 6, K) of devices, at the lags that were seen, ``lags`` (R, 6)."""
        self.moved = self.moved + times * (moved * lags[..., None]).sum(axis=0)
        self.lag_devices = self.lag_devices + times * lags.sum(axis=0)
        steps = (moved[:, 1:] - moved[:, :-1]) * lags[:, 1:, None]
        self.growth = self.growth + times * steps.sum(axis=0)
        self.growth_squares = self.growth_squares + times * (steps**2).sum(axis=0)

    def memory(self, ratios: Floats, pairs: Floats) -> Floats:
        """Return the memory (R, K) of devices with own ``ratios`` (R, 4, K) of ``pairs`` (R, 4): shrunk to the fleet.

        A device's own ratio comes from few pairs of batches; the fleet's mean counts as 60 more.
        """
        fleet = self.ratios / np.maximum(self.pair_devices, 1)[:, None]
        weight = pairs[..., None]
        mixed = (_FLEET_WEIGHT * fleet + weight * ratios) / (_FLEET_WEIGHT + weight)
        used = np.where((self.pairs >= _ENOUGH)[:, None], mixed, 1.0)
        return np.asarray(np.maximum(used.max(axis=1), 1.0))

    def movement(self, moved: Floats, lags: Floats, noise: Floats, days: Floats) -> Floats:
        """Return how far devices ordinarily move (R, K), in standard deviations of a sample: shrunk to the fleet.

        ``moved`` (R, 6, K) at ``lags`` (R, 6); ``noise`` (R, K): the part of it by chance that was taken off; ``days``
        (R,) of the baselines. If the fleet's movement still grows at the longest lag, it has not been seen whole: it
        is carried on to where it would end. A restless device keeps most of its own movement. Two levels differ by
        twice the variance of one; a baseline of three days may lie as far off as a level, a longer one less.

        Movement counts only beyond two standard errors of its estimate: the largest of several lags, of many streams,
        would else be one of chance alone, and its square root, 3.5 times, would hide faults of half a standard
        deviation where samples remember. A difference of two batches varies as twice its mean squared; those that
        share a batch make it half as much again.
        """
        pairs = np.maximum(LENGTHS[-1] / LENGTHS[_SERIES] * days[:, None] - np.array(_LAGS), 1.0)
        errors = _CHANCE_ERRORS * noise[:, None] * np.sqrt(3 / pairs)[..., None]
        by_chance = errors.mean(axis=0) / np.sqrt(np.maximum(self.lag_devices, 1))[:, None]
        fleet = np.maximum(self.moved / np.maximum(self.lag_devices, 1)[:, None] - by_chance, 0.0)
        moved = np.maximum(moved - errors, 0.0)
        level = np.minimum(0.5 * (1 + _SHORT_DAYS / days), 1.0)[:, None]
        own, days = np.where(lags[..., None] > 0, moved, 0.0), days[:, None, None]
        seen = days * lags[..., None]  # of a lag that is longer than its own baseline, a device knows nothing
        mixed = ((_FLEET_DAYS * fleet + seen * own) / (_FLEET_DAYS + seen)).max(axis=1)
        whole, own = fleet.max(axis=0), own.max(axis=1)
        last = int(np.flatnonzero(self.lag_devices)[-1]) if self.lag_devices.any() else 0
        count = self.lag_devices[last]
        if last and count >= _SILL_DEVICES:
            growth = self.growth[last - 1] / count
            error = np.sqrt(np.maximum(self.growth_squares[last - 1] / count - growth**2, 0.0) / count)
            before = np.maximum(fleet[last - 1], 1e-12)
            carried = before / (1 - np.clip(fleet[last] / before - 1, 0.0, _SILL_RATIO))
            whole = np.where(growth > _SILL_ERRORS * error, np.maximum(whole, carried), whole)
        mixed = np.maximum(mixed, (_FLEET_DAYS * whole + days[:, 0] * own) / (_FLEET_DAYS + days[:, 0]))
        mixed = np.maximum(mixed, own - _RESTLESS * (whole + noise))
        return np.asarray(np.sqrt(level * np.maximum(mixed, 0.0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Adjacent batches of one length that ended in this slot, of R devices: what pools learn from.

    ``length``: the place in ``LENGTHS``; ``rows`` (R,) in the ``Movement``; ``differences`` (R, K) of the means;
    ``samples`` (R, K): n n' / (n + n') of the two batches; ``variances`` (R, K) of a sample; ``number`` of the later
    batch. Of single windows also ``steps`` (R, S, 16): by how much the shares of bins differ from the window before,
    and ``step_samples`` (R, S): n n' / (n + n'), 0 if that window is missing.
    """

    length: int
    number: int
    rows: NDArray[np.int64]
    differences: Singles
    samples: Singles
    variances: Singles
    steps: Singles | None = None
    step_samples: Singles | None = None


@dataclass(slots=True, kw_only=True)
class Movement:
    """The batches of the devices that collect a baseline in one context: M devices, K columns, seven lengths.

    ``number`` and ``before`` (7, M): the number of the open batch and of the last one, -1 for none; ``open`` (7, M, K)
    sums and ``open_n`` (7, M, S) samples so far; ``mean`` and ``mean_n`` of the batch before. ``total`` and
    ``squares`` (M, K): the sums of all windows, ``n`` (M, S) samples; ``spread`` (4, M, K): the sums of squared
    differences, weighted, and ``pairs`` (4, M) their number. ``window`` and ``latest`` (M, S, 16): the shares of bins
    in the open window and in the one before; ``hours`` (M, 24): the samples at each hour of the day, if windows are
    hours.
    ``series``: the means (M, K) of each batch of six windows by its number, NaN for none, less what the devices
    shared up to then: ``levels``, and the latest ``level`` (K,).
    """

    columns: ScoreColumns
    devices: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    number: Ints = field(init=False)
    before: Ints = field(init=False)
    open: Singles = field(init=False)
    open_n: Singles = field(init=False)
    mean: Singles = field(init=False)
    mean_n: Singles = field(init=False)
    total: Singles = field(init=False)
    squares: Singles = field(init=False)
    n: Singles = field(init=False)
    spread: Singles = field(init=False)
    pairs: Singles = field(init=False)
    window: Halves = field(init=False)
    latest: Halves = field(init=False)
    hours: Singles = field(init=False)
    series: dict[int, Halves] = field(default_factory=dict)
    levels: dict[int, Floats] = field(default_factory=dict)
    level: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Create the arrays, without devices."""
        for name, (lead, width, kind, _) in self.layout(self.columns).items():
            setattr(self, name, np.zeros((*lead, 0, *width), kind))
        self.level = np.zeros(self.columns.count)

    @staticmethod
    def layout(columns: ScoreColumns) -> Mapping[str, tuple[tuple[int, ...], tuple[int, ...], str, float]]:
        """Return for each array the axes before and after that of the devices, the type, and the value at first."""
        seven, four = (len(LENGTHS),), (_OF_DEVICES,)
        k, s = (columns.count,), (columns.streams,)
        return {
            "number": (seven, (), "<i8", -1), "before": (seven, (), "<i8", -1),
            "open": (seven, k, "<f4", 0), "open_n": (seven, s, "<f4", 0),
            "mean": (seven, k, "<f4", 0), "mean_n": (seven, s, "<f4", 0),
            "total": ((), k, "<f4", 0), "squares": ((), k, "<f4", 0), "n": ((), s, "<f4", 0),
            "spread": (four, k, "<f4", 0), "pairs": (four, (), "<f4", 0),
            "window": ((), (columns.streams, BINS), "<f2", 0), "latest": ((), (columns.streams, BINS), "<f2", 0),
            "hours": ((), (LENGTHS[-1],), "<f4", 0),
        }  # fmt: skip

    def admit(self, devices: Sequence[str]) -> None:
        """Add ``devices`` that are not followed yet."""
        fresh = [device for device in devices if device not in self.rows]
        if not fresh:
            return
        for name, (lead, width, kind, value) in self.layout(self.columns).items():
            more = np.full((*lead, len(fresh), *width), value, kind)
            setattr(self, name, np.concatenate([getattr(self, name), more], axis=len(lead)))
        none = np.full((len(fresh), self.columns.count), np.nan, np.float16)
        self.series = {number: np.concatenate([means, none]) for number, means in self.series.items()}
        self.rows |= {device: len(self.devices) + place for place, device in enumerate(fresh)}
        self.devices.extend(fresh)

    def drop(self, devices: Sequence[str]) -> None:
        """Stop following ``devices``."""
        gone = {self.rows[device] for device in devices if device in self.rows}
        if not gone:
            return
        kept = [row for row in range(len(self.devices)) if row not in gone]
        for name, (lead, *_) in self.layout(self.columns).items():
            setattr(self, name, np.take(getattr(self, name), kept, axis=len(lead)))
        self.series = {number: means[kept] for number, means in self.series.items()}
        self.devices = [self.devices[row] for row in kept]
        self.rows = {device: row for row, device in enumerate(self.devices)}

    def copy(self) -> Movement:
        """Return an independent copy."""
        twin = Movement(columns=self.columns)
        twin.devices, twin.rows = list(self.devices), dict(self.rows)
        for name in self.layout(self.columns):
            setattr(twin, name, getattr(self, name).copy())
        twin.series, twin.levels, twin.level = (
            dict(self.series),
            dict(self.levels),
            self.level,
        )  # their arrays are never changed in place
        return twin

    def close(self, slot: int) -> list[Pairs]:
        """End every batch before ``slot``, note the differences, and return them for the pools."""
        found = []
        for place, length in enumerate(LENGTHS):
            done = np.flatnonzero((self.number[place] >= 0) & (self.number[place] < slot // length))
            if not done.size:
                continue
            n = self.open_n[place, done]
            mean = self.open[place, done] / np.maximum(n, 1)[:, self.columns.stream]
            apart = self.number[place, done] - self.before[place, done]
            adjacent = (self.before[place, done] >= 0) & (apart <= max(_GAP // length, 1))
            if adjacent.any():
                rows = done[adjacent]
                n_before = self.mean_n[place, rows]
                of_streams = n[adjacent] * n_before / np.maximum(n[adjacent] + n_before, 1)
                samples = of_streams[:, self.columns.stream]
                differences = np.where(samples > 0, mean[adjacent] - self.mean[place, rows], 0.0).astype(np.float32)
                all_of_it = np.maximum(self.n[rows], 1)[:, self.columns.stream]
                variances = self.squares[rows] / all_of_it - (self.total[rows] / all_of_it) ** 2
                steps = self.window[rows] - self.latest[rows].astype(np.float32) if length == 1 else None
                found.append(Pairs(
                    length=place, number=int(self.number[place, done].max()), rows=rows, differences=differences,
                    samples=samples, variances=np.maximum(variances, 0.0), steps=steps,
                    step_samples=of_streams * (apart[adjacent] == 1)[:, None] if length == 1 else None,
                ))  # fmt: skip
                if place < _OF_DEVICES:
                    common, _ = shared(differences)
                    self.spread[place, rows] += samples * (differences - common) ** 2
                    self.pairs[place, rows] += 1
                    self.level = self.level + common if place == _SERIES else self.level
            if place == _SERIES:
                newest = int(self.number[place, done].max())
                here = done[self.number[place, done] == newest]
                means = np.full((len(self.devices), self.columns.count), np.nan, np.float16)
                means[here] = mean[self.number[place, done] == newest] - self.level
                self.series, self.levels = {**self.series, newest: means}, {**self.levels, newest: self.level}
            if length == 1:
                self.latest[done] = self.window[done]
            self.mean[place, done], self.mean_n[place, done] = mean, n
            self.before[place, done], self.number[place, done] = self.number[place, done], -1
            self.open[place, done], self.open_n[place, done] = 0.0, 0.0
        return found

    def add(self, slot: int, devices: Sequence[str], counts: Ints) -> None:
        """Add one window of each of ``devices``, counts (R, S, 16), to the batches of ``slot``, after ``close``."""
        rows = np.array([self.rows[device] for device in devices], np.int64)
        total, n = self.columns.sums(counts), counts.sum(axis=-1)
        self.total[rows] += total
        self.squares[rows] += self.columns.sums(counts, power=2)
        self.n[rows] += n
        self.window[rows] = counts / np.maximum(n, 1)[..., None]
        self.hours[rows, slot % LENGTHS[-1]] += n.max(axis=-1)
        for place, length in enumerate(LENGTHS):
            self.open[place, rows] += total
            self.open_n[place, rows] += n
            self.number[place, rows] = slot // length

    def ordinary(self, devices: Sequence[str], counts: Ints, windows: Ints, fleet: FleetMovement) -> Ordinary:
        """Return how ``devices`` moved whose baselines, ``counts`` (R, S, 16) of ``windows`` (R,), are complete now.

        They are added to ``fleet``, and then shrunk to it.
        """
        rows, stream = [self.rows[device] for device in devices], self.columns.stream
        pairs, variances = self.pairs[:, rows].T.astype(np.float64), self.columns.variances(counts)[:, None]
        variances = np.where(variances < _STILL, 0.0, variances)
        one = np.where(variances > 0, variances, 1.0)
        mean = np.moveaxis(self.spread[:, rows], 0, 1) / np.maximum(pairs, 1)[..., None]
        ratios = np.where((variances > 0) & (pairs[..., None] > 0), mean / one, 1.0)
        ratios = ratios.astype(np.float32).astype(np.float64)  # as it is kept, so that it can be taken away again
        fleet.add_ratios(ratios, pairs)
        memory = fleet.memory(ratios, pairs)
        batch = LENGTHS[_SERIES] * np.maximum(counts.sum(axis=-1) / windows[:, None], 1e-9)[:, stream]
        noise = 2 * memory / batch
        moved, lags = np.zeros((len(rows), len(_LAGS), self.columns.count)), np.zeros((len(rows), len(_LAGS)))
        for place, lag in enumerate(_LAGS):
            seen, squares = np.zeros(len(rows)), np.zeros((len(rows), self.columns.count))
            for number, means in self.series.items():  # one after the other: all together need much memory
                if number + lag in self.series:
                    apart = self.series[number + lag][rows].astype(np.float32) - means[rows]
                    known = ~np.isnan(apart[:, 0])
                    seen, squares = seen + known, squares + np.where(known[:, None], apart, 0.0) ** 2
            squares /= np.maximum(seen, 1)[:, None]
            enough = pairs[:, _SERIES] >= _FEWEST
            lags[:, place] = enough & (seen > 0) & (lag * LENGTHS[_SERIES] <= _LONGEST * windows)
            moved[:, place] = np.where(variances[:, 0] > 0, squares / one[:, 0] - noise, 0.0) * lags[:, place, None]
        moved = moved.astype(np.float32).astype(np.float64)
        fleet.add_moved(moved, lags)
        most = _AGEING / 2 * windows / LENGTHS[-1]
        trend = np.clip(self._trend(rows, int(windows.max())) / np.sqrt(one[:, 0]), -most[:, None], most[:, None])
        return Ordinary(
            trend=np.where(variances[:, 0] > 0, trend, 0.0).astype(np.float32),
            memory=memory.astype(np.float32),
            movement=fleet.movement(moved, lags, noise, windows / LENGTHS[-1]).astype(np.float32),
            ratios=ratios.astype(np.float32),
            pairs=pairs.astype(np.float32),
            moved=moved.astype(np.float32),
            lags=lags.astype(np.float32),
            hours=self.hours[rows] / np.maximum(self.hours[rows].sum(axis=1, keepdims=True), 1),
        )

    def _trend(self, rows: Sequence[int], windows: int) -> Floats:
        """Return by how much the second half of the last ``windows`` lies above the first, (R, K); 0 if unknown."""
        numbers = sorted(self.series)[-max(windows // LENGTHS[_SERIES], 1) :]
        halves = []
        for half in (numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]):
            means = np.array([self.series[number][rows].astype(np.float64) + self.levels[number] for number in half])
            known = ~np.isnan(means)
            halves.append((np.where(known, means, 0.0).sum(axis=0), known.sum(axis=0)))
        (first, some), (second, others) = halves
        return np.where((some > 0) & (others > 0), second / np.maximum(others, 1) - first / np.maximum(some, 1), 0.0)


def ageing(residuals: Floats | Singles, deviation: Floats) -> Floats:
    """Return how far a baseline follows in one window what is left of ``residuals`` (..., K): a slow change.

    At most .03 of the standard ``deviation`` of a sample in a day.
    """
    most = _AGEING * deviation / LENGTHS[-1]
    return np.asarray(np.clip(residuals / LENGTHS[-1], -most, most))


def shared(residuals: Floats | Singles, samples: Floats | None = None) -> tuple[Floats, Floats]:
    """Return what D devices share: the median over them of ``residuals`` (D, K), (K,), 0 where it may be chance.

    Two standard errors of the median are taken off, so that a fleet that shares nothing is not disturbed; fewer than
    8 devices share nothing. ``samples`` (K,) of a window: of counts the median lies up to ln 2 from the mean, so up to
    there nothing is shared (K. Hamza, Statistics & Probability Letters 23 (1995) 21-25). The second value (K,) is the
    spread of the devices, as a standard deviation.
    """
    if len(residuals) < CONTROL_DEVICES:
        return np.zeros(residuals.shape[1:]), np.ones(residuals.shape[1:])
    middle: Floats = np.median(residuals.astype(np.float64), axis=0)
    deviation = 1.4826 * np.median(np.abs(residuals - middle), axis=0)  # the standard deviation, if Gaussian
    chance = 2 * 1.2533 * deviation / np.sqrt(len(residuals))
    if samples is not None:
        middle = np.where(np.abs(middle) > np.log(2) / np.maximum(samples, 1), middle, 0.0)
    return np.asarray(np.sign(middle) * np.maximum(np.abs(middle) - chance, 0.0)), np.asarray(deviation)
