"""Fleets whose samples, hours and devices depend on each other, without and with drift: rows of ``drift.py``.

Every null fleet has no drift, only what the world does: memory within and between hours, day and night, weekends,
weather of one device or of all, a common shock, ageing, scenes that stay, another rate, restless devices, repeated
frames, odd distributions. Beside each stands how often the detector alarmed there that knew nothing of dependence
(November, 42f48ee), and for drift when it found it. Compared with the usual rules on the same windows: PSI > 0.2,
chi-squared against the baseline with Bonferroni over devices and streams at the same budget, ADWIN (Bifet, Gavalda
2007; delta 0.002) and Page-Hinkley (delta 0.005, threshold 50) on the standardised means of windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from scripts.bench.scenarios import Scenario
from server.drift.config import DriftConfig
from server.drift.detection.baseline import FINAL
from server.drift.detection.detector_bank import Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.pools import FLEET
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot
from server.drift.rows import psi
from wire.histogram import BINS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
KEY = ("c" * 32, "d" * 32)
MONDAY = 96  # in hours since 1 January 1970, a Thursday
WEEK, _SATURDAY = 168, 120  # hours, from Monday
NULLS = (
    "independent", "memory 10 minutes", "memory 100 minutes", "memory 8 hours", "day and night, common",
    "day and night, own phase", "weekend", "own weather", "common weather", "common shock", "ageing",
    "scenes of 8 hours", "scenes of 100 hours", "ten times the rate", "restless devices", "constant", "few a window",
    "class scenes of 8 hours", "day and night, strong", "weekend and few samples", "ageing of a few", "hourly effect",
    "each frame ten times", "one a window, or none", "rates of 3 to 1,500", "int8 codes", "zero-inflated",
)  # fmt: skip
BEFORE: Mapping[str, float] = {
    "memory 100 minutes": 8.6, "memory 8 hours": 14.5, "weekend": 21.4, "weekend and few samples": 15.5,
    "ageing": 15.8, "own weather": 11.5, "common weather": 10.1, "scenes of 8 hours": 22.8, "scenes of 100 hours": 9.5,
    "ten times the rate": 440.0,
}  # fmt: skip
"""Alerts a day of devices before the detector knew of dependence, after 3 days; 0 in the others that were measured."""
_MEMORY = {"memory 10 minutes": 0.9, "memory 100 minutes": 0.99, "memory 8 hours": 0.998, "ten times the rate": 0.8}
_EDGES = np.array([NormalDist().inv_cdf(i / BINS) for i in range(1, BINS)])
_GRID = np.linspace(-9, 9, 4001)
_BELOW = np.array([NormalDist().cdf(x) for x in _GRID])
CLASSES = 10


def remembering(noise: Floats, before: Floats, rho: float) -> Floats:
    """Return samples (D, S, N) of which each keeps ``rho`` of the one before it; ``before`` (D, S): the last so far."""
    found = np.empty(noise.shape)
    for i in range(noise.shape[-1]):
        found[..., i] = before = rho * before + math.sqrt(1 - rho**2) * noise[..., i]
    return found


def shares_of(level: Floats | float, sd: Floats | float) -> Floats:
    """Return the bin probabilities (..., 16) of Gaussian streams of mean ``level`` and standard deviation ``sd``."""
    below = np.interp((_EDGES - np.asarray(level)[..., None]) / np.asarray(sd)[..., None], _GRID, _BELOW)
    ends = np.zeros((*below.shape[:-1], 1))
    return np.maximum(np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1), 0)


def _is_weekend(hour: int) -> bool:
    return (hour // 24 + 3) % 7 >= 5  # noqa: PLR2004 - Saturday and Sunday; 1 January 1970 was a Thursday


def binned(values: Floats, edges: Floats) -> NDArray[np.int64]:
    """Return the bin counts (D, S, 16) of samples (D, S, N); ``edges`` (15,): between the bins."""
    devices, streams, n = values.shape
    rows = np.repeat(np.arange(devices * streams) * BINS, n)
    bins = np.searchsorted(edges, values.ravel(), side="right") + rows
    return np.bincount(bins, minlength=devices * streams * BINS).reshape(devices, streams, BINS)


@dataclass(slots=True, kw_only=True)
class DependentFleet:
    """A simulated fleet: Gaussian streams, the last of them ten classes; ten devices a site, four kinds of hardware.

    ``spread`` and ``far`` (D, S): drift that is no shift: the standard deviation, and the share of samples far out.
    """

    kind: str
    devices: int
    streams: int
    seed: int
    samples: int = 60
    dice: np.random.Generator = field(init=False)
    offset: Floats = field(init=False)
    own: Floats = field(init=False)
    common: Floats = field(init=False)
    last: Floats = field(init=False)
    scene: Floats = field(init=False)
    phase: Floats = field(init=False)
    spread: Floats = field(init=False)
    far: Floats = field(init=False)

    def __post_init__(self) -> None:
        """Draw the constants of the fleet."""
        self.dice = np.random.default_rng(self.seed)
        shape = (self.devices, self.streams)
        self.offset = self.dice.normal(0, 0.3, shape)
        self.own, self.common = self.dice.standard_normal(shape), self.dice.standard_normal(self.streams)
        self.last, self.scene = self.dice.standard_normal(shape), self.dice.normal(0, 0.8, shape)
        self.phase = self.dice.uniform(0, 1, self.devices)
        self.spread, self.far = np.ones(shape), np.zeros(shape)

    @property
    def places(self) -> dict[str, dict[str, str]]:
        """The attributes of the devices by name."""
        return {f"d{i:05d}": {"site": f"site {i // 10}", "hardware": f"hw {i % 4}"} for i in range(self.devices)}

    def _level(self, hour: int) -> Floats:  # noqa: C901 - one line for each world
        """Return the mean of each stream in this hour, (D, S)."""
        found, keep = np.zeros((self.devices, self.streams)), math.exp(-1 / 24)
        self.own = keep * self.own + math.sqrt(1 - keep**2) * self.dice.standard_normal(self.own.shape)
        self.common = keep * self.common + math.sqrt(1 - keep**2) * self.dice.standard_normal(self.streams)
        match self.kind:
            case "day and night, common":
                found += 0.5 * math.sin(math.tau * hour / 24)
            case "day and night, strong":
                found += math.sin(math.tau * hour / 24)
            case "day and night, own phase":
                found += 0.5 * np.sin(math.tau * (hour / 24 + self.phase))[:, None]
            case "weekend":
                found[:, 0] += 0.5 * _is_weekend(hour)
            case "weekend and few samples":
                found[:, 0] += 0.3 * _is_weekend(hour)
            case "own weather":
                found += 0.3 * self.own
            case "restless devices":  # one in twenty moves five times as far
                found += self.own * np.where(np.arange(self.devices) % 20 == 7, 0.5, 0.1)[:, None]  # noqa: PLR2004
            case "common weather":
                found[:, 0] += 0.3 * self.common[0]
            case "common shock":
                found += self.dice.normal(0, 0.1, self.streams)
            case "ageing":
                found += 0.02 * (hour - MONDAY) / 24
            case "ageing of a few":
                found += 0.02 * (hour - MONDAY) / 24 * (np.arange(self.devices) % 20 == 7)[:, None]  # noqa: PLR2004
            case "hourly effect":
                found += self.dice.normal(0, 0.3, found.shape)
        return found

    def _sizes(self, hour: int) -> Ints:
        """Return how many samples each device takes in this hour, (D,)."""
        match self.kind:
            case "one a window, or none":
                return self.dice.poisson(1, self.devices)
            case "rates of 3 to 1,500":
                return np.geomspace(3, 1500, self.devices).astype(np.int64)
            case "weekend and few samples" if _is_weekend(hour):
                return np.full(self.devices, self.samples // 4)
            case "each frame ten times":
                return np.full(self.devices, self.samples // 10)
        return np.full(self.devices, self.samples)

    def counts(self, hour: int, shift: Floats | float = 0.0, classes: Floats | None = None) -> NDArray[np.int64]:
        """Return the bin counts (D, S, 16) of one hour.

        ``shift`` broadcasts to (D, S); ``classes`` (D, 10): the shares of the classes, else all alike.
        """
        n = self._sizes(hour)
        if self.kind in _MEMORY:
            found = self._remembering(self.samples, shift)
        else:
            sd, level = self.spread, self._level(hour) + self.offset + shift
            if self.kind.startswith("scenes"):
                new = self.dice.random(self.devices) < 1 / float(self.kind.split()[2])
                self.scene[new] = self.dice.normal(0, 0.8, (int(new.sum()), self.streams))
                sd, level = 0.6 * sd, level + self.scene
            p = shares_of(level, sd)
            match self.kind:
                case "int8 codes":  # half of the bins have no code
                    p[..., 0::2], p[..., 1::2] = p[..., 0::2] + p[..., 1::2], 0
                case "zero-inflated":
                    p = 0.3 * p + 0.7 * np.eye(BINS)[0]
            p = (1 - self.far[..., None]) * p + self.far[..., None] * np.eye(BINS)[-1]
            found = self.dice.multinomial(np.broadcast_to(n[:, None], level.shape), p / p.sum(axis=-1, keepdims=True))
        if self.kind == "constant":
            found[:, :-1] = 0
            found[:, :-1, 3] = self.samples
        p = np.full((self.devices, CLASSES), 1 / CLASSES) if classes is None else classes
        if self.kind == "class scenes of 8 hours":
            seen = (np.abs(self.phase * 1000 + hour / 8).astype(int) * 7919) % CLASSES
            p = 0.7 * p + 0.3 * np.eye(CLASSES)[seen]
        found[:, -1] = 0
        found[:, -1, :CLASSES] = self.dice.multinomial(n, p)
        return 10 * found if self.kind == "each frame ten times" else found

    def _remembering(self, n: int, shift: Floats | float) -> NDArray[np.int64]:
        noise = np.moveaxis(self.dice.standard_normal((n, self.devices, self.streams)), 0, -1)
        values = remembering(noise, self.last, _MEMORY[self.kind] ** (60 / max(n, 60)))
        self.last = values[..., -1]
        return binned(values + (self.offset + shift)[..., None], _EDGES)


@dataclass(slots=True, kw_only=True)
class DependentRun:
    """The server's own code over a ``DependentFleet``, one hour after the other.

    ``windows`` of a baseline; devices are judged after ``provisional`` of them, 0: not before the last.
    ``releases``: how many the devices run, by turns.
    """

    fleet: DependentFleet
    windows: int = 72
    provisional: int = 0
    releases: int = 1
    hour: int = MONDAY
    """The first slot."""
    state: FoldState = field(default_factory=FoldState)
    seen: list[NDArray[np.int64]] = field(default_factory=list)

    def window(
        self, shift: Floats | float = 0.0, classes: Floats | None = None, only: Sequence[int] | None = None
    ) -> SlotOutcome:
        """Let one hour pass; ``only`` these devices send a window."""
        columns = ScoreColumns(self.fleet.streams, (self.fleet.streams - 1,))
        keys = [KEY, *((f"{number:032x}", KEY[1]) for number in range(1, self.releases))]
        for key in keys:
            self.state.open_bank(key, columns, None)
        counts = self.fleet.counts(self.hour, shift, classes)
        self.seen.append(counts)
        config = replace(DriftConfig(), baseline_windows=self.windows, provisional_windows=self.provisional)
        places, settings = self.fleet.places, config.settings
        names = list(places)
        windows: dict[tuple[str, str], list[Observation]] = {}
        for i in range(len(names)) if only is None else only:
            windows.setdefault(keys[i % self.releases], []).append(Observation(names[i], counts[i]))
        outcome = fold_slot(self.state, self.hour, windows, places, settings)
        self.hour += 1
        return outcome

    def commission(self) -> DependentRun:
        """Collect the baselines."""
        for _ in range(self.windows):
            self.window()
        return self


def _first_hour(before: int, after: int) -> int:
    """Return when a run of ``after`` judged hours begins: a Monday, or so that a weekend follows those ``before``."""
    return MONDAY if before + after >= WEEK else MONDAY + _SATURDAY - before


def null_row(fleet: DependentFleet, windows: int, hours: int) -> dict[str, float]:
    """Return alerts that begin per day, of devices and of pools, and those of the usual rules, without drift."""
    run = DependentRun(fleet=fleet, windows=windows, hour=_first_hour(windows, hours)).commission()
    if fleet.kind == "ten times the rate":
        fleet.samples *= 10
    devices = pools = 0
    before = SlotOutcome()
    for _ in range(hours):
        outcome = run.window()
        devices += len(outcome.flagged - before.flagged)
        pools += len(outcome.pool_alarms - before.pool_alarms)
        before = outcome
    days = hours / 24
    rivals = {f"{name}_a_day": _begun(alarms) / days for name, alarms in usual_rules(run.seen, windows).items()}
    return {"device_alerts_a_day": devices / days, "pool_alarms": pools, **rivals, "fleet_days": days}


def _begun(alarms: NDArray[np.bool_]) -> int:
    """Return how often a device begins to alarm in ``alarms`` (T, D)."""
    return int((alarms & ~np.concatenate([np.zeros_like(alarms[:1]), alarms[:-1]])).sum())


STAGED = (*NULLS, "devices that join later", "gaps", "two releases")


STAGES = (72, 336)
"""Windows until a first baseline and until the complete one, as by default."""


def staged_row(kind: str, fleet: DependentFleet, days: int, stages: tuple[int, int] = STAGES) -> dict[str, float]:
    """Return alerts that begin per day without drift: provisional ones, and those of ``days`` after commissioning.

    In fleets of own weather, a third of the devices joins after five and after sixteen days (of fourteen of a
    baseline), each device misses one window in five and in turn a whole day, or half of the devices run another
    release.
    """
    first, last = stages
    run = DependentRun(
        fleet=fleet, windows=last, provisional=first, releases=1 + (kind == "two releases"),
        hour=_first_hour(first, last - first + days * 24),
    )  # fmt: skip
    begun = {"provisional": 0, "device": 0, "provisional pool": 0, "pool": 0}
    before = SlotOutcome()
    for hour in range(last + days * 24):
        some = range(fleet.devices)
        if kind == "devices that join later":
            some = [i for i in some if 14 * hour >= (0, 5, 0, 0, 16, 0)[i % 6] * last]
        elif kind == "gaps":
            some = [i for i in some if (hour + i) % 5 and (hour // 24 + i) % 10]
        outcome = run.window(only=some)
        for device in outcome.flagged - before.flagged:
            begun["provisional" if device in outcome.provisional else "device"] += 1
        for pool in outcome.pool_alarms - before.pool_alarms:
            begun["pool" if run.state.pools[pool].stage == FINAL else "provisional pool"] += 1
        before = outcome
    return {
        "provisional_alerts_a_day": begun["provisional"] * 24 / (last - first),
        "device_alerts_a_day": begun["device"] / days,
        "provisional_pool_alarms": begun["provisional pool"], "pool_alarms": begun["pool"],
        "judged": len(outcome.log_values), "provisional": len(outcome.provisional),
    }  # fmt: skip


def usual_rules(seen: list[Ints], baseline: int) -> dict[str, NDArray[np.bool_]]:
    """Return where each usual rule alarms, (T, D), after the ``baseline`` windows of ``seen``."""
    counts = np.stack(seen).astype(np.float64)  # (T, D, S, 16)
    usual, after = counts[:baseline].sum(axis=0), counts[baseline:]
    n = after.sum(axis=-1)
    expected = (usual + 0.5) / (usual + 0.5).sum(axis=-1, keepdims=True)
    chi2 = ((after - n[..., None] * expected) ** 2 / np.maximum(n[..., None] * expected, 1e-9)).sum(axis=-1)
    chi2 /= 1 + (n / usual.sum(axis=-1))  # the baseline is an estimate as well
    limit = _chi2_quantile(0.05 / 24 / (counts.shape[1] * counts.shape[2]))
    means = (counts * np.arange(BINS)).sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)
    means = (means - means[:baseline].mean(axis=0)) / np.maximum(means[:baseline].std(axis=0), 1e-9)
    return {
        "psi": (psi(after, usual) > 0.2).any(axis=-1),  # noqa: PLR2004 - the usual limit
        "chi2_bonferroni": (chi2 > limit).any(axis=-1),
        "adwin": _adwin(means)[baseline:].any(axis=-1),
        "page_hinkley": _page_hinkley(means)[baseline:].any(axis=-1),
    }


def _chi2_quantile(p: float) -> float:
    """Return the upper quantile of chi-squared with 15 degrees of freedom; source: Wilson, Hilferty 1931."""
    k = BINS - 1
    return float(k * (1 - 2 / (9 * k) + NormalDist().inv_cdf(1 - p) * math.sqrt(2 / (9 * k))) ** 3)


def _adwin(values: Floats, delta: float = 0.002) -> NDArray[np.bool_]:
    """Return where ADWIN finds a change in series ``values`` (T, ...); after one, it starts again there."""
    found = np.zeros(values.shape, np.bool_)
    start = np.zeros(values.shape[1:], np.int64)
    sums, squares = (np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values**k, axis=0)]) for k in (1, 2))
    for t in range(10, len(values) + 1):
        n = t - start
        mean = (sums[t] - np.take_along_axis(sums, start[None], 0)[0]) / n
        variance = (squares[t] - np.take_along_axis(squares, start[None], 0)[0]) / n - mean**2
        logs = np.log(2 * np.log(np.maximum(n, 2)) / delta)
        for cut in range(5, t - 5, 4):
            one, two = cut - start, t - cut
            inside = one >= 5  # noqa: PLR2004 - as in MOA
            m = 1 / (1 / np.maximum(one, 1) + 1 / two)
            bound = np.sqrt(2 / m * np.maximum(variance, 0) * logs) + 2 / (3 * m) * logs
            first = (sums[cut] - np.take_along_axis(sums, start[None], 0)[0]) / np.maximum(one, 1)
            hit = inside & (np.abs(first - (sums[t] - sums[cut]) / two) > bound)
            found[t - 1] |= hit
            start = np.where(hit, cut, start)
    return found


def _page_hinkley(values: Floats, delta: float = 0.005, threshold: float = 50.0) -> NDArray[np.bool_]:
    """Return where Page-Hinkley, two-sided, finds a change in series ``values`` (T, ...); then it starts again."""
    found, mean = np.zeros(values.shape, np.bool_), np.zeros(values.shape[1:])
    up, down, n = np.zeros_like(mean), np.zeros_like(mean), np.zeros_like(mean)
    for t, value in enumerate(values):
        n += 1
        mean += (value - mean) / n
        up, down = np.maximum(up + value - mean - delta, 0), np.maximum(down - value + mean - delta, 0)
        found[t] = (up > threshold) | (down > threshold)
        for one in (mean, up, down, n):
            one[found[t]] = 0
    return found


NEVER = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A drift: the fleet that it happens in, how long it is watched, and when it was found before (42f48ee).

    ``median`` windows until a drifted device was flagged (NEVER: most were not), the share ``found``, and the window of
    the first ``pool``. ``price``: it is found later or less now, in exchange for the quiet of dependent fleets
    (``docs/explanation/drift.md``, "Where it stops"). ``saturday``: it begins on the first weekend after the baselines.
    """

    kind: str = "independent"
    hours: int = 96
    saturday: bool = False
    median: float | None = None
    found: float | None = None
    pool: int | None = None
    price: bool = False


