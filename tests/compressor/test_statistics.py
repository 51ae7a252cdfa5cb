"""Bounds and p-values against published figures, enumeration and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from compressor.statistics.paired import (
    EXACT_UP_TO,
    Paired,
    _tables,
    drop_lower,
    drop_upper,
    exact_p_value,
    p_value,
    paired,
    proportion_bounds,
    score_statistic,
    score_upper,
    trinomial,
    wilson,
)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        (Paired(1, 7, 21), -0.517, -0.026),  # Fagerland, Lydersen, Laake 2014, airway reactivity
        (Paired(0, 1, 44), -0.118, 0.059),  # Tango 1998, soft contact lenses, 95 % two-sided
        (Paired(40, 20, 160), 0.031, 0.218),  # Agresti and Min 2005, PropCIs scoreci.mp
    ],
)
def test_score_bounds_equal_the_published_ones(counts: Paired, low: float, high: float) -> None:
    """Tango's interval is reproduced to three digits."""
    assert -score_upper(counts.swapped, 0.975) == pytest.approx(low, abs=6e-4)
    assert score_upper(counts, 0.975) == pytest.approx(high, abs=6e-4)


def test_score_statistic_without_margin_is_mcnemars() -> None:
    """At d = 0 the statistic is (b - c) / sqrt(b + c)."""
    value = float(score_statistic(np.array(1.0), np.array(7.0), 21, 0.0))
    assert value == pytest.approx(-6 / np.sqrt(8))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998 (Statistics in Medicine 17, 857-872), table I, method 3."""
    assert wilson(successes, n, 0.95) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize("n", [150, 400])
@pytest.mark.parametrize("excess", [1.0, 1.5, 3.0])
def test_at_most_five_percent_pass_at_the_margin_by_enumeration(n: int, excess: float) -> None:
    """The exact test keeps its risk for every discordance: all tables are enumerated, none simulated."""
    margin, discordance = 0.02, 0.02 * excess
    most = int(stats.binom.ppf(1 - 1e-6, n, discordance))
    tables = [(b, c) for b in range(most + 1) for c in range(min(most - b, EXACT_UP_TO - b) + 1)]
    passing = [(b, c) for b, c in tables if b / n < margin + c / n and exact_p_value(Paired(b, c, n), margin) <= 0.05]
    lost, won = np.array(passing, dtype=float).reshape(-1, 2).T
    assert trinomial(lost, won, n, margin, discordance).sum() <= 0.05


def test_at_most_five_percent_pass_at_the_margin_by_simulation() -> None:
    """A candidate that truly loses the margin passes at most 5 % of the time, also across the exact limit."""
    generator = np.random.default_rng(1)
    n, margin, runs = 2350, 0.01, 400
    draws = generator.multinomial(n, [0.024, 0.014, 0.962], size=runs)
    passed = sum(p_value(Paired(int(b), int(c), n), margin) <= 0.05 for b, c, _ in draws)
    assert passed / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)


def test_bound_and_p_value_agree() -> None:
    """A margin just above the bound is rejected, just below it is not."""
    for counts in (Paired(2, 1, 600), Paired(40, 30, 2000)):
        bound = drop_upper(counts, 0.95)
        assert p_value(counts, bound + 1e-4) <= 0.05 < p_value(counts, bound - 1e-4)


def test_no_loss_at_all_gives_the_rule_of_three() -> None:
    """Without discordant pairs the bound is 1 - 0.05^(1/n), about 3 / n."""
    assert drop_upper(Paired(0, 0, 400), 0.95) == pytest.approx(1 - 0.05 ** (1 / 400), rel=0.01)


def test_lower_bound_mirrors_the_upper_one() -> None:
    """Exchanging the classifiers changes the sign."""
    assert drop_lower(Paired(9, 2, 300), 0.9) == -drop_upper(Paired(2, 9, 300), 0.9)


def test_without_samples_nothing_is_known() -> None:
    """The bounds are the widest possible, the p-value is 1."""
    nothing = Paired(0, 0, 0)
    assert (drop_upper(nothing, 0.95), drop_lower(nothing, 0.95), p_value(nothing, 0.01)) == (1.0, -1.0, 1.0)
    assert wilson(0, 0, 0.95) == (0.0, 1.0)


def test_counts_what_was_lost_and_won() -> None:
    """Paired counts come from two boolean arrays."""
    before, after = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert paired(before, after) == Paired(1, 1, 4)


@pytest.mark.parametrize("drop", [0.0125, 0.009, 0.05])
def test_the_nuisance_is_the_root_of_tangos_equation(drop: float) -> None:
    """Whatever the sign and size of its linear term, which decides how the root is computed."""
    lost, won, n = 1.0, 1.0, 100
    terms = [2 * n, -lost - won + (2 * n - lost + won) * drop, -won * drop * (1 - drop)]
    variance = n * (2 * max(np.roots(terms)) + drop * (1 - drop))
    found = score_statistic(np.array(lost), np.array(won), n, drop)
    assert float(found) == pytest.approx((lost - won - n * drop) / variance**0.5)


def test_above_forty_discordant_pairs_the_cautious_score_test_decides() -> None:
    """The 41st pair changes the test, in the p-value as in the bound."""
    many, few = Paired(25, 16, 900), Paired(25, 15, 900)
    score = stats.norm.cdf(score_statistic(np.array(25.0), np.array(16.0), 900, 0.02))
    assert p_value(many, 0.02) == pytest.approx(1.02 * score)
    assert drop_upper(many, 0.95) == score_upper(many, 1 - 0.05 / 1.02)
    assert p_value(few, 0.02) == exact_p_value(few, 0.02)
    assert exact_p_value(few, drop_upper(few, 0.95)) == pytest.approx(0.05, abs=1e-3)


@pytest.mark.parametrize(("successes", "n"), [(0, 20), (1, 20), (7, 20), (19, 20), (20, 20)])
def test_bounds_of_one_proportion_equal_scipys(successes: int, n: int) -> None:
    """Clopper and Pearson's, one-sided at each end."""
    found = stats.binomtest(successes, n).proportion_ci(0.9, method="exact")
    assert proportion_bounds(successes, n, 0.95) == pytest.approx((found.low, found.high))


