#!/usr/bin/env python3
"""Checks the gates by simulation and by enumeration: how often they pass wrongly, and how often rightly.

``gates.py [--quick] [--json FILE]``: at a true drop equal to the margin at most 5 % pass; without a drop, with the
number of samples from ``samples_for``, at least 80 %. Bisection finds how many of the discordant pairs may be lost:
among tables with equally many, the number lost decides. Rows without a target show why the textbook's number of samples
is too small: the power of the gate there, and of the best test that keeps the risk (a linear programme over all
tables). The gates on flips, slices, rankings and errors follow, at the margin and, in rows without a target, for a
model that is equal or nearly so. Where only its verdict counts, a gate on a drop is simulated by the p-value that
decides it, which costs a hundredth of its whole line; rows named "unlike" compare the two. ``--quick`` has fewer cases
and trials of every kind. Each row: what, ours, reference, ratio, target, met.
"""

# ruff: noqa: E402 - the path is set before the imports that need it
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from compressor.gates import AccuracyDrop, Evidence, FlipRatio, MetricDrop, Verdict, WorstSliceDrop
from compressor.gates.certificate import judge
from compressor.gates.evidence import GateRecipe
from compressor.gates.looks import FIRST, Look, share_of
from compressor.gates.metrics import ErrorCeiling
from compressor.statistics.bootstrap import Draws, auc_drop, error_increase
from compressor.statistics.paired import Paired, p_value, paired, score_upper, trinomial
from compressor.statistics.power import POWER, Plan, approximate_samples_for, samples_for
from scripts.bench.rows import Row, told

CASES = ((0.01, 0.01), (0.01, 0.038), (0.02, 0.05), (0.05, 0.3), (0.02, 0.02))
QUICK = CASES[:3]
RISK, TRIALS = 0.05, 20_000
COMPARED = 5  # simulated sets of slices that the gate itself judges too
NOISE = 3.0  # allowed standard errors of a simulation; the enumeration has none
PASS = Verdict.PASS
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
        passes = shown(Paired(middle, discordant - middle, n), RISK, margin)
        low, high = (middle, high) if passes else (low, middle - 1)
    return low


def unlike(margin: float, n: int, discordances: Sequence[int]) -> float:
    """Return the share of the tables beside the limit of ``most_lost`` at which the gate itself says otherwise."""
    differ = []
    for discordant in discordances:
        lost = most_lost(margin, n, discordant)
        for one in {max(lost, 0), min(lost + 1, discordant)}:
            counts = Paired(one, discordant - one, n)
            says = AccuracyDrop(margin).judge(Evidence(accuracy=counts)).verdict is PASS
            differ.append(says != (one <= lost))
    return float(np.mean(differ))


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
        differing = unlike(
            margin, n, (0, round(n * discordance / 2), round(n * discordance), round(2 * n * discordance))
        )
        yield Row(
            f"the gate's verdict is that of its p-value, {name}, n={n}: unlike", differing, None, "0", not differing
        )
        yield Row(f"samples (textbook), {name}", float(n), float(textbook))
        few = textbook * max(discordance, margin) < 10  # noqa: PLR2004 - a linear programme of few tables
        power = Plan(margin=margin, discordance=discordance).power(textbook)
        yield Row(f"power at the textbook's n={textbook}, {name}" + few * " (best test there is)", power,
                  best_power(textbook, margin, discordance) if few else None)  # fmt: skip


def risk_row(what: str, share: float, trials: int) -> Row:
    """Return the row of a simulated share of false passes: at most 5 % and two standard errors."""
    return Row(f"{what}: passes at the margin", share, RISK, "<= .05 + 2 se", share <= RISK + allowed(trials))


def allowed(trials: int) -> float:
    """Return two standard errors of a share of 5 % of ``trials``."""
    return float(2 * (RISK * (1 - RISK) / trials) ** 0.5)