DRIFTS: Mapping[str, Drift] = {
    "+0.5 sd on a tenth": Drift(median=3.5, found=1.0, pool=1),
    "sd x 1.5 on a tenth": Drift(median=5, found=1.0, pool=1),
    "variance x 1.5 on a tenth": Drift(median=20, found=1.0, pool=1),
    "+0.1 sd a day on a tenth": Drift(hours=240, median=60.5, found=1.0, pool=35),
    "5 % far out on a tenth": Drift(median=37.5, found=1.0, pool=4, price=True),
    "1 % far out in all streams on a tenth": Drift(hours=240, median=NEVER, found=0.1, pool=74),
    "class 0.1 to 0.5 on a tenth": Drift(median=3, found=1.0, pool=1),
    "class 0.1 to 0.2 on a tenth": Drift(median=NEVER, found=0.3, pool=5),
    "class 4 read as 5 on a tenth": Drift(median=NEVER, found=0.0, pool=10),
    "a quarter +0.2 sd": Drift(median=33, found=1.0, pool=1, price=True),
    "the fleet +0.1 sd": Drift(median=NEVER, found=0.05, pool=1, price=True),
    "the fleet +0.3 sd, day and night": Drift(kind="day and night, common"),
    "memory 10 minutes and +0.5 sd on a tenth": Drift(kind="memory 10 minutes", median=84, found=0.8, pool=7),
    "+0.5 sd on seven tenths": Drift(hours=48),
    "own weather and +1.5 sd on a tenth": Drift(kind="own weather", hours=48),
    "own weather and +2 sd on a tenth": Drift(kind="own weather", hours=48),
    "+0.5 sd on a tenth from a Saturday, where weekends differ": Drift(kind="weekend", saturday=True),
    "+0.5 sd on a tenth from a Saturday, in another stream": Drift(kind="weekend", saturday=True),
}


