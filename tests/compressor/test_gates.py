"""Three verdicts, and nothing passes by being absent."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from compressor.gates import (
    AccuracyDrop,
    AllOf,
    Evidence,
    Figure,
    FlipRatio,
    Superiority,
    Verdict,
    WorstSliceDrop,
)
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import KINDS, gate
from compressor.statistics.paired import Paired, proportion_bounds
from compressor.statistics.power import samples_for, samples_still_needed

FIGURES = tuple(name for name, kind in KINDS.items() if kind.make is None)
LIMITED = ("accuracy_drop", "worst_slice_drop", "worst_class_drop", "flip_ratio", "negative_flip_ratio")


@pytest.mark.parametrize("name", [*LIMITED, "superiority", "accuracy", *FIGURES])
def test_a_missing_measurement_fails(name: str) -> None:
    """Every gate fails on empty evidence."""
    made = gate(KINDS[name].rule(0.5))
    assert made is not None
    assert made.judge(Evidence()).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", [*LIMITED, "superiority", "accuracy", "auc_drop", "mae", *FIGURES])
def test_an_unknown_measurement_fails_its_own_gate_with_the_reason(name: str) -> None:
    """The line has the reason why it could not be measured; the reason of another gate is not there."""
    made = gate(KINDS[name].rule(0.5))
    assert made is not None
    known, other = (made.judge(Evidence(unknown={key: "the child was killed"})) for key in (name, "another"))
    assert known.verdict is other.verdict is Verdict.FAIL
    assert "unknown (the child was killed)" in known.text
    assert "killed" not in other.text


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        (Paired(1, 1, 620), Verdict.PASS),
        (Paired(3, 1, 300), Verdict.INCONCLUSIVE),
        (Paired(60, 10, 1000), Verdict.FAIL),
        (Paired(30, 5, 2350), Verdict.FAIL),
    ],
)
def test_accuracy_has_three_verdicts(counts: Paired, verdict: Verdict) -> None:
    """Shown, not shown yet, refuted or hopeless."""
    assert AccuracyDrop(0.01).judge(Evidence(accuracy=counts)).verdict is verdict


def test_inconclusive_says_how_many_more_are_needed() -> None:
    """The number is in the result and in the text."""
    result = AccuracyDrop(0.01).judge(Evidence(accuracy=Paired(1, 1, 200)))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.needs > 50
    assert f"needs about {result.needs} more" in result.text


@pytest.mark.parametrize(
    ("counts", "margin", "needs"),
    [
        (Paired(1, 1, 200), 0.01, samples_still_needed(Paired(1, 1, 200), 0.01)),
        (Paired(4, 1, 200), 0.01, samples_for(0.01, 5 / 200) - 200),
        (Paired(3, 1, 200), 0.01, samples_for(0.01, 4 / 200) - 200),
    ],
)
def test_the_number_that_is_asked_for_goes_by_what_was_seen(counts: Paired, margin: float, needs: int) -> None:
    """Below the margin the number that gives the power at the observed rates, above it the plan's missing ones."""
    result = AccuracyDrop(margin).judge(Evidence(accuracy=counts))
    assert (result.verdict, result.needs) == (Verdict.INCONCLUSIVE, needs)


@pytest.mark.parametrize(("n", "verdict", "needs"), [(56, Verdict.INCONCLUSIVE, 1), (57, Verdict.FAIL, 0)])
def test_a_drop_above_the_margin_fails_once_all_planned_samples_are_there(n: int, verdict: Verdict, needs: int) -> None:
    """57 show an equal model at this discordance: asking for more would be another draw of the same lot."""
    assert samples_for(0.2, 20 / n) == 57
    result = AccuracyDrop(0.2).judge(Evidence(accuracy=Paired(16, 4, n)))
    assert (result.verdict, result.needs) == (verdict, needs)


def test_a_slice_asks_for_the_number_of_the_level_at_which_it_is_tested() -> None:
    """All slices must pass, so each is tested at the full risk."""
    result = WorstSliceDrop(0.05).judge(Evidence(slices={"a": Paired(0, 0, 900), "b": Paired(0, 0, 10)}))
    assert result.needs == samples_still_needed(Paired(0, 0, 10), 0.05)


def test_superiority_asks_for_the_samples_that_show_it() -> None:
    """A gain of nothing at least is to be refuted at the rates seen."""
    result = Superiority().judge(Evidence(drifted=Paired(2, 4, 100)))
    assert result.needs == samples_still_needed(Paired(2, 4, 100), 0.0) > 0


@pytest.mark.parametrize(("flips", "limit"), [(15, 0.02), (1, 0.002)])
def test_flips_ask_for_the_least_number_that_passes_at_the_same_share(flips: int, limit: float) -> None:
    """With that number the bound is within the limit, with one sample less it is not."""
    made = gate(GateRecipe(name="flip_ratio", max=limit))
    assert made is not None
    needs = made.judge(Evidence(compressed=Paired(0, 0, 1000), flips=flips)).needs
    n, share = 1000 + needs, flips / 1000
    bounds = [proportion_bounds(math.ceil(share * of), of, 0.95)[1] for of in (n, n - 1)]
    assert bounds[0] <= limit < bounds[1]


def test_accuracy_says_how_many_samples_have_the_power() -> None:
    """The number at the discordance that was seen, whatever the verdict."""
    result = AccuracyDrop(0.05).judge(Evidence(accuracy=Paired(45, 45, 300)))
    assert f"; {samples_for(0.05, 0.3)} samples show an equal model with 80% power at 30.00 %" in result.text


