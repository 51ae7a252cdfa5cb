#!/usr/bin/env python3
"""Checks the accuracy gate by simulation and by enumeration: how often it passes wrongly, and how often rightly.

``gates.py [--quick] [--json FILE]``: at a true drop equal to the margin at most 5 % pass; without a drop, with the
number of samples from ``samples_for``, at least 80 %. Bisection over ``AccuracyDrop.judge`` itself finds how many of
the discordant pairs may be lost: among tables with equally many, the number lost decides. Rows without a target show
why the textbook's number of samples is too small: the power of the gate there, and of the best test that keeps the risk
(a linear programme over all tables). Each row: what, ours, reference, ratio, target, met (null: no target).
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from compressor.gates import AccuracyDrop, Evidence, Verdict
from compressor.statistics.paired import Paired, score_upper, trinomial
from compressor.statistics.power import POWER, Plan, approximate_samples_for, samples_for
from scripts.bench.rows import Row, told

CASES = ((0.01, 0.01), (0.01, 0.038), (0.02, 0.05), (0.05, 0.3), (0.02, 0.02))
QUICK = CASES[:3]
RISK, TRIALS = 0.05, 20_000
NOISE = 3.0  # allowed standard errors of a simulation; the enumeration has none
_NUISANCES, _REACH = 60, 4.0
PUBLISHED = (
    ("airway reactivity (Bentur 2009; Fagerland, Lydersen, Laake 2014)", Paired(1, 7, 21), -0.517, -0.026),
    ("soft contact lenses (Tango 1998)", Paired(0, 1, 44), -0.118, 0.059),
    ("Agresti and Min 2005 (PropCIs scoreci.mp)", Paired(40, 20, 160), 0.031, 0.218),
)


def passing(n: int, margin: float, discordance: float, drop: float, trials: int) -> float:
    """Return the share of ``trials`` simulated sets of ``n`` samples that the gate passes."""
    generator = np.random.default_rng(n)
    shares = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    lost, won, _ = generator.multinomial(n, shares, size=trials).T
    allowed = {total: most_lost(margin, n, total) for total in np.unique(lost + won).tolist()}
    return float(np.mean([b <= allowed[b + c] for b, c in zip(lost.tolist(), won.tolist(), strict=True)]))


@cache
def most_lost(margin: float, n: int, discordant: int) -> int:
    """Return the most of ``discordant`` pairs that may be lost while the gate passes; -1: none."""
    low, high = -1, discordant
    while low < high:
        middle = (low + high + 1) // 2
        evidence = Evidence(accuracy=Paired(middle, discordant - middle, n))
        passes = AccuracyDrop(margin).judge(evidence).verdict is Verdict.PASS
        low, high = (middle, high) if passes else (low, middle - 1)
    return low


def best_power(n: int, margin: float, discordance: float) -> float:
    """Return the power, without a drop, of the best test whose risk is at most 5 % for every discordance."""
    edge = int(_REACH * n * max(discordance, margin)) + 10
    lost, won = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(edge), np.arange(edge)))
    nuisances = np.linspace(margin, _REACH * max(discordance, margin), _NUISANCES)[:, None]
    risks: NDArray[np.float64] = trinomial(lost, won, n, margin, nuisances)
    gain = trinomial(lost, won, n, 0.0, discordance)
    found = optimize.linprog(-gain, A_ub=risks, b_ub=np.full(len(risks), RISK), bounds=(0, 1), method="highs")
    return float(-found.fun)


def rows(cases: tuple[tuple[float, float], ...], trials: int) -> Iterator[Row]:
    """Yield all lines; the reference of a simulated share is the enumerated one."""
    slack = NOISE * (RISK * (1 - RISK) / trials) ** 0.5
    for what, counts, low, high in PUBLISHED:
        wrong = max(abs(score_upper(counts, 0.975) - high), abs(-score_upper(counts.swapped, 0.975) - low))
        yield Row(f"published interval, largest difference: {what}", wrong, None, "<= 0.0006", wrong <= 6e-4)  # noqa: PLR2004 - the target beside it
    for margin, discordance in cases:
        n, textbook = samples_for(margin, discordance), approximate_samples_for(margin, discordance)
        name = f"margin {margin:.1%}, discordance {discordance:.1%}"
        for truly in sorted({max(discordance, margin), max(discordance, 1.5 * margin)}):
            exact = Plan(margin=margin, discordance=truly, drop=margin).power(n)
            ours = passing(n, margin, truly, margin, trials)
            met = exact <= RISK and ours <= RISK + slack
            yield Row(f"pass at drop = margin, {name} ({truly:.1%} at the margin), n={n}", ours, exact, "<= 0.05", met)
        exact, ours = (
            Plan(margin=margin, discordance=discordance).power(n),
            passing(n, margin, discordance, 0.0, trials),
        )
        met = exact >= POWER and ours >= POWER - 2 * slack
        yield Row(f"pass at no drop, {name}, n={n}", ours, exact, ">= 0.80", met)
        yield Row(f"samples (textbook), {name}", float(n), float(textbook))
        few = textbook * max(discordance, margin) < 10  # noqa: PLR2004 - a linear programme of few tables
        power = Plan(margin=margin, discordance=discordance).power(textbook)
        yield Row(f"power at the textbook's n={textbook}, {name}" + few * " (best test there is)", power,
                  best_power(textbook, margin, discordance) if few else None)  # fmt: skip


def main() -> int:
    """Measure, print, and return whether the targets were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and trials")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args()
    cases, trials = (QUICK, TRIALS // 4) if options.quick else (CASES, TRIALS)
    return told(list(rows(cases, trials)), options.json)


if __name__ == "__main__":
    sys.exit(main())