def drift_row(
    name: str, fleet: DependentFleet, windows: int, *, hours: int | None = None, stages: tuple[int, int] | None = None
) -> dict[str, float]:
    """Return the median delay of drifted devices, the share found, healthy devices flagged, when pools alarm; rivals.

    It is watched for ``hours``, by default its own. ``windows`` pass before: a baseline, or, with ``stages``, some
    windows from the first estimate of one on.
    ``least_windows``: no rule with the same allowed run length can find it sooner in one device, on average:
    ln(run length) / (information a window); Lorden 1971.
    """
    hours, first = hours or DRIFTS[name].hours, windows if stages is None else stages[0]
    run = DependentRun(fleet=fleet, windows=windows)
    if stages is not None:
        run.provisional, run.windows = stages
    for _ in range(windows + ((_SATURDAY - windows) % WEEK if DRIFTS[name].saturday else 0)):
        run.window()
    drifted, shift, classes = _drifted(name, fleet)
    devices = np.array(list(fleet.places))
    flagged = np.zeros((hours, fleet.devices), np.bool_)
    pools: dict[tuple[str, str], int] = {}
    for hour in range(1, hours + 1):
        outcome = run.window(shift * (hour / 24 if "a day" in name else 1.0), classes)
        flagged[hour - 1] = np.isin(devices, list(outcome.flagged))
        for _, pool in outcome.pool_alarms:
            pools.setdefault(pool, hour)
    usual = {rule: alarms[-hours:] for rule, alarms in usual_rules(run.seen, first).items()}
    found = {"": flagged, **{f"{rule}_": alarms for rule, alarms in usual.items()}}
    ours, *rivals = [
        {
            f"{rule}median_windows": float(np.median(_first(alarms)[drifted])),
            f"{rule}found_ratio": float(alarms[:, drifted].any(axis=0).mean()),
            f"{rule}false_devices": float(alarms[:, ~drifted].any(axis=0).sum()),
        }
        for rule, alarms in found.items()
    ]
    figures = {
        **ours, "first_pool_after_windows": min(pools.values(), default=NEVER),
        "fleet_pool_after_windows": pools.get(FLEET, NEVER), "least_windows": _least_windows(name, fleet),
    }  # fmt: skip
    before = DRIFTS[name]
    if before.median is not None and before.found is not None and before.pool is not None:
        figures |= {
            "before_median_windows": before.median, "before_found_ratio": before.found,
            "before_first_pool": before.pool,
            "times_as_slow": figures["median_windows"] / before.median if before.median < NEVER else 0.0,
        }  # fmt: skip
    return figures | {key: value for rival in rivals for key, value in rival.items()}


