#!/usr/bin/env python3
"""Checks the gates on calibration error and on a regression's error by simulation: how often they pass wrongly.

``metric_gates.py [--quick] [--json FILE]``: candidates whose true increase equals the margin pass in at most 5 % of the
trials, in whichever way they are worse; rows without a target show how often an equal model passes. The true increase
of the calibration error is that of two million samples in the same bins. Each row: what, ours, reference, ratio,
target, met (null: no target).
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray

from compressor.gates.evidence import Evidence, Verdict
from compressor.gates.metrics import ERRORS, SLICE, ErrorCeiling, MetricDrop, WorstSliceIncrease, level_of
from compressor.statistics.bootstrap import Draws, error_increase
from compressor.statistics.confidence_calibration import BINS, calibration_error_increase
from scripts.bench.rows import Row, told

Floats = NDArray[np.float64]
RISK, TRIALS = 0.05, 1000
NOISE = 3.0  # allowed standard errors of a simulation
SIZES = ((500, 0.05), (1000, 0.03), (1000, 0.08), (2000, 0.02), (5000, 0.02))
QUICK = SIZES[:2]
_MANY = 2_000_000
_CALIBRATION = "calibration_error_increase"
_REPLICATES = 500

# Map the probability that a sample is right, and the size of the change, to the confidences of both models.
CHANGES: dict[str, Callable[[Floats, float], tuple[Floats, Floats]]] = {
    "surer, from exact": lambda chance, size: (chance, np.minimum(chance + size, 0.9999)),
    "less sure, from exact": lambda chance, size: (chance, chance - size),
    "less sure, from 5 points off": lambda chance, size: (chance - 0.05, chance - 0.05 - size),
    "surer and less sure by turns": lambda chance, size: (chance, _by_turns(chance, size)),
}


def _by_turns(chance: Floats, size: float) -> Floats:
    return np.minimum(chance + np.where((chance * BINS).astype(int) % 2 == 0, size, -size), 0.9999)


def chances(generator: np.random.Generator, n: int, *, accurate: bool = False) -> Floats:
    """Return the probability of each of ``n`` samples to be right, 0.6 to 0.999; about 86 % are right, or 97 %."""
    drawn = generator.beta(30, 0.6, n) if accurate else generator.beta(6, 1.2, n)
    return np.clip(drawn, 0.6, 0.999)


def scores(confidence: Floats, right: NDArray[np.bool_]) -> Floats:
    """Return log-probabilities of two classes, (N, 2), label 0, whose prediction is ``right`` with this confidence."""
    return np.log(np.where(right[:, None], np.c_[confidence, 1 - confidence], np.c_[1 - confidence, confidence]))


def root_error(chance: Floats, confidence: Floats) -> float:
    """Return the root mean square calibration error, for very many samples."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    means = np.bincount(place, chance - confidence, minlength=BINS) / np.maximum(counts, 1)
    return float((counts @ means**2 / len(chance)) ** 0.5)


def calibration(change: str, n: int, size: float, trials: int, *, accurate: bool = False) -> tuple[float, float]:
    """Return the true increase and the share of ``trials`` that pass a margin equal to it."""
    generator, change_to = np.random.default_rng(n), CHANGES[change]
    many = chances(generator, _MANY, accurate=accurate)
    margin = float(np.subtract(*(root_error(many, confidence) for confidence in change_to(many, size)[::-1])))
    passed = 0
    for _ in range(trials):
        chance = chances(generator, n, accurate=accurate)
        right = generator.random(n) < chance
        passed += passes(change_to(chance, size), (right, right), margin)
    return margin, passed / trials


def passes(confidences: tuple[Floats, Floats], right: tuple[NDArray[np.bool_], ...], margin: float) -> bool:
    """Return whether the gate passes for baseline and candidate with these confidences."""
    before, after = (scores(*pair) for pair in zip(confidences, right, strict=True))
    found = calibration_error_increase(np.zeros(len(before), dtype=np.int64), before, after, Draws())
    return MetricDrop(_CALIBRATION, margin).judge(Evidence(metrics={_CALIBRATION: found})).verdict is Verdict.PASS


