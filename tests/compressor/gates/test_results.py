"""The complete result of each gate, by value: verdict, value, bound, limit, samples, text and samples needed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.gates import (
    AccuracyDrop,
    AccuracyFloor,
    BetterThanConstant,
    Figure,
    FlipRatio,
    LabelOrder,
    Labels,
    MetricDrop,
    MetricEvidence,
    Repeated,
    Superiority,
    WorstSliceDrop,
    reordered,
)
from compressor.gates.certificate import (
    Certificate,
    Line,
    combine,
    counts_of,
    evidence_of,
    for_bundle,
    judge,
    lines,
    read_certificate,
    records_of,
    rules_for,
    write_certificate,
)
from compressor.gates.evidence import (
    AGREEMENT,
    DeviceEvidence,
    Evidence,
    Gate,
    GateRecipe,
    GateResult,
    Verdict,
    missing,
)
from compressor.gates.kinds import (
    KINDS,
    Agreement,
    GateKind,
    Place,
    added_to,
    holds_for,
    is_timed,
    kind_of,
    measured,
    text_of,
)
from compressor.gates.metrics import ErrorCeiling, WorstSliceIncrease, level_of
from compressor.statistics.paired import Paired, p_value
from compressor.statistics.power import MAX_SAMPLES, samples_for

METRIC = MetricEvidence(
    drop=0.002, lower=-0.002, upper=0.006, confidence=0.95, n=1000, rarest=300, baseline=0.95, candidate=0.948
)
HALVES = {"slice:a": replace(METRIC, confidence=0.975), "slice:b": replace(METRIC, confidence=0.975, upper=0.0065)}
CLASSES = {"a": Paired(0, 0, 60), "b": Paired(0, 0, 40)}
ORDER = {
    "accuracy": 0.5, "accuracy_high": 0.5625, "reordered_accuracy": 0.875, "reordered_accuracy_low": 0.8125,
    "n_gate": 50.0,
}  # fmt: skip
SAME = {
    AGREEMENT: 0.01, "device_rows": 200.0, "device_flips": 2.0, "golden_max_abs": 0.05, "golden_allowed_abs": 0.05,
    "golden_flips": 1.0, "golden_allowed_flips": 1.0,
}  # fmt: skip
P, MORE, F = Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL
ADVICE = "look at training, [model] labels and [data] mean and std, or give [model] allow_constant a reason"


def right(accuracy: float) -> Evidence:
    """Return the evidence of a thousand samples."""
    return Evidence(accuracy=Paired(0, 0, 1000), figures={"accuracy": accuracy})


def timed(upper: float) -> Evidence:
    """Return the evidence of a figure measured eight times: 1.5, at least 1."""
    return Evidence(figures={"x": 1.5, "x_lower": 1.0, "x_upper": upper, "x_repeats": 8.0})


def result(name: str, verdict: Verdict, numbers: tuple[float | None, ...], text: str, needs: int = 0) -> GateResult:
    """Return a result; ``numbers``: value, bound, limit and number of samples."""
    value, bound, limit, n = numbers
    assert limit is not None
    return GateResult(
        name=name, verdict=verdict, value=value, bound=bound, limit=limit, n=int(n or 0), text=text, needs=needs
    )


RESULTS = [
    (AccuracyFloor(0.9), right(0.91), result(
        "accuracy", MORE, (0.91, 0.89370, 0.9, 1000), "91.00 %, at least 89.37 % with 95% confidence, "
        "allowed at least 90.00 % (1000 samples); needs about 4493 more labelled samples", 4493)),
    (AccuracyFloor(0.9), right(0.9), result(
        "accuracy", MORE, (0.9, 0.88301, 0.9, 1000),
        "90.00 %, at least 88.30 % with 95% confidence, allowed at least 90.00 % (1000 samples)")),
    (AccuracyFloor(0.9), right(0.95), result(
        "accuracy", P, (0.95, 0.937137, 0.9, 1000),
        "95.00 %, at least 93.71 % with 95% confidence, allowed at least 90.00 % (1000 samples)")),
    (AccuracyDrop(0.01), Evidence(accuracy=Paired(60, 10, 1000)), result(
        "accuracy_drop", F, (0.05, 0.064519, 0.01, 1000), "drop 5.00 %, at most 6.45 % with 95% confidence, "
        "allowed 1.00 % (60 lost, 10 won of 1000); "
        "4409 samples show an equal model with 80% power at 7.00 % discordance")),
    (AccuracyDrop(0.01), Evidence(accuracy=Paired(3, 1, 300)), result(
        "accuracy_drop", MORE, (2 / 300, 0.021743, 0.01, 300), "drop 0.67 %, at most 2.17 % with 95% confidence, "
        "allowed 1.00 % (3 lost, 1 won of 300); needs about 7778 more labelled samples; "
        "these samples show a margin of 2.17 % and not less: rows on which the two models disagree carry the power "
        "(disagreements.tsv lists them; compressor gate --against OLD.tfb --disagreements FILE; if the inputs are "
        "pictures, --unlabelled FOLDER adds those without labels); "
        "975 samples show an equal model with 80% power at 1.33 % discordance", 7778)),
    (WorstSliceDrop(0.05), Evidence(slices={"a": Paired(0, 0, 900), "b": Paired(1, 2, 20), "c": Paired(0, 0, 0)}),
     result("worst_slice_drop", MORE, (-0.05, 0.129753, 0.05, 20), "slice 'b': drop -5.00 %, at most 12.98 % with "
        "95% confidence, allowed 5.00 % (1 lost, 2 won of 20; the worst of 2); needs about 75 more labelled samples",
        75)),
    (WorstSliceDrop(0.05, by_class=True), Evidence(classes={"a": Paired(0, 0, 900)}), result(
        "worst_class_drop", P, (0.0, 0.0033342, 0.05, 900),
        "class 'a': drop 0.00 %, at most 0.33 % with 95% confidence, allowed 5.00 % "
        "(0 lost, 0 won of 900; the worst of 1)")),
    (Superiority(0.01), Evidence(drifted=Paired(2, 8, 100)), result(
        "superiority", MORE, (0.06, 0.0073633, 0.01, 100), "gain 6.00 %, at least 0.74 % with 95% confidence, "
        "wanted more than 1.00 % (8 won, 2 lost of 100); needs about 94 more labelled samples", 94)),
    (FlipRatio(0.02), Evidence(compressed=Paired(4, 0, 1000), flips=15), result(
        "flip_ratio", MORE, (0.015, 0.0230035, 0.02, 1000),
        "15 of 1000 changed: 1.50 %, at most 2.30 % with 95% confidence, allowed 2.00 %; "
        "needs about 1372 more labelled samples (this gate needs no labels)", 1372)),
    (FlipRatio(0.003, negative=True), Evidence(compressed=Paired(4, 0, 1000), flips=15), result(
        "negative_flip_ratio", F, (0.004, 0.0091300, 0.003, 1000),
        "4 of 1000 got worse: 0.40 %, at most 0.91 % with 95% confidence, allowed 0.30 %")),
    (FlipRatio(0.02, 0.9986), Evidence(compressed=Paired(4, 0, 1000), flips=15), result(
        "flip_ratio", MORE, (0.015, 0.0303821, 0.02, 1000),
        "15 of 1000 changed: 1.50 %, at most 3.04 % with 99.86% confidence, allowed 2.00 %; "
        "needs about 5955 more labelled samples (this gate needs no labels)", 5955)),
    (Figure("x", maximum=2.0, minimum=1.0), Evidence(figures={"x": 2.0}), result(
        "x", P, (2.0, 2.0, 2.0, 0), "2, allowed at most 2 and at least 1")),
    (Figure("x", minimum=1.0), Evidence(figures={"x": 0.5}), result(
        "x", F, (0.5, 0.5, 1.0, 0), "0.5, allowed at least 1")),
    (Figure("x", maximum=2.0, remark="a limit"), Evidence(figures={"x": 2.0}), result(
        "x", P, (2.0, 2.0, 2.0, 0), "2, allowed at most 2 (a limit)")),
    (Repeated(Figure("x", maximum=2.0)), timed(2.0), result(
        "x", P, (1.5, 2.0, 2.0, 8), "1.5, at most 2 with 95% confidence, allowed 2 (median of 8 repeats)")),
    (Repeated(Figure("x", maximum=2.0)), timed(2.1), result(
        "x", MORE, (1.5, 2.1, 2.0, 8), "1.5, at most 2.1 with 95% confidence, allowed 2 (median of 8 repeats); "
        "measure again while the machine does nothing else")),
    (Repeated(Figure("x", maximum=0.9)), timed(2.0), result(
        "x", F, (1.5, 2.0, 0.9, 8), "1.5, at most 2 with 95% confidence, allowed 0.9 (median of 8 repeats)")),
    (Repeated(Figure("x", minimum=1.0)), timed(2.0), result(
        "x", P, (1.5, 1.0, 1.0, 8), "1.5, at least 1 with 95% confidence, allowed 1 (median of 8 repeats)")),
    (Repeated(Figure("x", maximum=2.0)), Evidence(figures={"x": 1.5, "x_repeats": 4.0}), result(
        "x", MORE, (1.5, None, 2.0, 4),
        "1.5 in 4 repeats; at least 5 are needed for a bound: measure again")),
    (Repeated(Figure("x", maximum=2.0)), Evidence(figures={"x": 1.5}), result(
        "x", P, (1.5, 1.5, 2.0, 0), "1.5, allowed at most 2")),
    (MetricDrop("m", 0.004), Evidence(metrics={"m": METRIC}), result(
        "m", MORE, (0.002, 0.006, 0.004, 1000), "worse by 0.002 (0.95 to 0.948), at most 0.006 with 95% confidence, "
        "allowed 0.004 (n 1000); needs about 8141 more labelled samples", 8141)),
    (MetricDrop("m", 0.004), Evidence(metrics={"m": replace(METRIC, confidence=0.9)}), result(
        "m", F, (0.002, None, 0.004, 1000), "Expected a bound at 95% confidence, got 90%: measure again")),
    (ErrorCeiling("mae", 0.004), Evidence(metrics={"mae": METRIC}), result(
        "mae", MORE, (0.002, 0.006, 0.004, 1000), "0.002, at most 0.006 with 95% confidence, allowed 0.004 "
        "(1000 samples); needs about 8141 more labelled samples", 8141)),
    (WorstSliceIncrease(0.01), Evidence(metrics=HALVES), result(
        "worst_slice_error_increase", P, (0.002, 0.0065, 0.01, 1000), "slice 'b' (2 tested together): worse by 0.002 "
        "(0.95 to 0.948), at most 0.0065 with 97.5% confidence, allowed 0.01 (n 1000)")),
    (BetterThanConstant(0.0), Evidence(classes=CLASSES, figures={"accuracy": 0.75}), result(
        "better_than_constant", P, (0.15, 0.15, 0.0, 100),
        "right on 75.00 %, the answer 'a' to everything on 60.00 %")),
    (BetterThanConstant(0.2), Evidence(figures={"mae": 1.75, "constant_mae": 2.0, "n_gate": 50.0}), result(
        "better_than_constant", F, (0.125, 0.125, 0.2, 50),
        f"mean error 1.75, that of their mean for everything 2: {ADVICE}")),
    (BetterThanConstant(0.0), Evidence(figures={"mae": 0.75, "constant_mae": 0.0}), result(
        "better_than_constant", F, (0.0, 0.0, 0.0, 0),
        f"mean error 0.75, that of their mean for everything 0: {ADVICE}")),
    (BetterThanConstant(0.0), Evidence(figures={"constant_gain": 0.25, "n_gate": 50.0}), result(
        "better_than_constant", P, (0.25, 0.25, 0.0, 50), "better than one answer to everything by 25.00 %")),
    (LabelOrder(0.0), Evidence(figures=ORDER), result(
        "label_order", F, (0.375, 0.25, 0.0, 50), "with labels in another order it is right on 87.50 % instead of "
        "50.00 %: set [model] labels in the order of the outputs, or give [model] allow_constant a reason")),
    (LabelOrder(0.25), Evidence(figures=ORDER), result(
        "label_order", P, (0.375, 0.25, 0.25, 50), "87.50 % instead of 50.00 % in another order is within chance")),
    (LabelOrder(0.0), Evidence(figures=ORDER | {"reordered_accuracy": 0.5, "reordered_accuracy_low": 0.4375}), result(
        "label_order", P, (0.0, -0.125, 0.0, 50), "no other order fits better")),
    (Agreement("cam-1", 0.01), Evidence(devices={"cam-1": DeviceEvidence(evidence=Evidence(figures=SAME))}),
     replace(result(
        AGREEMENT, P, (0.01, 0.01, 0.01, 200),
        "2 of 200 rows answer otherwise than here: 1.00 %, at most 1.00 % "
        "(a limit on these rows); golden vectors agree"), on="cam-1")),
]  # fmt: skip


@pytest.mark.parametrize(("gate", "evidence", "expected"), RESULTS)
def test_every_result_says_all_that_it_knows(gate: Gate, evidence: Evidence, expected: GateResult) -> None:
    """A certificate keeps each of these, and people read the text."""
    found = gate.judge(evidence)
    for got, wanted in ((found.value, expected.value), (found.bound, expected.bound)):
        assert got == (None if wanted is None else pytest.approx(wanted, abs=5e-6))
    assert replace(found, value=expected.value, bound=expected.bound) == expected


def test_a_missing_measurement_is_a_whole_result_too() -> None:
    """Without value and bound; a figure without any limit has none to compare with."""
    text = "Expected a measurement, got none: measure it or drop the gate"
    assert missing("x", 2.0, {}) == result("x", F, (None, None, 2.0, 0), text)
    limitless = Figure("x").judge(Evidence(figures={"x": 1.0}))
    assert (limitless.verdict, math.isnan(limitless.limit), limitless.text) == (F, True, text)
    assert Figure("x", maximum=2.0).judge(Evidence()) == result("x", F, (None, None, 2.0, 0), text)
    there = Agreement("cam-1", 0.01).judge(Evidence(devices={"cam-1": DeviceEvidence()}))
    assert (there.verdict, there.on, there.limit) == (F, "cam-1", 0.01)


@pytest.mark.parametrize("evidence", [Evidence(flips=2), Evidence(compressed=Paired(0, 0, 9)), Evidence(flips=0)])
def test_flips_need_their_number_and_the_samples(evidence: Evidence) -> None:
    """Either alone shows nothing."""
    assert FlipRatio(0.5).judge(evidence).value is None


def test_a_device_that_did_not_measure_fails_each_of_its_gates_with_its_limit() -> None:
    """The limit stands in the line; a rule without one has none."""
    rules = (GateRecipe(name="size_bytes", max=9.0, on="cam-1"), GateRecipe(name="size_bytes", on="cam-1"))
    limited, limitless = judge(rules, Evidence()).results
    text = "Expected a measurement of cam-1, got none: give --server"
    assert limited == replace(result("size_bytes", F, (None, None, 9.0, 0), text), on="cam-1")
    assert math.isnan(limitless.limit)
    figures = {name: value for name, value in SAME.items() if name != "device_flips"}
    said = Evidence(devices={"cam-1": DeviceEvidence(evidence=Evidence(figures=figures))})
    assert Agreement("cam-1", 0.01).judge(said).text.startswith("0 of 200 rows")


@pytest.mark.parametrize(("limit", "needs"), [(0.1026, 37_050), (0.1022, 0), (0.1, 0)])
def test_flips_ask_for_no_number_where_none_is_in_sight(limit: float, needs: int) -> None:
    """Up to 4,096 times the samples; at a share that is exactly the limit no number passes."""
    found = FlipRatio(limit).judge(Evidence(compressed=Paired(0, 0, 10), flips=1))
    assert (found.verdict, found.needs) == (MORE, needs)
    assert ("more labelled samples" in found.text) == bool(needs)


@pytest.mark.parametrize(
    ("changed", "margin", "verdict", "needs"),
    [
        ({"lower": 0.004, "upper": 0.006, "drop": 0.005}, 0.004, F, 0),  # enough samples to have shown an equal model
        ({"lower": 0.0041, "upper": 0.6, "drop": 0.3, "n": 20}, 0.004, F, 0),  # few samples can refute it too
        ({"lower": 0.004, "upper": 0.6, "drop": 0.3, "n": 20}, 0.004, MORE, 80),  # at the margin they can not
        ({}, 0.006, P, 0),
        ({}, 0.0059, MORE, 1404),
        ({"lower": 0.002, "upper": 0.002}, 0.002, P, 0),
        ({"lower": -0.01, "drop": 0.004}, 0.005, MORE, 145_250),  # the wider side of the interval counts
        ({"confidence": 0.95 - 0.9e-9}, 0.01, P, 0),  # as JSON may round it
        ({"confidence": 0.95 - 1.2e-9}, 0.01, F, 0),
        ({"n": MAX_SAMPLES, "upper": 0.5}, 0.0021, MORE, 1),  # as many as are ever asked for
    ],
)
def test_both_sides_of_a_metrics_bounds(changed: dict[str, float], margin: float, verdict: Verdict, needs: int) -> None:
    """Lower and upper bound against the margin, and the number of samples by the interval's width."""
    found = MetricDrop("m", margin).judge(Evidence(metrics={"m": replace(METRIC, **changed)}))
    assert (found.verdict, found.needs) == (verdict, needs)


