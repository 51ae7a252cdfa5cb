#!/usr/bin/env python3
"""Prints the acceptance figures of drift detection with the server's own code: ``drift.py [--quick] [--json FILE]``.

Gaussian streams, 16 equal-mass bins, hourly windows of 60 samples, baselines of 72 windows, budget 0.05 a day.
Compared with: PSI > 0.2, chi-squared p < 0.05, always-fire and never-fire on the same windows. Fleets whose samples,
hours and devices depend on each other are in ``dependence.py``.

Fleets without drift, of 2 to 100 devices whose streams are concentrated in one bin, or nearly so, like the colours of a
grey picture; with ``--data DIR`` (a folder with ``fsdd`` and ``meter-digits``) also fleets on the bundles that
``compressor run`` builds from ``models/digits``, ``models/meter_digits`` and ``models/spoken_digits``, with samples
drawn from the counts of the bundle's own reference.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench import dependence
from server.drift.config import DriftConfig
from server.drift.detection.detector_bank import Observation
from server.drift.detection.movement import ScoreColumns
from server.drift.detection.pools import FLEET
from server.drift.detection.slot_update import FoldState, SlotOutcome, fold_slot
from server.drift.rows import psi
from wire.bundle import parse_bundle
from wire.histogram import BINS
from wire.reference import read_reference

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


def bundle_streams(model: str, data: Path | None) -> NDArray[np.float64]:
    """Build the bundle of ``models/MODEL`` and return its reference's shares of the samples (S, 16)."""
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as out:
        compressor = Path(sys.executable).with_name("compressor")
        command = [str(compressor), "run", f"models/{model}/recipe.toml", "--out", out]
        command += ["--data", str(data.resolve())] if data else []
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
        bundle = min(Path(out).glob("*.tfb")).read_bytes()
    reference = read_reference(parse_bundle(bundle).files["reference.bin"])
    counts = np.array(reference.contexts[0].counts, np.float64).reshape(len(reference.streams), BINS)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def quiet_fleets(data: Path | None) -> dict[str, NDArray[np.float64]]:
    """Return the bin probabilities of quiet fleets by name: synthetic and, with ``data``, those of three bundles."""
    fleets = {"standing streams": standing_streams()}
    if data is not None:
        fleets["digits"] = bundle_streams("digits", None)
        fleets["meter digits"] = bundle_streams("meter_digits", data / "meter-digits" / "meter-digits-dev.zip")
        fleets["spoken digits"] = bundle_streams("spoken_digits", data / "fsdd" / "fsdd-4speakers.zip")
    return fleets


def measure(data: Path | None, *, quick: bool) -> list[tuple[str, dict[str, float], str, bool]]:
    """Return (what, figures, target, whether it holds) line by line."""
    size = Size(200, 6, 96) if quick else Size(1000, 12, 480)
    small = Size(100, 6, 48) if quick else Size(300, 12, 96)
    config, short = DriftConfig(baseline_windows=72), DriftConfig(baseline_windows=12)
    lines: list[tuple[str, dict[str, float], str, bool]] = []

    def line(what: str, figures: dict[str, float], asked: str, holds: Callable[[dict[str, float]], bool]) -> None:
        lines.append((what, figures, asked, holds(figures)))
        print(f"{'ok  ' if lines[-1][3] else 'MISS'} {what}: {_shown(figures)} (asked: {asked})", file=sys.stderr)

    line("null fleet", null_fleet(size, config), "<= 1 device alert", lambda f: f["device_alerts"] <= 1)
    line("null, baseline of 12 windows", quiet(World(small.devices, small.streams, 7), 2 * small.windows, short),
         "0 device alerts", lambda f: f["device_alerts"] == 0)  # fmt: skip
    for shift, asked in ((0.25, 24), (0.5, 4), (1.0, 2)):
        line(f"+{shift} sd in one stream", delay(small, config, shift), f"median <= {asked} windows",
             lambda f, asked=asked: f["median_windows"] <= asked)  # type: ignore[misc]  # fmt: skip
    line("one broken", one_broken(size, config), "flagged, pool quiet",
         lambda f: f["flagged_after_windows"] == 1 and f["pool_alerts"] == 0)  # fmt: skip
    line("fleet +0.1 sd", fleet_shift(size, config, 0.1), "pool <= 8 windows",
         lambda f: f["pool_after_windows"] in range(1, 9))  # fmt: skip
    line("AR(0.9) null", quiet(World(small.devices, small.streams, 5, rho=0.9), small.windows, config),
         "0 device alerts", lambda f: f["device_alerts"] == 0)  # fmt: skip
    line("day and night null", quiet(World(small.devices, small.streams, 6, season=1.0), small.windows, config),
         "0 device alerts", lambda f: f["device_alerts"] == f["pool_alerts"] == 0)  # fmt: skip
    for rho, memory in ((0.0, "independent"), (0.9, "10 minutes"), (0.99, "100 minutes"), (0.998, "8 hours")):
        found = dependent(World(100, 8, 7, rho=rho), 48 if quick else 240, config)
        line(f"100 devices, memory of {memory}", found, "0 where independent; else printed",
             lambda f, rho=rho: rho > 0 or f["device_alerts_a_day"] == 0)  # type: ignore[misc]  # fmt: skip
    for what, figures, asked, holds in dependence.rows(quick=quick):
        line(what, figures, asked, lambda _, holds=holds: holds)  # type: ignore[misc]
    windows = 200 if quick else 1000
    for name, probabilities in quiet_fleets(data).items():
        for devices in (2, 6, 12, 30, 100):
            line(f"quiet, {name}, {devices} devices", QuietFleet(probabilities, devices).verdicts(windows, config),
                 f"<= 1 pool verdict in {windows} windows", lambda f: f["pool_verdicts"] <= 1)  # fmt: skip
    return lines


def _row(what: str, figures: dict[str, float], asked: str, holds: bool) -> dict[str, object]:  # noqa: FBT001 - a line
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


def _shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures; return 0 if all targets hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller fleets: under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--data", type=Path, metavar="DIR", help="also fleets on bundles made of the data sets there")
    options = parser.parse_args(arguments)
    lines = measure(options.data, quick=options.quick)
    for what, figures, asked, holds in lines:
        print(f"{'ok  ' if holds else 'MISS'} {what:40} {asked:36} {_shown(figures)}")
    if options.json:
        options.json.write_text(json.dumps([_row(*line) for line in lines], indent=1))
    return 0 if all(holds for *_, holds in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