def _first(alarms: NDArray[np.bool_]) -> Ints:
    """Return the window, from 1, in which each device first alarms in ``alarms`` (T, D); NEVER if it does not."""
    return np.where(alarms.any(axis=0), alarms.argmax(axis=0) + 1, NEVER)


def _least_windows(name: str, fleet: DependentFleet) -> float:
    """Return ln of the run length that the budget allows a device over the information of a window, in windows."""
    drifted, shift, classes = _drifted(name, fleet)
    one, settings = int(np.flatnonzero(drifted)[0]), DriftConfig().settings
    needed = math.log(fleet.devices) - settings.log_alpha
    samples = fleet.samples * (1 - _MEMORY.get(fleet.kind, 0.0)) / (1 + _MEMORY.get(fleet.kind, 0.0))
    usual = shares_of(0.0, 1.0)
    seen, window = 0.0, 0
    while seen < needed and window < NEVER:
        window += 1
        grown = shift[one] * (window / 24 if "a day" in name else 1.0)
        far = fleet.far[one][:, None]
        now = (1 - far) * shares_of(grown, fleet.spread[one]) + far * np.eye(BINS)[-1]
        gain = samples * float((now * np.log(now / usual))[:-1].sum())
        if classes is not None:
            gain += samples * float((classes[one] * np.log(classes[one] * CLASSES)).sum())
        if gain < 1e-9:  # noqa: PLR2004 - nothing to find
            return float(NEVER)
        if "a day" not in name:
            return needed / gain
        seen += gain
    return float(window)