def test_what_is_exactly_at_a_limit() -> None:
    """A gain that is exactly the limit is not above it; a share that is exactly the limit is not refuted."""
    counts = Paired(2, 8, 100)
    bound = Superiority(0.0).judge(Evidence(drifted=counts)).bound
    assert bound is not None
    assert Superiority(bound).judge(Evidence(drifted=counts)).verdict is MORE
    assert Superiority(bound - 1e-9).judge(Evidence(drifted=counts)).verdict is P
    bound = AccuracyDrop(0.5).judge(Evidence(accuracy=counts)).bound
    assert bound is not None
    assert AccuracyDrop(bound).judge(Evidence(accuracy=counts)).verdict is P
    assert AccuracyDrop(bound - 1e-9).judge(Evidence(accuracy=counts)).verdict is not P
    flips = Evidence(compressed=Paired(0, 0, 1000), flips=20)
    assert [FlipRatio(limit).judge(flips).verdict for limit in (0.02, 0.0199)] == [MORE, F]
    bound = FlipRatio(0.5).judge(flips).bound
    assert bound is not None
    assert [FlipRatio(limit).judge(flips).verdict for limit in (bound, bound - 1e-9)] == [P, MORE]
    at_one = Evidence(figures={"x": 1.0})
    assert [Figure("x", minimum=limit).judge(at_one).verdict for limit in (1.0, 1.001)] == [P, F]
    slices = {"a": Paired(1, 1, 20)}
    p = p_value(slices["a"], 0.01)
    assert p >= 0.5  # from there on 1 - (1 - p) is p to the last digit
    verdicts = [WorstSliceDrop(0.01, sure).judge(Evidence(slices=slices)).verdict for sure in (1 - p, 1 - p + 1e-9)]
    assert verdicts == [P, MORE]