def flip_rows() -> Iterator[Row]:
    """Yield how often a flip ratio at its limit passes, and one at a third of it; enumerated."""
    for limit, n in ((0.03, 88), (0.02, 300), (0.03, 150), (0.03, 200), (0.02, 1000), (0.02, 3000)):
        judged = (FlipRatio(limit).judge(Evidence(compressed=Paired(0, 0, n), flips=flips)) for flips in range(n))
        passing = [flips for flips, result in enumerate(judged) if result.verdict is Verdict.PASS]
        share, power = (float(stats.binom.pmf(passing, n, truly).sum()) for truly in (limit, limit / 3))
        yield Row(f"flip_ratio at the limit, {limit:.0%}, n={n}", share, RISK, "<= 0.05", share <= RISK)
        yield Row(f"flip_ratio at a third of the limit, {limit:.0%}, n={n}", power)


def slice_rows(trials: int) -> Iterator[Row]:
    """Yield how often the gate passes with one slice at the margin, and with none that is worse."""
    margin = 0.05
    for slices, n, discordance in ((3, 150, 0.12), (3, 400, 0.08), (10, 400, 0.08)):
        what = f"worst_slice_drop, {slices} slices of {n}, discordance {discordance:.0%}"
        for worst in (margin, 0.0):
            generator, passes, unlike_gate = np.random.default_rng(n + slices), [], 0
            for trial in range(trials):
                counts = []
                for drop in (worst, *[0.0] * (slices - 1)):
                    shares = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
                    lost, won, _ = generator.multinomial(n, shares).tolist()
                    counts.append(Paired(lost, won, n))
                passes.append(all(shown(one, RISK, margin) for one in counts))
                if trial < COMPARED:
                    named = Evidence(slices={str(number): one for number, one in enumerate(counts)})
                    unlike_gate += (WorstSliceDrop(margin).judge(named).verdict is PASS) != passes[-1]
            share = float(np.mean(passes))
            yield risk_row(what, share, trials) if worst else Row(f"{what}: passes, no slice worse", share)
            yield Row(f"{what}: verdicts unlike those of the p-values", unlike_gate, None, "0", not unlike_gate)


def auc_rows(trials: int, draws: Draws) -> Iterator[Row]:
    """Yield how often an area under the curve that is worse by the margin passes, and one that is equal.

    ``noise``: every score is disturbed; ``rare``: 3 in 100 positives fall to the bottom.
    """
    area, disturbed = special.ndtr(1.5 / 2**0.5), special.ndtr(1.5 / (2 * 1.36) ** 0.5)
    for positives, negatives in ((20, 20), (20, 300), (40, 300), (100, 300), (400, 1200)):
        for kind, margin in (("noise", area - disturbed), ("rare", 0.03 * area), ("equal", 0.02)):
            generator, labels, passed = np.random.default_rng(positives), np.repeat([1, 0], [positives, negatives]), 0
            for _ in range(trials):
                before = generator.normal(size=len(labels)) + 1.5 * labels
                after = before + {"noise": 0.6, "rare": 0.0, "equal": 0.02}[kind] * generator.normal(size=len(labels))
                if kind == "rare":
                    after[(generator.random(len(labels)) < 0.03) & (labels == 1)] = -99.0  # noqa: PLR2004 - 3 in 100
                found = auc_drop(labels, before, after, draws)
                passed += MetricDrop("auc_drop", margin).judge(Evidence(metrics={"auc_drop": found})).verdict is PASS
            what, share = f"auc_drop, {positives} positives, {negatives} negatives, {kind}", passed / trials
            yield Row(f"{what}, margin {margin:g}: passes", share) if kind == "equal" else risk_row(what, share, trials)


def error_rows(trials: int, draws: Draws) -> Iterator[Row]:
    """Yield how often an error that equals its limit passes, of several distributions, and one at two thirds of it."""
    errors = {
        "lognormal(1.5)": (lambda random, n: random.lognormal(0, 1.5, n), float(np.exp(1.125))),
        "98 % zeros, else exponential": (lambda random, n: (random.random(n) < 0.02) * random.exponential(1, n), 0.02),  # noqa: PLR2004 - 2 in 100
        "t with 3 degrees": (lambda random, n: np.abs(random.standard_t(3, n)), float(2 * 3**0.5 / np.pi)),
        "Laplace": (lambda random, n: random.exponential(1, n), 1.0),
        "normal": (lambda random, n: np.abs(random.normal(size=n)), float((2 / np.pi) ** 0.5)),
    }
    for name, (drawn, mean) in errors.items():
        for n in (150, 500, 2000):
            generator, passed = np.random.default_rng(n), {1.0: 0, 1.5: 0}
            for _ in range(trials):
                found = error_increase(np.zeros(n), np.zeros(n), drawn(generator, n), draws)
                for factor in passed:
                    result = ErrorCeiling("mae", factor * mean).judge(Evidence(metrics={"mae": found}))
                    passed[factor] += result.verdict is PASS
            yield risk_row(f"mae, errors {name}, n={n}", passed[1.0] / trials, trials)
            yield Row(f"mae, errors {name}, n={n}: passes at two thirds of the limit", passed[1.5] / trials)


