"""The number of samples that a gate requires has the stated power."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.statistics.paired import EXACT_UP_TO, Paired, p_value, trinomial
from compressor.statistics.power import Plan, _least, approximate_samples_for, samples_for, samples_still_needed


def test_the_approximation_equals_the_documented_figures() -> None:
    """A 1-point margin: about 620 samples at 1 % discordance and 2,350 at 3.8 % by the textbook."""
    assert approximate_samples_for(0.01, 0.01) == pytest.approx(620, abs=2)
    assert approximate_samples_for(0.01, 0.038) == pytest.approx(2350, abs=2)


@pytest.mark.parametrize(("margin", "discordance"), [(0.02, 0.02), (0.01, 0.038), (0.05, 0.3)])
def test_the_samples_stated_have_the_power_and_keep_the_risk(margin: float, discordance: float) -> None:
    """At least 80 % of equal models pass there, at most 5 % of those that lose the margin."""
    n = samples_for(margin, discordance)
    assert (
        Plan(margin=margin, discordance=discordance).power(n)
        >= 0.8
        > Plan(margin=margin, discordance=discordance).power(int(0.95 * n)) - 0.02
    )
    assert Plan(margin=margin, discordance=max(margin, discordance), drop=margin).power(n) <= 0.05


def test_power_equals_the_sum_over_all_tables() -> None:
    """The sum over the number of discordant pairs equals that over the p-value of each table."""
    n, margin, discordance = 150, 0.04, 0.03
    tables = [(b, c) for b in range(14) for c in range(14 - b) if p_value(Paired(b, c, n), margin) <= 0.05]
    lost, won = np.array(tables, dtype=float).T
    summed = trinomial(lost, won, n, 0.0, discordance).sum()
    assert Plan(margin=margin, discordance=discordance).power(n) == pytest.approx(summed, abs=1e-3)


def test_without_discordance_the_rule_of_three_remains() -> None:
    """Equal predictions need about 3 / margin samples, not none."""
    assert samples_for(0.01, 0.0) == pytest.approx(300, abs=5)


def test_a_drop_that_is_the_margin_is_never_refuted() -> None:
    """No number of samples helps."""
    assert samples_for(0.01, 0.02, drop=0.01) == 0
    assert samples_still_needed(Paired(20, 5, 1000), 0.01) == 0


def test_four_of_five_pass_with_the_samples_still_needed() -> None:
    """Observed rows stay; the others are drawn at their rates."""
    seen, margin, runs = Paired(30, 28, 1000), 0.02, 400
    more = samples_still_needed(seen, margin)
    draws = np.random.default_rng(0).multinomial(more, [0.030, 0.028, 0.942], size=runs)
    passed = sum(p_value(Paired(30 + int(b), 28 + int(c), 1000 + more), margin) <= 0.05 for b, c, _ in draws)
    assert passed / runs >= 0.8 - 3 * np.sqrt(0.8 * 0.2 / runs)


@pytest.mark.parametrize("least", [101, 137, 138, 999])
def test_the_search_finds_the_least_number_to_the_precision_asked_for(least: int) -> None:
    """To one, and to one part in a hundred of the number."""
    assert _least(lambda n: n >= least, 100, 120, 10**9) == least
    assert least <= _least(lambda n: n >= least, 100, 120, 100) <= least * 1.01 + 1


@pytest.mark.parametrize(("margin", "n", "power"), [(0.97, 1, 1.0), (0.9, 1, 0.0), (0.97, 0, 0.0), (0.7, 3, 1.0)])
def test_the_power_of_very_few_samples(margin: float, n: int, power: float) -> None:
    """One sample refutes a drop of 97 points, none refutes anything."""
    assert Plan(margin=margin, discordance=0.0).power(n) == pytest.approx(power)


def test_nothing_seen_asks_for_the_plan() -> None:
    """Before the first sample, as many discordant pairs as the margin are assumed."""
    assert samples_still_needed(Paired(0, 0, 0), 0.02) == samples_for(0.02, 0.02)


@pytest.mark.parametrize(("seen", "margin"), [(Paired(40, 20, 1000), 0.03), (Paired(30, 20, 1000), 0.02)])
def test_the_samples_still_needed_cover_the_drop_already_seen(seen: Paired, margin: float) -> None:
    """The power at the observed rates, drop included, is 80 %, and below it with 7 % fewer samples."""
    plan = Plan(margin=margin, discordance=seen.discordance, drop=seen.drop, seen=seen)
    more = samples_still_needed(seen, margin)
    assert plan.power(seen.n + more) >= 0.8 > plan.power(seen.n + int(0.93 * more))


def test_one_more_sample_is_asked_for_where_one_is_enough() -> None:
    """400 equal answers already show a drop below a point."""
    assert samples_still_needed(Paired(0, 0, 400), 0.01) == 1


def test_a_p_value_that_equals_the_risk_passes() -> None:
    """Of 42 and 43 pairs without a drop, 21 may be lost: the score test gives 1.02 / 2, just the risk of 51 %."""
    plan = Plan(margin=0.0, discordance=0.4, confidence=0.49)
    assert plan._most_lost(np.array([42.0, 43.0]), 100, EXACT_UP_TO).tolist() == [21, 21]


@pytest.mark.parametrize(("drop", "n"), [(0.02, 3685), (-0.02, 148), (0.0, 413)])
def test_the_approximation_with_a_drop_is_nams_formula(drop: float, n: int) -> None:
    """6.1826 (0.06 - d^2) / (0.03 - d)^2: a drop both widens the spread and comes nearer to the margin."""
    assert approximate_samples_for(0.03, 0.06, drop=drop) == n