def test_more_confidence_asks_for_more_samples() -> None:
    """At a drop above the margin too."""
    needs = [AccuracyDrop(0.2, sure).judge(Evidence(accuracy=Paired(6, 1, 20))).needs for sure in (0.95, 0.99)]
    assert needs == [samples_for(0.2, 0.35, confidence=sure) - 20 for sure in (0.95, 0.99)]
    assert 0 < needs[0] < needs[1]


def test_each_slice_is_judged_at_the_level_of_all() -> None:
    """Two slices at 97.5 % each are 95 % together; bounds at 95 % are then too weak."""
    assert level_of(0.95, 2) == pytest.approx(0.975)
    weak = Evidence(metrics={name: replace(metric, confidence=0.95) for name, metric in HALVES.items()})
    assert WorstSliceIncrease(0.01).judge(weak).verdict is F


def test_the_order_of_the_labels_is_scored_on_rows_that_did_not_choose_it() -> None:
    """Two of three classes changed places: right on 3 of 4 judged rows; the rows it was sought on are counted."""
    fitted, labels = [0, 1, 1, 2, 2, 0], [0, 2, 2, 1, 1, 0]
    found = reordered(
        (np_array(fitted), np_array(labels)), (np_array([0, 1, 2, 2]), np_array([0, 2, 1, 0])), ("x", "y", "z")
    )
    assert found.named == "'y' is 'z', 'z' is 'y'"
    assert found.figures["reordered_accuracy"] == 0.75
    assert 0.25 < found.figures["reordered_accuracy_low"] < 0.5
    assert (found.figures["order_rows"], found.figures["order_rarest_rows"]) == (6.0, 2.0)
    without = reordered((np_array([0, 1]), np_array([0, 1])), (np_array([0]), np_array([0])), ("x", "y", "z"))
    assert without.figures["order_rarest_rows"] == 0.0