def group_rows(trials: int) -> Iterator[Row]:
    """Yield how often a drop of the margin passes if rows are frames of few scenes, and how often an equal model does.

    ``alike``: the correlation of the outcomes within a scene; 150 scenes, or 150 of 1 to 19 frames.
    """
    margin, discordance, scenes = 0.05, 0.12, 150
    for frames, alike in ((3, 1.0), (10, 1.0), (3, 0.5), (10, 0.5), (0, 1.0)):
        for drop in (margin, 0.0):
            generator, passed = np.random.default_rng(frames), 0
            for _ in range(trials):
                sizes = generator.integers(1, 20, scenes) if frames == 0 else np.full(scenes, frames)
                sources = np.repeat(np.arange(scenes), sizes)
                own, shared = generator.random(len(sources)), generator.random(scenes)[sources]
                drawn = np.where(generator.random(len(sources)) < alike**0.5, shared, own)
                lost, won = drawn < (discordance + drop) / 2, drawn > 1 - (discordance - drop) / 2
                passed += shown(paired(~won, ~lost, sources), RISK, margin)
            what = f"accuracy_drop, {scenes} scenes of {frames or '1 to 19'} frames, {alike:.0%} alike"
            share = passed / trials
            yield risk_row(what, share, trials) if drop else Row(f"{what}: an equal model passes", share)


def look_rows(trials: int) -> Iterator[Row]:
    """Yield how often one of K candidates at the margin passes on one split, and one that is judged as rows are added.

    The reference is the same with the whole risk for every look; the rows without a target are power, of an equal
    model, at the first look and at the last.
    """
    n, shares, equal = 600, [0.035, 0.015, 0.95], [0.025, 0.025, 0.95]
    for looks in (3, 5, 10):
        lots = np.random.default_rng(looks).multinomial(n, shares, size=(trials, looks)).tolist()
        drawn = np.random.default_rng(looks + 1).multinomial(n, equal, size=trials).tolist()
        uncounted = float(np.mean([any(drawn_shown(one, RISK) for one in lot) for lot in lots]))
        for planned in (0, looks):
            risks = [RISK * share_of(number, planned) for number in range(1, looks + 1)]
            passed = [any(drawn_shown(one, risk) for one, risk in zip(lot, risks, strict=True)) for lot in lots]
            share, plan = float(np.mean(passed)), f"{looks} planned" if planned else "no plan"
            what = f"{looks} candidates on one split of {n}, {plan}"
            met = share <= RISK + allowed(trials)
            yield Row(f"{what}, all at the margin: one passes", share, uncounted, "<= .05 + 2 se", met)
            whole = float(np.mean([drawn_shown(one, RISK) for one in drawn]))
            for number in (1, looks):
                power = float(np.mean([drawn_shown(one, risks[number - 1]) for one in drawn]))
                yield Row(f"{what}: an equal one passes at look {number}", power, whole)
    yield from grown_rows(trials)
    for margin, discordance in ((0.01, 0.038), (0.02, 0.05)):
        plan_of_one = Plan(margin=margin, discordance=discordance)
        n = samples_for(margin, discordance)
        name = f"margin {margin:.0%}, discordance {discordance:.1%}, n={n}: an equal model passes at the first look"
        for first in (FIRST, 0.8, 6 / np.pi**2):
            power = replace(plan_of_one, confidence=1 - RISK * first).power(n)
            yield Row(f"{name} with {first:.2f} of the risk", power, plan_of_one.power(n))
        for times in (1, 2):
            yield Row(f"{name}, {times} n, by a bet valid at any look", bet_power(plan_of_one, times * n, trials))


