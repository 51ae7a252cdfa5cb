#!/usr/bin/env python3
"""Prints the acceptance figures of drift detection with the server's own code.

::

    drift.py --quick                          small fleets, about a minute
    drift.py --data DIR                       all rows at full size (an hour); DIR has ``fsdd`` and ``meter-digits``
    drift.py --rows "null, 14 days" --seed 41 --append FILE    in parts: rows with this in their name

Gaussian streams, 16 equal-mass bins, hourly windows of 60 samples, baselines of 72 windows, budget 0.05 a day.
Compared with: PSI > 0.2, chi-squared p < 0.05, always-fire and never-fire on the same windows. Fleets whose samples,
hours and devices depend on each other are in ``dependence.py``; fleets on the bundles of ``models/`` through the real
drift service in ``real_bundles.py``. Fleets without drift, of 2 to 100 devices whose streams are concentrated in one
bin, or nearly so, like the colours of a grey picture, are here.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench import dependence, real_bundles, releases
from scripts.bench.scenarios import Scenario
from server.drift.config import DriftConfig
from server.drift.detection.detector_bank import Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.pools import FLEET
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot
from server.drift.rows import psi
from wire.histogram import BINS

Line = tuple[str, Mapping[str, float], str, bool]
KEY = ("a" * 32, "b" * 32)
N = 60
NOON, PSI_RULE = 12, 0.2
CHI2_05 = 24.996  # 95 % quantile of chi-squared with 15 degrees of freedom
EDGES = np.array([-1.534121, -1.150349, -0.887147, -0.67449, -0.488776, -0.318639, -0.157311, 0.0])
EDGES = np.concatenate([EDGES, -EDGES[:-1][::-1]])  # quantiles of the normal distribution at 1/16 … 15/16


@dataclass(slots=True)
class World:
    """A simulated fleet: device offsets, autocorrelation, seasons."""

    devices: int
    streams: int
    seed: int
    offset_sd: float = 0.3
    rho: float = 0.0
    season: float = 0.0
    rng: np.random.Generator = field(init=False)
    offset: NDArray[np.float64] = field(init=False)
    last: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        """Draw the constants of the fleet."""
        self.rng = np.random.default_rng(self.seed)
        self.offset = self.rng.normal(0, self.offset_sd, (self.devices, self.streams, 1))
        self.last = self.rng.standard_normal((self.devices, self.streams))

    def counts(self, slot: int, shift: NDArray[np.float64] | float = 0.0) -> NDArray[np.int64]:
        """Return the bin counts (D, S, 16) of one window; ``shift`` broadcasts to (D, S, 1)."""
        noise = self.rng.standard_normal((self.devices, self.streams, N), dtype=np.float32).astype(np.float64)
        if self.rho:
            noise = dependence.remembering(noise, self.last, self.rho)
            self.last = noise[..., -1]
        return dependence.binned(noise + self.offset + shift + self.season * self.context(slot), EDGES)

    def context(self, slot: int) -> int:
        """Return 1 by day, 0 by night, if there is a season."""
        return int(self.season > 0 and slot % 24 >= NOON)


@dataclass(slots=True)
class Run:
    """One run of the design over a world, with its results."""

    world: World
    config: DriftConfig
    state: FoldState = field(default_factory=FoldState)
    slot: int = 0
    step_ms: list[float] = field(default_factory=list)

    def window(self, shift: NDArray[np.float64] | float = 0.0) -> tuple[SlotOutcome, NDArray[np.int64]]:
        """Run one window."""
        counts, context = self.world.counts(self.slot, shift), self.world.context(self.slot)
        self.state.open_bank(KEY, ScoreColumns(self.world.streams), None)
        seen = [Observation(f"d{i:05d}", counts[i], context) for i in range(self.world.devices)]
        start = time.perf_counter()
        outcome = fold_slot(self.state, self.slot, {KEY: seen}, {}, self.config.settings)
        self.step_ms.append((time.perf_counter() - start) * 1000)
        self.slot += 1
        return outcome, counts

    def commission(self) -> None:
        """Fill the baselines, in every context."""
        contexts = 2 if self.world.season else 1
        for _ in range(self.config.baseline_windows * contexts):
            self.window()


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the fleets."""

    devices: int
    streams: int
    windows: int