@pytest.mark.parametrize(("classes", "end"), [(6, "'5' is '0'"), (8, "'5' is '6' and 2 more")])
def test_at_most_six_labels_are_named(classes: int, end: str) -> None:
    """Of many the rest is counted."""
    predicted = np_array(list(range(classes)) * 9)
    labels = (predicted + 1) % classes
    found = reordered((predicted, labels), (predicted, labels), [str(i) for i in range(classes)])
    assert found.named.endswith(end)


def np_array(values: list[int]) -> Labels:
    """Return ``values`` as classes."""
    return np.array(values, np.int64)


def test_a_certificate_keeps_the_evidence_of_host_and_devices_whole() -> None:
    """Every count, figure, metric and reason, and the facts that a device reported about itself."""
    there = DeviceEvidence(
        evidence=Evidence(
            accuracy=Paired(1, 2, 30), figures={"x": 1.0}, metrics={"m": METRIC}, unknown={"y": "it was too slow"}
        ),
        facts={"cpu": "a53"},
        order="order-1",
    )
    evidence = Evidence(
        accuracy=Paired(1, 2, 30), slices={"s": Paired(0, 1, 9)}, classes={"c": Paired(1, 0, 8)},
        drifted=Paired(3, 4, 50), compressed=Paired(5, 6, 70), flips=7, figures={"x": 2.0}, metrics={"m": METRIC},
        devices={"cam-1": there, "cam-2": DeviceEvidence(problem="it is away")}, unknown={"z": "no memory"},
        label_order="'x' is 'y'",
    )  # fmt: skip
    kept = Certificate(
        counts=counts_of(evidence), figures=evidence.figures, metrics=evidence.metrics, devices=records_of(evidence),
        unknown=evidence.unknown, label_order=evidence.label_order,
    )  # fmt: skip
    read = read_certificate(write_certificate(kept))
    assert evidence_of(read) == evidence
    again = evidence_of(read, {"x": 3.0, "z": 4.0})
    assert (again.figures, again.unknown) == ({"x": 3.0, "z": 4.0}, {})