def grown_rows(trials: int) -> Iterator[Row]:
    """Yield how often a candidate passes that is judged after 300, 600 and 1,200 rows, or as often as the gate advises.

    The advice is followed until the gate passes or fails, for at most five looks.
    """
    shares, equal, sizes = [0.035, 0.015, 0.95], [0.025, 0.025, 0.95], (300, 600, 1200)
    for truly, name in ((shares, "at the margin"), (equal, "equal")):
        generator, passed = np.random.default_rng(7), [0, 0]
        for _ in range(trials):
            seen = np.cumsum([generator.multinomial(rest, truly) for rest in np.diff([0, *sizes])], axis=0).tolist()
            for i, first in enumerate((share_of, lambda _number: 1.0)):
                passed[i] += any(drawn_shown(one, RISK * first(number)) for number, one in enumerate(seen, start=1))
        what, (counted, uncounted) = f"one candidate {name}, judged after 300, 600 and 1,200 rows: passes", passed
        met = counted / trials <= RISK + allowed(trials) if truly is shares else None
        target = "" if met is None else "<= .05 + 2 se"
        yield Row(what, counted / trials, uncounted / trials, target, met)
    rule, few = GateRecipe(name="accuracy_drop", max=0.02), max(trials // 10, 20)
    for truly, name in ((shares, "at the margin"), (equal, "equal")):
        generator, passes, rows, looks = np.random.default_rng(8), 0, 0, 0
        for _ in range(few):
            drawn = np.zeros(3, dtype=np.int64)
            more = 300
            for number in range(1, 6):
                look = Look(number=number)
                drawn += generator.multinomial(more, truly)
                counts = Paired(int(drawn[0]), int(drawn[1]), int(drawn.sum()))
                result = judge(look.rules([rule]), Evidence(accuracy=counts), look).results[0]
                more = result.needs
                if result.verdict is not Verdict.INCONCLUSIVE or more > 20 * counts.n:
                    break
            looks, rows, passes = looks + number, rows + counts.n, passes + (result.verdict is PASS)
        share = passes / few
        met = share <= RISK + allowed(few) if truly is shares else None
        target = "" if met is None else "<= .05 + 2 se"
        yield Row(f"one candidate {name}, 300 rows, then as many as the gate says: passes", share, None, target, met)
        yield Row(f"one candidate {name}, as the gate says: rows in the mean", rows / few, 300)
        yield Row(f"one candidate {name}, as the gate says: looks in the mean", looks / few, 1)


def bet_power(plan: Plan, n: int, trials: int) -> float:
    """Return how often a bet against a drop of the margin has won 20 times the stake after ``n`` pairs.

    A mixture of constant bets; valid at any look, with any number of rows (Waudby-Smith, Ramdas, JRSS B 86, 2024).
    """
    bets = np.linspace(0.05, 0.95, 19) / (1 - plan.margin)
    half = plan.discordance / 2
    lost, won, rest = np.random.default_rng(n).multinomial(n, [half, half, 1 - 2 * half], size=trials).T[..., None]
    gains = [np.log1p(bets * (plan.margin - outcome)) for outcome in (1, -1, 0)]
    wealth = special.logsumexp(lost * gains[0] + won * gains[1] + rest * gains[2], axis=1) - np.log(len(bets))
    return float(np.mean(wealth >= -np.log(RISK)))


def drawn_shown(drawn: list[int], risk: float) -> bool:
    """Return whether the gate with a margin of 2 points passes at ``risk`` on the rows lost, won and equal."""
    return shown(Paired(drawn[0], drawn[1], sum(drawn)), risk, 0.02)


@cache
def shown(counts: Paired, risk: float, margin: float) -> bool:
    """Return whether the p-value at the margin is at most the risk: there the gate passes (a test compares them)."""
    return p_value(counts, margin, risk) <= risk


def main() -> int:
    """Measure, print, and return whether the targets were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cases and trials")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args()
    cases, trials, sets = (QUICK, TRIALS // 4, 40) if options.quick else (CASES, TRIALS, TRIALS // 20)
    few, draws = trials // 20, Draws(replicates=200 if options.quick else 500)
    lines = [
        *rows(cases, trials),
        *flip_rows(),
        *slice_rows(few),
        *group_rows(few),
        *look_rows(few),
        *auc_rows(sets, draws),
        *error_rows(sets, draws),
    ]
    return told(lines, options.json)


if __name__ == "__main__":
    sys.exit(main())
