"""A certificate can be judged again and never passes by omission."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import PackageError
from compressor.gates import Evidence, Verdict
from compressor.gates.certificate import (
    Certificate,
    Line,
    combine,
    counts_of,
    evidence_of,
    for_bundle,
    guessing,
    judge,
    lines,
    read_certificate,
    rules_for,
    write_certificate,
)
from compressor.gates.evidence import GateRecipe
from compressor.measurement.predictions import Compared, Predictions
from compressor.release.regate import gate_again
from compressor.statistics.paired import Paired
from compressor.tasks.classification.evidence import evidence, metrics

EVIDENCE = Evidence(
    accuracy=Paired(1, 1, 900), slices={"a": Paired(0, 1, 400)}, classes={"7": Paired(1, 0, 90)},
    compressed=Paired(1, 1, 900), flips=2, figures={"size_bytes": 10.0},
)  # fmt: skip


def test_the_evidence_survives_the_file() -> None:
    """Counts and figures are read unchanged, and result in the same verdict."""
    written = write_certificate(Certificate(counts=counts_of(EVIDENCE), figures=EVIDENCE.figures))
    assert evidence_of(read_certificate(written)) == EVIDENCE


def test_an_unknown_rule_fails() -> None:
    """A gate from the future is not skipped."""
    judgement = judge((GateRecipe(name="size_bytes", max=20), GateRecipe(name="beauty", min=1)), EVIDENCE)
    assert judgement.verdict is Verdict.FAIL
    assert [line.limit for line in lines(judgement)] == [20, None]


def test_a_retraining_must_also_be_better_on_the_drifted_samples() -> None:
    """The superiority rule is added, and fails without drifted samples."""
    rules = rules_for((GateRecipe(name="size_bytes", max=20),), "host", retrained=True)
    assert judge(rules, EVIDENCE).verdict is Verdict.FAIL


def test_superiority_is_asked_of_a_retraining_alone() -> None:
    """A recipe's own margin takes the place of the default, and a first release isn't failed for want of drift."""
    gates = (GateRecipe(name="superiority", min=0.05),)
    assert rules_for(gates, "host", retrained=False) == ()
    alone = ("better_than_constant",)  # alone it would pass a release that nothing else judges
    assert rules_for(gates, "host", retrained=False, alone=alone) == ()
    assert [rule.min for rule in rules_for(gates, "host", retrained=True)] == [0.05]
    assert [rule.min for rule in rules_for((), "host", retrained=True)] == [0.0]


def test_a_rule_holds_on_its_own_target_only() -> None:
    """``on`` selects."""
    gates = (GateRecipe(name="size_bytes", max=20, on="pi"),)
    assert rules_for(gates, "host", retrained=False) == ()
    assert rules_for(gates, "pi", retrained=False) == (replace(gates[0], on=""),)


def test_the_worst_target_decides() -> None:
    """One failing target fails the release."""
    good, bad = Certificate(verdict="pass", target="a"), Certificate(verdict="fail", target="b")
    assert combine([good, bad]).verdict == "fail"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema": 99}', b'{"schema": 1, "gates": 3}'])
def test_a_broken_certificate_is_an_error(data: bytes) -> None:
    """No traceback, no verdict."""
    with pytest.raises(PackageError):
        read_certificate(data)


def _compared() -> Compared:
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 240)
    logits = (2 * np.eye(3)[labels] + random.normal(0, 1, (240, 3))).astype(np.float32)
    before, after = (Predictions(said, np.zeros((240, 0), np.float32)) for said in (logits, logits + np.float32(0.5)))
    return Compared(labels=labels, slices=np.full(240, "a"), baseline=before, float_model=before, candidate=after)


PRECISION = "ranking_precision_drop"
RULES = (
    GateRecipe(name="auc_drop", max=0.03),
    GateRecipe(name=PRECISION, max=0.02, confidence=0.9),
    GateRecipe(name=PRECISION, max=0.05),
)


def test_only_metrics_that_a_rule_names_are_bootstrapped() -> None:
    """It takes seconds; the confidence is the highest of all rules."""
    assert evidence(_compared(), ("a", "b", "c"), {}).metrics == {}
    found = metrics(_compared(), RULES)
    assert {name: item.confidence for name, item in found.items()} == {"auc_drop": 0.95, PRECISION: 0.95}
    assert metrics(_compared(), RULES) == found


def test_bootstrapped_metrics_survive_the_file_and_are_judged_again() -> None:
    """A bundle carries no samples: bounds must come back as they were, with the same verdict."""
    shown = evidence(_compared(), ("a", "b", "c"), {}, None, RULES)
    written = write_certificate(Certificate(rules=RULES, counts=counts_of(shown), metrics=shown.metrics))
    read = read_certificate(written)
    assert read.metrics == shown.metrics
    assert judge(RULES, evidence_of(read)) == judge(RULES, shown)
    assert judge(RULES, shown).verdict is Verdict.PASS


def test_a_certificate_from_before_metrics_reads_and_their_gate_fails() -> None:
    """A missing measurement does not pass."""
    old = read_certificate(b'{"schema": 1, "verdict": "pass", "counts": {"accuracy": [1, 1, 900]}}')
    assert old.metrics == {}
    assert judge(RULES[:1], evidence_of(old)).verdict is Verdict.FAIL


@pytest.mark.parametrize(("limit", "verdict"), [(0.02, Verdict.PASS), (-0.02, Verdict.FAIL)])
def test_a_certificate_with_a_gates_older_name_keeps_its_verdict(limit: float, verdict: Verdict) -> None:
    """A signed bundle is judged again by its contents, whatever the gate's present name."""
    shown = evidence(_compared(), ("a", "b", "c"), {}, None, RULES)
    old = replace(shown, metrics={"map_drop": shown.metrics[PRECISION]})
    judged = judge([GateRecipe(name="map_drop", max=limit)], old)
    assert (judged.verdict, judged.results[0].name) == (verdict, "map_drop")