def _drifted(name: str, fleet: DependentFleet) -> tuple[NDArray[np.bool_], Floats, Floats | None]:
    """Begin the drift: return the devices that drift (D,), the shift (D, S), and the shares of the classes (D, 10)."""
    number = np.arange(fleet.devices)
    some = number < fleet.devices // 10
    if name.startswith("the fleet"):
        some = number >= 0
    elif "quarter" in name:
        some = number % 4 == 0
    elif "seven" in name:
        some = number < 0.7 * fleet.devices
    shift = np.zeros((fleet.devices, fleet.streams))
    classes = np.full((fleet.devices, CLASSES), 1 / CLASSES)
    match name.split()[0:2]:
        case ["class", "0.1"]:
            share = float(name.split()[3])
            classes[some] = np.where(np.arange(CLASSES) == 4, share, (1 - share) / (CLASSES - 1))  # noqa: PLR2004
        case ["class", "4"]:
            classes[some, 4:6] = 0.02, 0.18
        case ["sd", "x"]:
            fleet.spread[some, 0] = float(name.split()[2])
        case ["variance", "x"]:
            fleet.spread[some, 0] = math.sqrt(float(name.split()[2]))
        case [percent, "%"] if "all streams" in name:
            fleet.far[some] = float(percent) / 100
        case [percent, "%"]:
            fleet.far[some, 0] = float(percent) / 100
        case _:
            stream = int("another stream" in name)
            shift[some, stream] = float(next(word for word in name.split() if word.startswith("+")))
    return some, shift, classes