def null_fleet(size: Size, config: DriftConfig) -> dict[str, float]:
    """No drift: device alerts of the design and of the usual rules."""
    run = Run(World(size.devices, size.streams, 1), config)
    run.commission()
    alerts = pool = psi_alerts = chi_alerts = 0
    expected = run.state.banks[KEY].usual * N
    reference = run.state.banks[KEY].usual * N * config.baseline_windows
    for _ in range(size.windows):
        outcome, counts = run.window()
        alerts += len(outcome.flagged)
        pool += len(outcome.pool_alarms)
        psi_alerts += int((psi(counts, reference) > PSI_RULE).any(axis=1).sum())
        chi_alerts += int(((counts - expected) ** 2 / expected).sum(axis=2).max(axis=1).__gt__(CHI2_05).sum())
    days = size.windows / 24
    return {
        "device_alerts": alerts, "pool_alerts": pool, "fleet_days": days, "psi_over_0.2_a_day": psi_alerts / days,
        "chi2_p_0.05_a_day": chi_alerts / days, "always_fire_a_day": size.devices * 24.0, "never_fire_a_day": 0.0,
        "fold_ms_a_window": float(np.median(run.step_ms[config.baseline_windows :])),
    }  # fmt: skip


def delay(size: Size, config: DriftConfig, shift: float) -> dict[str, float]:
    """A tenth of the devices shift in one stream: windows until each is flagged."""
    run = Run(World(size.devices, size.streams, 2), config)
    run.commission()
    drifted = size.devices // 10
    moved = np.zeros((size.devices, size.streams, 1))
    moved[:drifted, 0] = shift
    first: dict[str, int] = {}
    false: set[str] = set()
    for window in range(1, 49):
        outcome, _ = run.window(moved)
        for device in outcome.flagged:
            if int(device[1:]) < drifted:
                first.setdefault(device, window)
            else:
                false.add(device)
    found = [*first.values(), *[10**6] * (drifted - len(first))]
    return {
        "median_windows": float(np.median(found)),
        "detected_ratio": len(first) / drifted,
        "false_devices": len(false),
    }


def one_broken(size: Size, config: DriftConfig) -> dict[str, float]:
    """One sensor breaks: it is flagged, the pool raises no alarm."""
    run = Run(World(size.devices, size.streams, 3), config)
    run.commission()
    moved = np.zeros((size.devices, size.streams, 1))
    moved[0] = 4.0
    flagged_at, pool = 0, 0
    for window in range(1, 25):
        outcome, _ = run.window(moved)
        flagged_at = flagged_at or (window if "d00000" in outcome.flagged else 0)
        pool += len(outcome.pool_alarms)
    return {"flagged_after_windows": flagged_at, "pool_alerts": pool}


def fleet_shift(size: Size, config: DriftConfig, shift: float) -> dict[str, float]:
    """The whole fleet shifts a little: windows until the pool alarm."""
    run = Run(World(size.devices, size.streams, 4), config)
    run.commission()
    moved = np.zeros((1, size.streams, 1))
    moved[0, 0] = shift
    for window in range(1, 25):
        outcome, _ = run.window(moved)
        if (KEY, FLEET) in outcome.pool_alarms:
            return {"pool_after_windows": window}
    return {"pool_after_windows": 10**6}


def quiet(world: World, windows: int, config: DriftConfig) -> dict[str, float]:
    """Any world without drift: device alerts."""
    run = Run(world, config)
    run.commission()
    alerts = pool = 0
    for _ in range(windows):
        outcome, _ = run.window()
        alerts += len(outcome.flagged)
        pool += len(outcome.pool_alarms)
    return {"device_alerts": alerts, "pool_alerts": pool, "fleet_days": windows / 24}


def dependent(world: World, windows: int, config: DriftConfig) -> dict[str, float]:
    """No drift, but autocorrelated samples: new alarms per day, and device-windows in alarm."""
    run = Run(world, config)
    run.commission()
    usual = run.state.banks[KEY].usual * N
    names = np.array([f"d{i:05d}" for i in range(world.devices)])
    begun = dict.fromkeys(("device_alerts", "psi_over_0.2", "chi2_p_0.05"), 0)
    standing = dict(begun)
    before = {name: np.zeros(world.devices, np.bool_) for name in begun}
    for _ in range(windows):
        outcome, counts = run.window()
        now = {
            "device_alerts": np.isin(names, list(outcome.flagged)),
            "psi_over_0.2": (psi(counts, usual * config.baseline_windows) > PSI_RULE).any(axis=1),
            "chi2_p_0.05": ((counts - usual) ** 2 / usual).sum(axis=2).max(axis=1) > CHI2_05,
        }
        for name, alarming in now.items():
            begun[name] += int((alarming & ~before[name]).sum())
            standing[name] += int(alarming.sum())
        before = now
    days = windows / 24
    told = {f"{name}_a_day": count / days for name, count in begun.items()}
    told |= {f"{name}_windows_a_day": count / days for name, count in standing.items()}
    return {**told, "devices": world.devices, "fleet_days": days}