def test_several_targets_share_one_list_of_code() -> None:
    """The same code judged all of them: it stands once."""
    parts = [Certificate(target=name, verdict="pass", code_digests={"gates": "d"}) for name in ("pi", "esp")]
    whole = combine(parts)
    assert (whole.code_digests, whole.target) == ({"gates": "d"}, "")
    assert whole.targets == tuple(replace(part, code_digests={}) for part in parts)
    assert combine(parts[:1]) == parts[0]


def test_a_bundles_certificate_leaves_out_what_a_host_timed() -> None:
    """The line stays with its verdict and limit; one without a value keeps the reason."""
    timed = Line(name="latency_p95_ms", verdict="pass", value=2.0, bound=2.0, limit=5.0, text="2")
    unmeasured, size = replace(timed, value=None, bound=None, text="why"), replace(timed, name="size_bytes")
    kept = for_bundle(
        Certificate(gates=(timed, unmeasured, size), figures={"latency_p95_ms": 2.0, "size_bytes": 3.0},
                    unknown={"latency_p50_ms": "why", "x": "why"})
    )  # fmt: skip
    assert (kept.figures, kept.unknown) == ({"size_bytes": 3.0}, {"x": "why"})
    again = "measured on the build host; a device measures again"
    assert kept.gates == (replace(timed, value=None, bound=None, text=again), unmeasured, size)