def _keeps(before: Drift, found: Mapping[str, float]) -> bool:
    """Return whether no healthy device was flagged, and the drift is found as often and at most 1.5 times as late."""
    if found["false_devices"] > 0:
        return False
    if before.price or before.median is None or before.found is None:
        return True
    late = before.median < NEVER and found["median_windows"] > 1.5 * before.median
    return not late and found["found_ratio"] >= before.found


_HEALTHY = "no healthy device; else printed"


def _blames_none(found: Mapping[str, float]) -> bool:
    return found["false_devices"] == 0


_QUICK_HOURS = {
    "5 % far out on a tenth": 96, "class 0.1 to 0.2 on a tenth": 96, "a quarter +0.2 sd": 96,
    "memory 10 minutes and +0.5 sd on a tenth": 96, "variance x 1.5 on a tenth": 48,
    "+0.5 sd on a tenth from a Saturday, where weekends differ": 60,
}  # fmt: skip
"""How long the drifts are watched that take longer than the others to be found, in hours."""


def rows(*, quick: bool, seed: int = 1, days: Sequence[int] = (3, 14)) -> Iterable[Scenario]:
    """Yield the nulls at each number of ``days`` of baseline, their sum, drifts, small fleets; then all in stages."""
    devices, streams, hours, drifting = (10, 3, 24, 20) if quick else (100, 8, 240, 100)
    for long in days:
        alerts: list[float] = []
        for kind in NULLS:
            fleet = DependentFleet(kind=kind, devices=devices, streams=streams, seed=seed,
                                   samples=5 if kind == "few a window" else 60)  # fmt: skip
            yield Scenario(
                name=f"null, {long} days: {kind}", measure=partial(_noted, fleet, 24 * long, hours, alerts),
                asked=f"<= {BEFORE[kind] / 20:g} a day" if long < 14 and kind in BEFORE else "printed; see the sum",  # noqa: PLR2004
                holds=lambda f, kind=kind, long=long: long >= 14  # noqa: PLR2004
                or f["device_alerts_a_day"] <= BEFORE.get(kind, math.inf) / 20,
            )  # fmt: skip
        yield Scenario(
            name=f"nulls, {long} days: all", asked="<= 0.05 a fleet-day" if long >= 14 else "printed",  # noqa: PLR2004
            measure=lambda alerts=alerts: {"alerts_a_fleet_day": float(np.mean(alerts or [0.0])), "kinds": len(alerts)},
            holds=lambda f, long=long: long < 14 or f["alerts_a_fleet_day"] <= 0.05,  # noqa: PLR2004
        )  # fmt: skip
        for name, drift in DRIFTS.items():
            if quick and drift.hours > 96:  # noqa: PLR2004 - ten days take seconds
                continue
            fleet = DependentFleet(kind=drift.kind, devices=drifting, streams=streams, seed=seed + 1000)
            watched = _QUICK_HOURS.get(name, 24) if quick else None
            before = ", as found before, <= 1.5 x as late" if drift.median is not None else ""
            asked, holds = "no healthy device" + (", price named" if drift.price else before), partial(_keeps, drift)
            if quick:  # two devices drift: no median to judge
                asked, holds = _HEALTHY, _blames_none
            yield Scenario(
                name=f"drift, {long} days: {name}", measure=partial(drift_row, name, fleet, 24 * long, hours=watched),
                asked=asked, holds=holds,
            )  # fmt: skip
        for size in (4, 8, 12):
            fleet = DependentFleet(kind="own weather", devices=size, streams=streams, seed=seed + 2000)
            yield Scenario(
                name=f"null, {long} days: own weather, {size} devices",
                measure=partial(null_row, fleet, 24 * long, hours),
            )
    yield from _staged(quick=quick, seed=seed)