def test_no_regression_error_is_made_up_for_a_classifier() -> None:
    """Its gate fails for want of a measurement."""
    rules = (GateRecipe(name="error_increase", max=1.0),)
    assert judge(rules, evidence(_compared(), ("a", "b", "c"), {}, None, rules)).verdict is Verdict.FAIL


@pytest.mark.parametrize("metrics", [b'{"auc_drop": 3}', b'{"auc_drop": {"drop": "no"}}', b"[]"])
def test_a_broken_metric_is_an_error(metrics: bytes) -> None:
    """No traceback, no verdict."""
    with pytest.raises(PackageError):
        read_certificate(b'{"schema": 1, "metrics": ' + metrics + b"}")


def test_every_target_is_judged_again_by_its_own_rules(tmp_path: Path) -> None:
    """A folder whose second target failed does not pass because the first one does."""
    good = Certificate(
        target="a", rules=(GateRecipe(name="size_bytes", max=20),), figures={"size_bytes": 10.0}, verdict="pass"
    )
    bad = replace(
        good, target="b", rules=(GateRecipe(name="accuracy", min=0.9),), figures={"accuracy": 0.5}, verdict="fail"
    )
    (tmp_path / "gate.json").write_bytes(write_certificate(combine([good, bad])))
    again = gate_again(tmp_path)
    assert again.verdict == "fail"
    assert [(line.target, line.verdict) for line in again.gates] == [("a", "pass"), ("b", "fail")]


def test_a_folder_without_the_numbers_of_every_target_is_refused(tmp_path: Path) -> None:
    """An older version stored only those of the first target."""
    gates = (Line(name="size_bytes", verdict="pass", target="a"), Line(name="size_bytes", verdict="fail", target="b"))
    (tmp_path / "gate.json").write_bytes(write_certificate(Certificate(gates=gates)))
    with pytest.raises(PackageError, match="every target"):
        gate_again(tmp_path)


def test_a_model_no_better_than_one_answer_is_said_to_be_so() -> None:
    """Gates on drops would compare a useless model with the useless one from which it was made."""
    counts = {"class:a": (0, 0, 60), "class:b": (0, 0, 40)}
    said = guessing(Certificate(figures={"accuracy": 0.6}, counts=counts))
    assert "It is right on 60.00 %, no more than the answer 'a' to everything would be" in said[0]
    assert not guessing(Certificate(figures={"accuracy": 0.61}, counts=counts))
    assert not guessing(Certificate(figures={"mae": 1.0}))
    assert not guessing(Certificate(figures={}, counts=counts))
    assert not guessing(Certificate(figures={"accuracy": 0.5}, counts={"class:a": (0, 0, 60)}))


def test_a_bundles_certificate_says_that_devices_time_it_again() -> None:
    """Timings of one host are not stored in bytes that must be equal; the verdict stays."""
    timed = Line(name="latency_p95_ms", verdict="pass", value=2.0, bound=2.0, limit=5.0, text="2 ms")
    sized = Line(name="size_bytes", verdict="pass", value=10.0, bound=10.0, limit=20.0, text="10")
    found = for_bundle(Certificate(gates=(timed, sized))).gates
    again = "measured on the build host; a device measures again"
    assert found == (replace(timed, value=None, bound=None, text=again), sized)


def test_sources_survive_the_file_and_stand_in_the_line() -> None:
    """A gate on rows of few scenes says how many scenes there are, also when it is judged again."""
    shown = Evidence(drifted=Paired(1, 40, 60, rows=300))
    written = write_certificate(Certificate(rules=(GateRecipe(name="superiority", min=0.0),), counts=counts_of(shown)))
    read = read_certificate(written)
    result = judge(read.rules, evidence_of(read)).results[0]
    assert (result.n, result.verdict) == (60, Verdict.PASS)
    assert "(40 won, 1 lost of 60 sources with 300 rows)" in result.text