def test_a_result_becomes_a_line_with_all_its_fields() -> None:
    """A limit that is not finite is left out: JSON has no such number."""
    found = judge(
        (GateRecipe(name="accuracy_drop", max=0.01), GateRecipe(name="new", max=1)),
        Evidence(accuracy=Paired(3, 1, 300)),
    )
    line, unknown = lines(found)
    assert (line.name, line.verdict, line.limit, line.n, line.needs) == (
        "accuracy_drop",
        "inconclusive",
        0.01,
        300,
        7778,
    )
    assert (line.value, line.bound, line.text) == (2 / 300, found.results[0].bound, found.results[0].text)
    assert (unknown.name, unknown.verdict, unknown.limit, unknown.value) == ("new", "fail", None, None)


def test_an_external_metric_is_measured_with_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number is added to the figures, a metric to the metrics, a failure to the reasons."""
    (tmp_path / "outside_gates.py").write_text(
        "from compressor.errors import MeasureError\n"
        "from compressor.gates.kinds import SHARE, GateKind\n"
        "def fails(compared):\n    raise MeasureError('no rows')\n"
        "NUMBER, METRIC, NONE = GateKind(measure=lambda c: 3, unit=SHARE, timed=True), "
        "GateKind(measure=lambda c: c, bounded=True, limits=('max',)), "
        "GateKind(measure=fails)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    names = [f"outside_gates:{name}" for name in ("NUMBER", "METRIC", "NONE")]
    rules = [GateRecipe(name=name, max=1.0) for name in ["size_bytes", *names, "unheard_of"]]
    found = measured(rules, METRIC)
    assert (found.figures, found.metrics) == ({names[0]: 3.0}, {names[1]: METRIC})
    assert found.unknown == {names[2]: "no rows"}
    assert text_of(names[0], 0.5) == "50.00 %"  # of its unit, once it is imported
    kind = kind_of(names[0])
    assert kind is not None
    assert (kind.name, kind.timed) == (names[0], False)
    before = Evidence(figures={"x": 1.0}, metrics={"m": METRIC}, unknown={"y": "why"}, flips=2)
    beside = before.beside(found)
    assert beside == replace(
        before, figures={"x": 1.0, names[0]: 3.0}, metrics={"m": METRIC, names[1]: METRIC},
        unknown={"y": "why", names[2]: "no rows"},
    )  # fmt: skip


def test_what_the_rows_say_of_a_gate() -> None:
    """Which are added by default, which a task has, which are timed, and the unit of every figure beside them."""
    assert added_to("classification") == ("better_than_constant", "label_order")
    assert added_to("regression") == ("better_than_constant",)
    assert holds_for(KINDS["size_bytes"], "anything")
    assert not holds_for(KINDS["auc_drop"], "regression")
    assert holds_for(KINDS["auc_drop"], "regression", "classification")
    assert [is_timed(name) for name in ("latency_p95_ms", "float_latency_p95_ms", "size_bytes", "nothing")] == [
        True,
        True,
        False,
        False,
    ]
    texts = {
        "size_bytes": (1_000_000.0, "1.0 MB"),
        "float_size_bytes": (999_949.0, "999.9 kB"), "accuracy": (0.5, "50.00 %"),
        "latency_p95_ms": (1.5, "1.500 ms"), "speed_up_ratio": (2.0, "2.00 \N{MULTIPLICATION SIGN}"),
        "mae": (1234.0, "1,234"), "nothing": (1234567.0, "1.23457e+06"),
        "no_module:GATE": (2.0, "2"),
    }  # fmt: skip
    assert {name: text_of(name, value) for name, (value, _) in texts.items()} == {
        name: text for name, (_, text) in texts.items()
    }


@pytest.mark.parametrize(
    ("name", "maximum", "minimum"),
    [
        ("accuracy", (0, 1), (0, 1)), ("accuracy_drop", (-0.999, 0.999), (-0.999, 0.999)), ("mae", None, None),
        ("size_bytes", (1e-9, math.inf), None), ("parity_cosine", None, None),
    ],
)  # fmt: skip
def test_the_valid_range_of_a_limit_follows_from_the_unit(
    name: str, maximum: tuple[float, float] | None, minimum: tuple[float, float] | None
) -> None:
    """None: any; of a size only a maximum of nothing is refused."""
    unit = KINDS[name].unit
    assert (unit.range_of(maximum=True), unit.range_of(maximum=False)) == (maximum, minimum)


def test_a_row_makes_its_rule_where_it_is_asked_to() -> None:
    """By the limit that it has, on a device or here."""
    assert KINDS["accuracy"].rule(0.9) == GateRecipe(name="accuracy", min=0.9)
    assert KINDS["size_bytes"].rule(9.0, "cam-1") == GateRecipe(name="size_bytes", max=9.0, on="cam-1")
    assert GateKind(name="x", place=Place.HOST).rule(1.0).limit == 1.0


def test_rules_go_to_the_host_and_to_each_device_once() -> None:
    """A gate on a device also holds here, except for figures of another processor; each device must agree."""
    gates = (
        GateRecipe(name="size_bytes", max=9.0, on="other"),
        GateRecipe(name="accuracy_drop", max=0.1, on="pi@device:cam-1"),
        GateRecipe(name="latency_p95_ms", max=5.0, on="device:cam-1"), GateRecipe(name="flip_ratio", max=0.1, on="pi"),
        GateRecipe(name="superiority", min=0.1),
    )  # fmt: skip
    found = rules_for(gates, "pi", retrained=False, timed=False)
    assert [(rule.name, rule.on) for rule in found] == [
        ("accuracy_drop", ""), ("flip_ratio", ""), ("accuracy_drop", "cam-1"), ("latency_p95_ms", "cam-1"),
        (AGREEMENT, "cam-1"),
    ]  # fmt: skip
    timed = rules_for(gates, "pi", retrained=True, timed=True)
    assert [(rule.name, rule.min) for rule in timed if not rule.on][-2:] == [("flip_ratio", None), ("superiority", 0.1)]
    assert ("latency_p95_ms", "") in [(rule.name, rule.on) for rule in timed]