def equal(n: int, margin: float, trials: int) -> float:
    """Return how often a candidate passes that is off by 3 points like the baseline, except for a little rounding."""
    generator, passed = np.random.default_rng(n), 0
    for _ in range(trials):
        chance = chances(generator, n)
        right = generator.random(n) < chance
        before = chance - 0.03
        passed += passes((before, before + generator.normal(0, 0.005, n)), (right, right), margin)
    return passed / trials


def worst_slice(n: int, slices: int, trials: int) -> float:
    """Return the share that passes if the error of one of ``slices`` grew by the margin, with heavy tails."""
    generator, passed = np.random.default_rng(n), 0
    draws = Draws(level_of(0.95, slices), _REPLICATES)
    for _ in range(trials):
        metrics = {}
        for number in range(slices):
            before = generator.standard_t(4, n)
            after = before * generator.lognormal(0, 0.3, n) * (1.3 if number == 0 else 1.0) / np.exp(0.3**2 / 2)
            metrics[f"{SLICE}{number}"] = error_increase(np.zeros(n), before, after, draws)
        margin = 0.3 * _MEAN_T4
        passed += WorstSliceIncrease(margin).judge(Evidence(metrics=metrics)).verdict is Verdict.PASS
    return passed / trials


def ceiling(n: int, trials: int, *, squared: bool) -> float:
    """Return the share that passes whose true error, with Laplace's heavy tails, equals the limit."""
    generator, name, limit = np.random.default_rng(n), ERRORS[squared], 2**0.5 if squared else 1.0
    passed = 0
    for _ in range(trials):
        said = generator.laplace(0, 1, n)
        found = error_increase(np.zeros(n), np.zeros(n), said, Draws(0.95, _REPLICATES), squared=squared)
        passed += ErrorCeiling(name, limit).judge(Evidence(metrics={name: found})).verdict is Verdict.PASS
    return passed / trials


_MEAN_T4 = 1.0
"""The mean absolute value of Student's t with 4 degrees of freedom: 2 sqrt(4) Gamma(5/2) / (sqrt(pi) Gamma(2) 3)."""


def measured(sizes: tuple[tuple[int, float], ...], trials: int) -> Iterator[Row]:
    """Yield all rows."""
    allowed = RISK + NOISE * (RISK * (1 - RISK) / trials) ** 0.5
    for change in CHANGES:
        for n, size in sizes:
            margin, share = calibration(change, n, size, trials)
            what = f"{_CALIBRATION}: {change}, n {n}, at the margin {margin:.3f}"
            yield Row(what, share, RISK, "<= 5 %", share <= allowed)
    margin, share = calibration("less sure, from exact", 2000, 0.02, trials, accurate=True)
    what = f"{_CALIBRATION}: 97 % right, n 2000, at the margin {margin:.3f}"
    yield Row(what, share, RISK, "<= 5 %", share <= allowed)
    for n, margin in ((1000, 0.05), (2500, 0.03), (5000, 0.02)):
        yield Row(f"{_CALIBRATION}: equal model, n {n}, margin {margin:g}", equal(n, margin, trials // 4))
    rough = RISK + NOISE * (RISK * (1 - RISK) / (trials // 2)) ** 0.5
    for name in ERRORS:
        share = ceiling(300, trials // 2, squared=name == "rmse")
        yield Row(f"{name}: true error at the limit, n 300", share, RISK, "<= 5 %", share <= rough)
    for n in (100, 400):
        share = worst_slice(n, 3, trials // 4)
        rough = RISK + NOISE * (RISK * (1 - RISK) / (trials // 4)) ** 0.5
        what = f"worst_slice_error_increase: one of 3 at the margin, n {n} each"
        yield Row(what, share, RISK, "<= 5 %", share <= rough)


def main() -> int:
    """Print the rows; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    return told(list(measured(QUICK if options.quick else SIZES, 200 if options.quick else TRIALS)), options.json)


if __name__ == "__main__":
    sys.exit(main())