@pytest.mark.parametrize(("lost", "drop", "expected"), [(0.0, 0.0, 0.0), (0.0, 1.0, -np.inf), (3.0, -1.0, np.inf)])
def test_without_spread_the_statistic_is_decided_by_its_sign(lost: float, drop: float, expected: float) -> None:
    """Tango's variance is 0 there; nothing is divided by it."""
    with np.errstate(all="raise"):
        assert float(score_statistic(np.array(lost), np.array(0.0), 10, drop)) == expected


@pytest.mark.parametrize("n", [16, 27, 40])
def test_wilsons_interval_ends_at_0_and_1(n: int) -> None:
    """With these numbers the formula gives a little more than 1 or less than 0, by rounding."""
    assert (wilson(0, n, 0.95)[0], wilson(n, n, 0.95)[1]) == (pytest.approx(0.0), pytest.approx(1.0))
    assert (wilson(0, n, 0.95)[0] >= 0, wilson(n, n, 0.95)[1] <= 1) == (True, True)


def test_no_p_value_exceeds_one() -> None:
    """Above forty pairs the score test's is multiplied by its caution."""
    assert p_value(Paired(60, 0, 100), 0.01) == 1.0


@pytest.mark.parametrize(("cells", "n", "most"), [(3, 9, 3), (9, 3, 3)])
def test_every_table_is_enumerated_once(cells: int, n: int, most: int) -> None:
    """All numbers lost and won up to the bound, and no more than there are samples, by rising statistic."""
    statistic, lost, won = _tables(cells, n, 0.1, np.inf)
    expected = [(b, c) for b in range(most + 1) for c in range(most + 1 - b)]
    assert sorted(zip(lost, won, strict=True)) == expected
    assert (np.diff(statistic) >= 0).all()


def test_rows_with_a_source_each_are_counted_as_rows() -> None:
    """The exact test of independent rows is unchanged, number for number."""
    random = np.random.default_rng(0)
    before, after = random.random((2, 300)) < 0.9
    assert paired(before, after, np.arange(300).astype(str)) == paired(before, after)


def test_a_source_counts_once_and_parts_are_rounded_against_the_candidate() -> None:
    """Of two sources one lost a row of two, the other won one of three."""
    before = np.array([True, True, False, False, False])
    after = np.array([True, False, True, False, False])
    found = paired(before, after, np.array(["a", "a", "b", "b", "b"]))
    assert found == Paired(1, 0, 2, rows=5)
    assert found.counted == "2 sources with 5 rows"


@pytest.mark.parametrize(("rows", "alike"), [(3, 1.0), (10, 1.0), (3, 0.5)])
def test_rows_in_groups_pass_at_the_margin_no_more_often(rows: int, alike: float) -> None:
    """Frames of one scene, wholly or half alike; without sources 16, 32 and 8 % pass at a drop of the margin."""
    random, margin, passed = np.random.default_rng(rows), 0.05, 0
    sources = np.repeat(np.arange(150), rows).astype(str)
    for _ in range(300):
        own, shared = random.random((150, rows)), np.repeat(random.random((150, 1)), rows, axis=1)
        drawn = np.where(random.random((150, rows)) < alike**0.5, shared, own).ravel()
        lost, won = drawn < (0.12 + margin) / 2, drawn > 1 - (0.12 - margin) / 2
        passed += drop_upper(paired(~won, ~lost, sources), 0.95) <= margin
    assert passed / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5