def _staged(*, quick: bool, seed: int) -> Iterable[Scenario]:
    """Yield the nulls and the drifts of fleets that are commissioned in stages, as by default."""
    devices, streams, days, drifting = (10, 3, 1, 20) if quick else (100, 8, 10, 100)
    stages = (24, 48) if quick else STAGES
    for kind in STAGED:
        world = kind if kind in NULLS else "own weather"
        fleet = DependentFleet(kind=world, devices=devices, streams=streams, seed=seed,
                               samples=5 if kind == "few a window" else 60)  # fmt: skip
        yield Scenario(
            name=f"null, in stages: {kind}",
            measure=partial(staged_row, kind, fleet, days, stages),
            asked="printed: of 11 provisional days, and after",
        )  # fmt: skip
    for day in (4,) if quick else (4, 10):  # after the first estimate of the baselines, and after the second
        for name, drift in DRIFTS.items():
            if quick and (drift.hours > 48 or drift.saturday):  # noqa: PLR2004 - the others take seconds
                continue
            watched = 24 if quick else None
            fleet = DependentFleet(kind=drift.kind, devices=drifting, streams=streams, seed=seed + 1000)
            yield Scenario(
                name=f"drift, in stages, from day {day}: {name}",
                measure=partial(drift_row, name, fleet, 24 * (day - 1), hours=watched, stages=STAGES),
                asked=_HEALTHY, holds=_blames_none,
            )  # fmt: skip


def _noted(fleet: DependentFleet, windows: int, hours: int, alerts: list[float]) -> dict[str, float]:
    found = null_row(fleet, windows, hours)
    alerts.append(found["device_alerts_a_day"])
    return found