@dataclass(frozen=True, slots=True)
class QuietFleet:
    """A fleet without drift: the streams' bin probabilities (S, 16), devices, samples per window, the seed."""

    probabilities: NDArray[np.float64]
    devices: int
    samples: int = 60
    seed: int = 1

    def verdicts(self, windows: int, config: DriftConfig) -> dict[str, float]:
        """Return how often a pool or a device began to alarm in ``windows`` windows after the baselines."""
        dice, state, streams = np.random.default_rng(self.seed), FoldState(), len(self.probabilities)
        state.open_bank(KEY, ScoreColumns(streams), None)
        places = {f"d{i:05d}": {"site": f"site-{i // 3}"} for i in range(self.devices)}
        pools = devices = 0
        before = SlotOutcome()
        for slot in range(config.baseline_windows + windows):
            counts = dice.multinomial(self.samples, self.probabilities, size=(self.devices, streams))
            seen = [Observation(device, row) for device, row in zip(places, counts, strict=True)]
            outcome = fold_slot(state, slot, {KEY: seen}, places, config.settings)
            pools += len(outcome.pool_alarms - before.pool_alarms)
            devices += len(outcome.flagged - before.flagged)
            before = outcome
        return {"pool_verdicts": pools, "device_verdicts": devices, "windows": windows}


def standing_streams() -> NDArray[np.float64]:
    """Return the bin probabilities (S, 16) of streams concentrated in one bin, nearly so, and of a uniform one."""
    rows = [np.full(BINS, 1 / BINS)]
    for home in (0, 7, 15):
        for away in (0.0, 1e-4, 1e-3, 1e-2, 3e-2):
            row = np.zeros(BINS)
            row[home], row[(home + 1) % BINS] = 1 - away, away
            rows.append(row)
    return np.stack(rows)