def test_one_bad_slice_fails_a_good_average() -> None:
    """A site that falls is found although the others make up for it."""
    slices = {"a": Paired(0, 30, 1000), "b": Paired(45, 0, 100)}
    result = WorstSliceDrop(0.05).judge(Evidence(slices=slices))
    assert result.verdict is Verdict.FAIL
    assert "'b'" in result.text


def test_a_slice_too_small_to_judge_is_inconclusive() -> None:
    """Ten samples without any loss show nothing at five points."""
    result = WorstSliceDrop(0.05).judge(Evidence(slices={"a": Paired(0, 0, 900), "b": Paired(0, 0, 10)}))
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.n == 10


def test_classes_are_judged_like_slices() -> None:
    """The class gate reads the classes."""
    made = gate(GateRecipe(name="worst_class_drop", max=0.05))
    assert made is not None
    result = made.judge(Evidence(classes={"7": Paired(0, 0, 500)}))
    assert (result.name, result.verdict) == ("worst_class_drop", Verdict.PASS)


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [(Paired(2, 30, 100), Verdict.PASS), (Paired(2, 4, 100), Verdict.INCONCLUSIVE), (Paired(0, 0, 100), Verdict.FAIL)],
)
def test_superiority_must_be_shown(counts: Paired, verdict: Verdict) -> None:
    """Better with confidence, better without, not better."""
    assert Superiority().judge(Evidence(drifted=counts)).verdict is verdict


@pytest.mark.parametrize(("flips", "verdict"), [(2, Verdict.PASS), (15, Verdict.INCONCLUSIVE), (40, Verdict.FAIL)])
def test_flips_are_bounded(flips: int, verdict: Verdict) -> None:
    """The share of changed predictions is compared by its upper bound."""
    made = gate(GateRecipe(name="flip_ratio", max=0.02))
    assert made is not None
    assert made.judge(Evidence(compressed=Paired(0, 0, 1000), flips=flips)).verdict is verdict


@pytest.mark.parametrize(("limit", "n"), [(0.03, 88), (0.02, 300), (0.03, 150), (0.03, 200)])
def test_flips_at_the_limit_pass_in_at_most_five_percent(limit: float, n: int) -> None:
    """Enumerated at the numbers of samples at which Wilson's bound let 5.9 to 6.9 % pass."""
    made = FlipRatio(limit)
    passing = [
        flips
        for flips in range(n)
        if made.judge(Evidence(compressed=Paired(0, 0, n), flips=flips)).verdict is Verdict.PASS
    ]
    assert stats.binom.pmf(passing, n, limit).sum() <= 0.05


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_the_printed_bound_of_slices_is_the_one_that_decides(margin: float) -> None:
    """Whatever the number of slices, the gate passes if and only if the bound in its line is within the limit."""
    for lost in range(8):
        slices = {"a": Paired(lost, 1, 150), "b": Paired(0, 0, 400), "c": Paired(1, 0, 300)}
        result = WorstSliceDrop(margin).judge(Evidence(slices=slices))
        assert result.bound is not None
        assert (result.verdict is Verdict.PASS) == (result.bound <= margin + 1e-6)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(1.0, Verdict.PASS), (2.0, Verdict.FAIL), (math.nan, Verdict.FAIL), (math.inf, Verdict.FAIL)],
)
def test_a_figure_is_compared_and_must_be_finite(value: float, verdict: Verdict) -> None:
    """NaN never passes."""
    assert Figure("latency_p95_ms", maximum=1.5).judge(Evidence(figures={"latency_p95_ms": value})).verdict is verdict


def test_a_limit_that_is_no_number_fails() -> None:
    """Nothing is above NaN: compared as it is, every figure would pass."""
    for limit in (float("nan"), float("inf")):
        assert Figure("size_bytes", maximum=limit).judge(Evidence(figures={"size_bytes": 1.0})).verdict is Verdict.FAIL


def test_all_of_takes_the_worst_and_fails_when_empty() -> None:
    """FAIL beats INCONCLUSIVE beats PASS; no gates at all don't pass."""
    evidence = Evidence(accuracy=Paired(3, 1, 300), figures={"size_bytes": 10.0})
    small, large = Figure("size_bytes", maximum=20), Figure("size_bytes", maximum=5)
    assert AllOf([small]).judge(evidence).verdict is Verdict.PASS
    assert AllOf([small, AccuracyDrop(0.01)]).judge(evidence).verdict is Verdict.INCONCLUSIVE
    assert AllOf([AccuracyDrop(0.01), large]).judge(evidence).verdict is Verdict.FAIL
    assert AllOf([]).judge(evidence).verdict is Verdict.FAIL


def test_an_unknown_gate_or_one_without_limit_is_none() -> None:
    """The caller turns it into an error that names it."""
    assert gate(GateRecipe(name="accuracy_dorp", max=0.1)) is None
    assert gate(GateRecipe(name="accuracy_drop", min=0.1)) is None


@pytest.mark.parametrize("name", list(KINDS))
def test_every_gate_a_recipe_may_name_is_one_that_judges(name: str) -> None:
    """One registry: a name that a recipe takes never ends as an unknown gate, and fails without a measurement."""
    made = gate(KINDS[name].rule(0.5))
    assert made is not None
    result = made.judge(Evidence())
    assert (result.name, result.verdict) == (name, Verdict.FAIL)
