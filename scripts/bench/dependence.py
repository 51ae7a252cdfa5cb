"""Fleets whose samples, hours and devices depend on each other, without and with drift: rows of ``drift.py``.

Every null fleet has no drift, only what the world does: memory within and between hours, day and night, weekends,
weather of one device or of all, a common shock, ageing, scenes that stay, another rate, restless devices. Compared
with the usual rules on the same windows: PSI > 0.2, chi-squared against the baseline with Bonferroni over devices and
streams at the same budget, ADWIN (Bifet, Gavalda 2007; delta 0.002) and Page-Hinkley (delta 0.005, threshold 50) on
the standardised means of windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from server.drift.config import DriftConfig
from server.drift.detection.detector_bank import Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.pools import FLEET
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot
from server.drift.rows import psi
from wire.histogram import BINS

Floats = NDArray[np.float64]
KEY = ("c" * 32, "d" * 32)
MONDAY = 96  # the first slot, in hours since 1 January 1970, a Thursday
NULLS = (
    "independent", "memory 10 minutes", "memory 100 minutes", "memory 8 hours", "day and night, common",
    "day and night, own phase", "weekend", "own weather", "common weather", "common shock", "ageing",
    "scenes of 8 hours", "scenes of 100 hours", "ten times the rate", "restless devices", "constant", "few a window",
    "class scenes of 8 hours",
)  # fmt: skip
_MEMORY = {"memory 10 minutes": 0.9, "memory 100 minutes": 0.99, "memory 8 hours": 0.998, "ten times the rate": 0.8}
_EDGES = np.array([NormalDist().inv_cdf(i / BINS) for i in range(1, BINS)])
_GRID = np.linspace(-9, 9, 4001)
_BELOW = np.array([NormalDist().cdf(x) for x in _GRID])
_CLASSES = 10


def remembering(noise: Floats, before: Floats, rho: float) -> Floats:
    """Return samples (D, S, N) of which each keeps ``rho`` of the one before it; ``before`` (D, S): the last so far."""
    found = np.empty(noise.shape)
    for i in range(noise.shape[-1]):
        found[..., i] = before = rho * before + math.sqrt(1 - rho**2) * noise[..., i]
    return found


def binned(values: Floats, edges: Floats) -> NDArray[np.int64]:
    """Return the bin counts (D, S, 16) of samples (D, S, N); ``edges`` (15,): between the bins."""
    devices, streams, n = values.shape
    rows = np.repeat(np.arange(devices * streams) * BINS, n)
    bins = np.searchsorted(edges, values.ravel(), side="right") + rows
    return np.bincount(bins, minlength=devices * streams * BINS).reshape(devices, streams, BINS)


@dataclass(slots=True, kw_only=True)
class DependentFleet:
    """A simulated fleet: Gaussian streams, the last of them ten classes; ten devices a site, four kinds of hardware."""

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

    def __post_init__(self) -> None:
        """Draw the constants of the fleet."""
        self.dice = np.random.default_rng(self.seed)
        shape = (self.devices, self.streams)
        self.offset = self.dice.normal(0, 0.3, shape)
        self.own, self.common = self.dice.standard_normal(shape), self.dice.standard_normal(self.streams)
        self.last, self.scene = self.dice.standard_normal(shape), self.dice.normal(0, 0.8, shape)
        self.phase = self.dice.uniform(0, 1, self.devices)

    @property
    def places(self) -> dict[str, dict[str, str]]:
        """The attributes of the devices by name."""
        return {f"d{i:05d}": {"site": f"site {i // 10}", "hardware": f"hw {i % 4}"} for i in range(self.devices)}

    def _level(self, hour: int) -> Floats:
        """Return the mean of each stream in this hour, (D, S)."""
        found, keep = np.zeros((self.devices, self.streams)), math.exp(-1 / 24)
        self.own = keep * self.own + math.sqrt(1 - keep**2) * self.dice.standard_normal(self.own.shape)
        self.common = keep * self.common + math.sqrt(1 - keep**2) * self.dice.standard_normal(self.streams)
        match self.kind:
            case "day and night, common":
                found += 0.5 * math.sin(math.tau * hour / 24)
            case "day and night, own phase":
                found += 0.5 * np.sin(math.tau * (hour / 24 + self.phase))[:, None]
            case "weekend":
                found[:, 0] += 0.5 * ((hour // 24 + 3) % 7 >= 5)  # noqa: PLR2004 - Saturday and Sunday
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
        return found

    def counts(self, hour: int, shift: Floats | float = 0.0, classes: Floats | None = None) -> NDArray[np.int64]:
        """Return the bin counts (D, S, 16) of one hour.

        ``shift`` broadcasts to (D, S); ``classes`` (D, 10): the shares of the classes, else all alike.
        """
        n = self.samples
        if self.kind in _MEMORY:
            found = self._remembering(n, shift)
        else:
            sd, level = 1.0, self._level(hour) + self.offset + shift
            if self.kind.startswith("scenes"):
                new = self.dice.random(self.devices) < 1 / float(self.kind.split()[2])
                self.scene[new] = self.dice.normal(0, 0.8, (int(new.sum()), self.streams))
                sd, level = 0.6, level + self.scene
            below = np.interp((_EDGES - level[..., None]) / sd, _GRID, _BELOW)
            ends = np.zeros((*level.shape, 1))
            p = np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1)
            found = self.dice.multinomial(n, np.maximum(p, 0) / p.sum(axis=-1, keepdims=True))
        if self.kind == "constant":
            found[:, :-1] = 0
            found[:, :-1, 3] = n
        p = np.full((self.devices, _CLASSES), 1 / _CLASSES) if classes is None else classes
        if self.kind == "class scenes of 8 hours":
            seen = (np.abs(self.phase * 1000 + hour / 8).astype(int) * 7919) % _CLASSES
            p = 0.7 * p + 0.3 * np.eye(_CLASSES)[seen]
        found[:, -1] = 0
        found[:, -1, :_CLASSES] = self.dice.multinomial(n, p)
        return found

    def _remembering(self, n: int, shift: Floats | float) -> NDArray[np.int64]:
        noise = np.moveaxis(self.dice.standard_normal((n, self.devices, self.streams)), 0, -1)
        values = remembering(noise, self.last, _MEMORY[self.kind] ** (60 / max(n, 60)))
        self.last = values[..., -1]
        return binned(values + (self.offset + shift)[..., None], _EDGES)


@dataclass(slots=True, kw_only=True)
class DependentRun:
    """The server's own code over a ``DependentFleet``, one hour after the other.

    ``windows`` of a baseline; devices are judged after ``provisional`` of them, 0: not before the last.
    """

    fleet: DependentFleet
    windows: int = 72
    provisional: int = 0
    hour: int = MONDAY
    state: FoldState = field(default_factory=FoldState)
    seen: list[NDArray[np.int64]] = field(default_factory=list)

    def window(
        self, shift: Floats | float = 0.0, classes: Floats | None = None, only: Sequence[int] | None = None
    ) -> SlotOutcome:
        """Let one hour pass; ``only`` these devices send a window."""
        columns = ScoreColumns(self.fleet.streams, (self.fleet.streams - 1,))
        self.state.open_bank(KEY, columns, None)
        counts = self.fleet.counts(self.hour, shift, classes)
        self.seen.append(counts)
        config = replace(DriftConfig(), baseline_windows=self.windows, provisional_windows=self.provisional)
        places, settings = self.fleet.places, config.settings
        names = list(places)
        window = [Observation(names[i], counts[i]) for i in (range(len(names)) if only is None else only)]
        outcome = fold_slot(self.state, self.hour, {KEY: window}, places, settings)
        self.hour += 1
        return outcome

    def commission(self) -> DependentRun:
        """Collect the baselines."""
        for _ in range(self.windows):
            self.window()
        return self


def null_row(fleet: DependentFleet, windows: int, hours: int) -> dict[str, float]:
    """Return alerts that begin per day, of devices and of pools, and those of the usual rules, without drift."""
    run = DependentRun(fleet=fleet, windows=windows).commission()
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
    rivals = {f"{name}_a_day": begun / days for name, begun in usual_rules(run.seen, windows).items()}
    return {"device_alerts_a_day": devices / days, "pool_alarms": pools, **rivals, "fleet_days": days}


def usual_rules(seen: list[NDArray[np.int64]], baseline: int) -> dict[str, int]:
    """Return how many device alarms each usual rule begins, after the ``baseline`` windows of ``seen``."""
    counts = np.stack(seen).astype(np.float64)  # (T, D, S, 16)
    usual, after = counts[:baseline].sum(axis=0), counts[baseline:]
    n = after.sum(axis=-1)
    expected = (usual + 0.5) / (usual + 0.5).sum(axis=-1, keepdims=True)
    chi2 = ((after - n[..., None] * expected) ** 2 / np.maximum(n[..., None] * expected, 1e-9)).sum(axis=-1)
    chi2 /= 1 + (n / usual.sum(axis=-1))  # the baseline is an estimate as well
    limit = _chi2_quantile(0.05 / 24 / (counts.shape[1] * counts.shape[2]))
    means = (counts * np.arange(BINS)).sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)
    means = (means - means[:baseline].mean(axis=0)) / np.maximum(means[:baseline].std(axis=0), 1e-9)
    alarms = {
        "psi": (psi(after, usual) > 0.2).any(axis=-1),  # noqa: PLR2004 - the usual limit
        "chi2_bonferroni": (chi2 > limit).any(axis=-1),
        "adwin": _adwin(means)[baseline:].any(axis=-1),
        "page_hinkley": _page_hinkley(means)[baseline:].any(axis=-1),
    }
    return {
        name: int((now & ~np.concatenate([np.zeros_like(now[:1]), now[:-1]])).sum()) for name, now in alarms.items()
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


DRIFTS: Mapping[str, tuple[str, int]] = {
    "+0.5 sd on a tenth": ("independent", 48), "+0.1 sd a day on a tenth": ("independent", 168),
    "class 0.1 to 0.2 on a tenth": ("independent", 48), "class 4 read as 5 on a tenth": ("independent", 48),
    "the fleet +0.1 sd": ("independent", 24), "a quarter +0.2 sd": ("independent", 48),
    "+0.5 sd on seven tenths": ("independent", 48), "own weather and +1.5 sd on a tenth": ("own weather", 48),
    "own weather and +2 sd on a tenth": ("own weather", 48),
}  # fmt: skip


def drift_row(name: str, fleet: DependentFleet, windows: int) -> dict[str, float]:
    """Return the median delay of drifted devices, the share found, healthy devices flagged, and when pools alarm."""
    hours = DRIFTS[name][1]
    run = DependentRun(fleet=fleet, windows=windows).commission()
    drifted, shift, classes = _drifted(name, fleet)
    first: dict[str, int] = {}
    false, pools = set[str](), dict[tuple[str, str], int]()
    for hour in range(1, hours + 1):
        outcome = run.window(shift * (hour / 24 if "a day" in name else 1.0), classes)
        for device in outcome.flagged & drifted:
            first.setdefault(device, hour)
        false |= outcome.flagged - drifted
        for _, pool in outcome.pool_alarms:
            pools.setdefault(pool, hour)
    delays = [*first.values(), *[10**6] * (len(drifted) - len(first))]
    return {
        "median_windows": float(np.median(delays)), "found_ratio": len(first) / len(drifted),
        "false_devices": len(false), "first_pool_after_windows": min(pools.values(), default=10**6),
        "fleet_pool_after_windows": pools.get(FLEET, 10**6),
    }  # fmt: skip


def _drifted(name: str, fleet: DependentFleet) -> tuple[frozenset[str], Floats, Floats | None]:
    """Return the devices that drift, the shift (D, S), and the shares of the classes (D, 10)."""
    number = np.arange(fleet.devices)
    some = number < fleet.devices // 10
    if name.startswith("the fleet"):
        some = number >= 0
    elif "quarter" in name:
        some = number % 4 == 0
    elif "seven" in name:
        some = number < 0.7 * fleet.devices
    shift = np.zeros((fleet.devices, fleet.streams))
    classes = np.full((fleet.devices, _CLASSES), 1 / _CLASSES)
    if name.startswith("class 0.1"):
        classes[some] = np.where(np.arange(_CLASSES) == 4, 0.2, 0.8 / (_CLASSES - 1))  # noqa: PLR2004
    elif name.startswith("class 4"):
        classes[some, 4:6] = 0.02, 0.18
    else:
        shift[some, 0] = float(next(word for word in name.split() if word.startswith("+")))
    return frozenset(f"d{i:05d}" for i in np.flatnonzero(some)), shift, classes


def rows(*, quick: bool) -> Iterable[tuple[str, dict[str, float], str, bool]]:
    """Yield (what, figures, target, whether it holds): the nulls at 3 and 14 days of baseline, then the drifts."""
    devices, streams, hours = (30, 3, 72) if quick else (100, 8, 240)
    for windows in (72,) if quick else (72, 336):
        total = 0.0
        for kind in NULLS:
            n = 5 if kind == "few a window" else 60
            fleet = DependentFleet(kind=kind, devices=devices, streams=streams, seed=1, samples=n)
            found = null_row(fleet, windows, hours)
            total += found["device_alerts_a_day"]
            yield f"null, {windows // 24} days: {kind}", found, "printed; see the sum", True
        mean = {"device_alerts_a_day": total / len(NULLS)}
        if windows > 72:  # noqa: PLR2004 - three days
            yield f"nulls, {windows // 24} days: all", mean, "<= 0.05 a fleet-day", total / len(NULLS) <= 0.05  # noqa: PLR2004
        else:
            yield f"nulls, {windows // 24} days: all", mean, "printed: 3 days certify no slow movement", True
        for name, (kind, _) in DRIFTS.items():
            fleet = DependentFleet(kind=kind, devices=max(devices, 40), streams=streams, seed=2)
            found = drift_row(name, fleet, windows)
            yield f"drift, {windows // 24} days: {name}", found, "no healthy device", found["false_devices"] == 0
        for size in (4, 8, 12):
            fleet = DependentFleet(kind="own weather", devices=size, streams=streams, seed=3)
            found = null_row(fleet, windows, hours)
            yield f"null, {windows // 24} days: own weather, {size} devices", found, "printed", True