def scenarios(options: Options) -> Iterable[Scenario]:
    """Yield the rows, in the order in which they are measured."""
    quick, seed = options.quick, options.seed
    size = Size(100, 6, 48) if quick else Size(1000, 12, 480)
    small = Size(60, 6, 48) if quick else Size(300, 12, 96)
    config, short = DriftConfig(baseline_windows=72), DriftConfig(baseline_windows=12)
    quiet_asked = {"asked": "0 device alerts", "holds": lambda f: f["device_alerts"] == 0}
    yield Scenario(name="null fleet", measure=lambda: null_fleet(size, config), asked="<= 1 device alert",
                   holds=lambda f: f["device_alerts"] <= 1)  # fmt: skip
    yield Scenario(
        name="null, baseline of 12 windows", **quiet_asked,
        measure=lambda: quiet(World(small.devices, small.streams, seed + 6), 2 * small.windows, short),
    )  # fmt: skip
    for shift, most in ((0.25, 24), (0.5, 4), (1.0, 2)):
        yield Scenario(name=f"+{shift} sd in one stream", measure=partial(delay, small, config, shift),
                       asked=f"median <= {most} windows",
                       holds=lambda f, most=most: f["median_windows"] <= most)  # fmt: skip
    yield Scenario(name="one broken", measure=lambda: one_broken(size, config), asked="flagged, pool quiet",
                   holds=lambda f: f["flagged_after_windows"] == 1 and f["pool_alerts"] == 0)  # fmt: skip
    yield Scenario(name="fleet +0.1 sd", measure=lambda: fleet_shift(size, config, 0.1), asked="pool <= 8 windows",
                   holds=lambda f: f["pool_after_windows"] in range(1, 9))  # fmt: skip
    yield Scenario(
        name="AR(0.9) null", **quiet_asked,
        measure=lambda: quiet(World(small.devices, small.streams, seed + 4, rho=0.9), small.windows, config),
    )  # fmt: skip
    yield Scenario(
        name="day and night null", asked="0 alerts", holds=lambda f: f["device_alerts"] == f["pool_alerts"] == 0,
        measure=lambda: quiet(World(small.devices, small.streams, seed + 5, season=1.0), small.windows, config),
    )  # fmt: skip
    for rho, memory in ((0.0, "independent"), (0.9, "10 minutes"), (0.99, "100 minutes"), (0.998, "8 hours")):
        yield Scenario(
            name=f"100 devices, memory of {memory}", asked="0 where independent; else printed",
            measure=lambda rho=rho: dependent(World(100, 8, seed + 6, rho=rho), 48 if quick else 240, config),
            holds=lambda f, rho=rho: rho > 0 or f["device_alerts_a_day"] == 0,
        )  # fmt: skip
    yield from dependence.rows(quick=quick, seed=seed, days=options.days or ((3,) if quick else (3, 14)))
    yield from releases.rows(quick=quick, seed=seed)
    windows = 24 if quick else 1000
    for devices in (2, 6, 12, 30, 100):
        fleet = QuietFleet(standing_streams(), devices, seed=seed)
        yield Scenario(
            name=f"quiet, standing streams, {devices} devices", asked=f"<= 1 pool verdict in {windows} windows",
            measure=lambda fleet=fleet: fleet.verdicts(windows, config), holds=lambda f: f["pool_verdicts"] <= 1,
        )  # fmt: skip
    yield from real_bundles.rows(options.data, quick=quick, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line."""

    quick: bool = False
    seed: int = 1
    days: tuple[int, ...] = ()
    rows: tuple[str, ...] = ()
    data: Path | None = None


def measured(options: Options, note: Path | None = None) -> Iterable[Line]:
    """Measure the rows whose name has one of ``options.rows`` in it (all, if none is named); yield line by line.

    ``note``: a file of tab-separated values to which each line is appended: seed, seconds, row, whether it holds, and
    the figures.
    """
    for one in scenarios(options):
        if options.rows and not any(part in one.name for part in options.rows):
            continue
        start_s = time.monotonic()
        figures = one.measure()
        line = (one.name, figures, one.asked, one.holds(figures))
        seconds = time.monotonic() - start_s
        print(f"{'ok  ' if line[3] else 'MISS'} {one.name}: {_shown(figures)} (asked: {one.asked}; {seconds:.1f} s)",
              file=sys.stderr, flush=True)  # fmt: skip
        if note is not None:
            with note.open("a") as file:
                verdict = "ok" if line[3] else "MISS"
                print(options.seed, f"{seconds:.1f}", one.name, verdict, json.dumps(figures), sep="\t", file=file)
        yield line


def _row(what: str, figures: Mapping[str, float], asked: str, holds: bool) -> dict[str, object]:  # noqa: FBT001 - a line
    """Return a line as a row; the first figure is ours, PSI's alerts (if counted) are the reference."""
    name, ours = next(iter(figures.items()))
    reference = next((value for key, value in figures.items() if key.startswith("psi")), None)
    ratio = ours / reference if reference else None
    return {
        "what": f"{what}: {name}",
        "ours": ours,
        "reference": reference,
        "ratio": ratio,
        "target": asked,
        "met": holds,
    }


def _shown(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; return 0 if all targets hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller fleets: about a minute")
    parser.add_argument("--rows", action="append", default=[], metavar="PART", help="only rows with this in their name")
    parser.add_argument("--seed", type=int, default=1, help="of the simulated fleets")
    parser.add_argument("--days", action="append", default=[], type=int, help="of baseline, of dependent fleets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--append", type=Path, metavar="FILE", help="also append each row there, tab-separated")
    parser.add_argument("--data", type=Path, metavar="DIR", help="also fleets on bundles made of the data sets there")
    asked = parser.parse_args(arguments)
    options = Options(
        quick=asked.quick, seed=asked.seed, days=tuple(asked.days), rows=tuple(asked.rows), data=asked.data
    )
    lines = list(measured(options, asked.append))
    if not lines:
        parser.error(f"Expected --rows to be part of a row's name, got {', '.join(asked.rows)}")
    for what, figures, wanted, holds in lines:
        print(f"{'ok  ' if holds else 'MISS'} {what:40} {wanted:36} {_shown(figures)}")
    if asked.json:
        asked.json.write_text(json.dumps([_row(*line) for line in lines], indent=1))
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
