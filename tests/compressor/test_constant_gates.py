"""A candidate must beat one answer to everything, with its labels in their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compressor.cli.output import no_bundle, print_outcome, slower
from compressor.gates import BetterThanConstant, LabelOrder, reordered
from compressor.gates import certificate as certificates
from compressor.gates.certificate import STAND_IN, Certificate, Line, rules_for
from compressor.gates.evidence import Evidence, GateRecipe, Verdict
from compressor.statistics.paired import Paired, wilson

CLASSES = {"a": Paired(0, 0, 60), "b": Paired(0, 0, 40)}
ALONE = ("better_than_constant", "label_order")


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.61, "pass"), (0.6, "fail"), (0.0165, "fail")])
def test_a_classifier_must_beat_its_commonest_class(accuracy: float, verdict: str) -> None:
    """Equal is not better; the line names the class and the next step."""
    result = BetterThanConstant(0.0).judge(Evidence(classes=CLASSES, figures={"accuracy": accuracy}))
    assert result.verdict.value == verdict
    assert "'a' to everything on 60.00 %" in result.text
    assert ("[model] labels" in result.text) == (verdict == "fail")


@pytest.mark.parametrize(("mae", "verdict"), [(0.99, "pass"), (1.0, "fail"), (5.0, "fail")])
def test_a_regression_must_be_nearer_than_the_mean(mae: float, verdict: str) -> None:
    """Equal is not nearer."""
    result = BetterThanConstant(0.0).judge(Evidence(figures={"mae": mae, "constant_mae": 1.0}))
    assert (result.verdict.value, result.value) == (verdict, pytest.approx(1 - mae))


@pytest.mark.parametrize("gate", [BetterThanConstant(0.0), LabelOrder(0.0)])
def test_without_a_measurement_they_fail(gate: BetterThanConstant | LabelOrder) -> None:
    """Nothing passes by being absent."""
    assert gate.judge(Evidence()).verdict is Verdict.FAIL


def judged(predicted: np.ndarray, labels: np.ndarray) -> Evidence:
    """Return the evidence on rows of which the first half chose the order."""
    half = len(labels) // 2
    found = reordered((predicted[:half], labels[:half]), (predicted[half:], labels[half:]), ("x", "y", "z"))
    right = int((predicted[half:] == labels[half:]).sum())
    figures = {"accuracy": right / half, "accuracy_high": wilson(right, half, 0.95)[1], "n_gate": float(half)}
    return Evidence(figures=figures | found.figures, label_order=found.named)


def test_two_labels_that_changed_places_are_named() -> None:
    """The order found on other rows fits these far better."""
    labels = np.random.default_rng(0).integers(0, 3, 600)
    result = LabelOrder(0.0).judge(judged(np.array([1, 0, 2])[labels], labels))
    assert result.verdict is Verdict.FAIL
    assert "'x' is 'y', 'y' is 'x'" in result.text
    assert "100.00 % instead of" in result.text


@pytest.mark.parametrize(("rows", "advised"), [(15, 0), (12, 1)])
def test_an_order_sought_on_few_rows_is_said_so(rows: int, advised: int) -> None:
    """Five calibration rows of the rarest class are enough, four are not; the number of rows is in the text."""
    labels = np.arange(2 * rows) % 3
    result = LabelOrder(0.0).judge(judged(labels, labels))
    assert result.verdict is Verdict.PASS
    assert f"sought on {rows} calibration rows" in result.text
    assert result.text.count("give more calibration rows") == advised


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_weak_model_in_the_right_order_passes(share: float) -> None:
    """Right on all, on some, or by chance alone: no order chosen on other rows fits far better."""
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 600)
    predicted = np.where(generator.random(600) < share, labels, generator.integers(0, 3, 600))
    assert LabelOrder(0.0).judge(judged(predicted, labels)).verdict is Verdict.PASS


def test_both_stand_beside_other_gates_and_nowhere_else() -> None:
    """A recipe without gates shows nothing still; one that states a limit of its own keeps it."""
    gates = (GateRecipe(name="accuracy_drop", max=0.01),)
    assert [rule.name for rule in rules_for(gates, "host", retrained=False, alone=ALONE)] == ["accuracy_drop", *ALONE]
    assert rules_for((), "host", retrained=False, alone=ALONE) == ()
    own = (*gates, GateRecipe(name="better_than_constant", min=0.2))
    assert [rule.min for rule in rules_for(own, "host", retrained=False, alone=ALONE)][1:] == [0.2, None]


def test_a_certificate_judged_again_says_the_same_of_the_order() -> None:
    """The certificate contains the text."""
    rules = (GateRecipe(name="label_order", max=0.0),)
    figures = {"accuracy": 0.5, "accuracy_high": 0.55, "reordered_accuracy": 0.9, "reordered_accuracy_low": 0.85}
    kept = Certificate(rules=rules, figures=figures, label_order="'x' is 'y'")
    read = certificates.read_certificate(certificates.write_certificate(kept))
    (result,) = certificates.judge(rules, certificates.evidence_of(read)).results
    assert result.verdict is Verdict.FAIL
    assert "'x' is 'y'" in result.text


def test_slower_than_float_is_said() -> None:
    """With how much; not where it is faster, was not timed or is the same file."""
    said = Certificate(figures={"speed_up_ratio": 0.8, "int8_macs_ratio": 0.9, "size_ratio": 0.3})
    assert slower(said) == ["int8 is slower than float here: 1.25 x the time (other processors may differ)."]
    for figures in ({}, {"speed_up_ratio": 1.0}, {"speed_up_ratio": 0.9, "size_ratio": 1.0}):
        assert slower(replace(said, figures=figures)) == []


@pytest.mark.parametrize("name", ["accuracy", "accuracy_high", "reordered_accuracy", "reordered_accuracy_low"])
def test_an_order_that_lacks_one_figure_is_not_judged(name: str) -> None:
    """Each of the four is required."""
    labels = np.arange(60) % 3
    whole = judged(labels, labels)
    figures = {key: value for key, value in whole.figures.items() if key != name}
    assert LabelOrder(0.0).judge(whole).verdict is Verdict.PASS
    assert LabelOrder(0.0).judge(replace(whole, figures=figures)).verdict is Verdict.FAIL


@pytest.mark.parametrize(("remarks", "said"), [((STAND_IN,), True), (("Something else.",), False)])
def test_a_run_on_a_stand_in_says_that_its_bundle_can_not_be_published(
    remarks: tuple[str, ...], capsys: pytest.CaptureFixture[str], *, said: bool
) -> None:
    """Before somebody sets up keys and a server for it; the step is to give the recipe's own data."""
    lines = (Line(name="map", verdict="pass"),)
    made = Certificate(verdict="pass", model="m", version=1, gates=lines, remarks=remarks)
    print_outcome(made, [], as_json=False)
    assert ("not to be published: it is from a stand-in" in capsys.readouterr().out) is said


@pytest.mark.parametrize(
    ("verdict", "quick", "said"),
    [
        ("fail", False, "no bundle was made: fail (map): mend what is marked ✗, or allow it in [gates]"),
        (
            "fail",
            True,
            "no bundle was made: fail (map): run it without --quick",
        ),
        ("inconclusive", False, "no bundle was made: inconclusive (f1): give the gates more rows, as said above"),
        ("pass", False, ""),
    ],
)
def test_a_run_that_does_not_pass_says_what_is_not_there(
    verdict: str, said: str, capsys: pytest.CaptureFixture[str], *, quick: bool
) -> None:
    """The line before the verdict: no bundle, the gates for which, and the next step."""
    lines = tuple(Line(name=gate, verdict=own) for gate, own in (("map", "fail"), ("f1", "inconclusive")))
    made = Certificate(verdict=verdict, model="m", version=1, gates=lines)
    print_outcome(made, [], as_json=False, missing=no_bundle(made, quick=quick))
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"m-1: {verdict.upper()}"
    assert printed[-2].strip().startswith(said) if said else "no bundle" not in "".join(printed)
