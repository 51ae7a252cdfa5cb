"""Gates on a device: judged on its answers, beside this host's; a disagreement, and silence, fail."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from compressor.gates import Judgement
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate, rules_for
from compressor.gates.evidence import AGREEMENT, DeviceEvidence, Evidence, GateRecipe, Verdict, device_for, device_in
from compressor.gates.kinds import KINDS
from compressor.statistics.paired import Paired

HERE = Evidence(accuracy=Paired(1, 1, 2000), figures={"latency_p95_ms": 2.0, "accuracy": 0.97})
FIGURES = {
    "latency_p95_ms": 4.0, "accuracy": 0.97, "device_rows": 2000.0, "device_flips": 4.0, AGREEMENT: 0.002,
    "golden_max_abs": 0.01, "golden_allowed_abs": 0.05, "golden_flips": 0.0, "golden_allowed_flips": 0.0,
}  # fmt: skip
GATES = (
    GateRecipe(name="latency_p95_ms", max=5.0, on="device:cam-1"),
    GateRecipe(name="accuracy_drop", max=0.01, on="device:cam-1"),
)
RULES = rules_for(GATES, "pi", retrained=False)


def judged(here: Evidence = HERE, problem: str = "", counts: Paired | None = None, **figures: float) -> Judgement:
    """Return the results of all gates for the evidence of host and device."""
    there = Evidence(accuracy=counts or HERE.accuracy, figures={**FIGURES, **figures})
    return certificates.judge(RULES, replace(here, devices={"cam-1": DeviceEvidence(problem=problem, evidence=there)}))


def said(judgement: Judgement, name: str, on: str) -> tuple[Verdict, str]:
    """Return verdict and text of one gate."""
    (result,) = (item for item in judgement.results if (item.name, item.on) == (name, on))
    return result.verdict, result.text


def test_a_gate_on_a_device_holds_on_host_and_device() -> None:
    """There are two results side by side, and one for their agreement."""
    judgement = judged()
    assert judgement.verdict is Verdict.PASS
    assert [(item.name, item.on) for item in judgement.results] == [
        ("latency_p95_ms", ""), ("accuracy_drop", ""), ("latency_p95_ms", "cam-1"), ("accuracy_drop", "cam-1"),
        (AGREEMENT, "cam-1"),
    ]  # fmt: skip


def test_a_device_slower_than_the_limit_fails() -> None:
    """However fast this host is."""
    judgement = judged(latency_p95_ms=5.5)
    assert judgement.verdict is Verdict.FAIL
    assert said(judgement, "latency_p95_ms", "cam-1")[0] is Verdict.FAIL
    assert said(judgement, "latency_p95_ms", "")[0] is Verdict.PASS


def test_other_predictions_are_a_disagreement() -> None:
    """More rows with another class than the stated share, though every gate passes there."""
    judgement = judged(device_flips=30.0, **{AGREEMENT: 0.015})
    verdict, text = said(judgement, AGREEMENT, "cam-1")
    assert (judgement.verdict, verdict) == (Verdict.FAIL, Verdict.FAIL)
    assert text.startswith("device and host disagree: 30 of 2000 rows")
    assert "at most 1.00 % allowed" in text


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"golden_max_abs": 0.06}, "golden vectors differ by 0.06 (at most 0.05)"),
        ({"golden_flips": 1.0}, "with 1 flips"),
        ({"golden_max_abs": math.inf}, "golden vectors differ by inf"),
    ],
)
def test_golden_vectors_that_differ_are_a_disagreement(figures: dict[str, float], words: str) -> None:
    """The artifact computes something else on the device."""
    verdict, text = said(judged(**figures), AGREEMENT, "cam-1")
    assert verdict is Verdict.FAIL
    assert words in text


def test_a_device_that_passes_where_the_host_fails_is_refused() -> None:
    """A pass on the device does not replace that of this host."""
    slow = replace(HERE, figures={"latency_p95_ms": 9.0})
    verdict, text = said(judged(slow), AGREEMENT, "cam-1")
    assert verdict is Verdict.FAIL
    assert "latency_p95_ms passes there and is fail here" in text


def test_a_device_that_passes_where_the_host_is_in_doubt_is_refused() -> None:
    """Inconclusive here and pass there is a disagreement, not a pass."""
    few = replace(HERE, accuracy=Paired(1, 1, 150))
    assert "accuracy_drop passes there and is inconclusive here" in said(judged(few), AGREEMENT, "cam-1")[1]


def test_what_another_processor_can_not_take_is_no_disagreement() -> None:
    """Only the device judges the latency of an aarch64 device; accuracy is judged on both."""
    rules = rules_for(GATES, "pi", retrained=False, timed=False)
    here = replace(
        HERE,
        figures={},
        devices={"cam-1": DeviceEvidence(problem="", evidence=Evidence(accuracy=HERE.accuracy, figures=FIGURES))},
    )
    judgement = certificates.judge(rules, here)
    assert judgement.verdict is Verdict.PASS
    names = [(item.name, item.on) for item in judgement.results]
    assert ("latency_p95_ms", "") not in names
    assert ("accuracy_drop", "") in names


@pytest.mark.parametrize(
    "evidence", [HERE, replace(HERE, devices={"cam-1": DeviceEvidence(problem="Expected an answer, got none")})]
)
def test_a_device_without_an_answer_fails_every_gate_on_it(evidence: Evidence) -> None:
    """A missing measurement does not pass, and the reason is given."""
    judgement = certificates.judge(RULES, evidence)
    results = [item for item in judgement.results if item.on]
    assert {item.verdict for item in results} == {Verdict.FAIL}
    assert all(item.text.startswith("Expected") and item.value is None for item in results)


def test_an_answer_without_a_comparison_fails() -> None:
    """Latency alone, or without golden vectors, does not show that the device runs this model."""
    golden = [f"golden_{name}" for name in ("max_abs", "allowed_abs", "flips", "allowed_flips")]
    for missing in (AGREEMENT, "device_rows", *golden):
        figures = {name: value for name, value in FIGURES.items() if name != missing}
        here = replace(
            HERE,
            devices={"cam-1": DeviceEvidence(problem="", evidence=Evidence(accuracy=HERE.accuracy, figures=figures))},
        )
        assert said(certificates.judge(RULES, here), AGREEMENT, "cam-1")[0] is Verdict.FAIL


def test_the_share_is_the_recipe_s_where_it_says_one() -> None:
    """``device_flip_ratio`` replaces the default, once per device."""
    own = (*GATES, GateRecipe(name=AGREEMENT, max=0.001, on="device:cam-1"))
    assert [rule.max for rule in RULES if rule.name == AGREEMENT] == [KINDS[AGREEMENT].added]
    assert [(rule.max, rule.on) for rule in rules_for(own, "pi", retrained=False) if rule.name == AGREEMENT] == [
        (0.001, "cam-1")
    ]


@pytest.mark.parametrize(
    ("on", "found"),
    [
        ("device:cam-1", ("cam-1", "")), ("pi@device:cam-1", ("cam-1", "pi")), ("pi", ("", "")), ("", ("", "")),
        ("@device:cam-1", ("", "")), ("device", ("", "")),
    ],
)  # fmt: skip
def test_reads_where_a_gate_is_measured(on: str, found: tuple[str, str]) -> None:
    """A target, a device, or a device for one target of several."""
    assert device_in(on) == found
    assert device_for(on, "pi") == found[0]
    assert device_for(on, "other") == ("" if found[1] else found[0])


def test_the_certificate_keeps_what_devices_said() -> None:
    """Judged again from gate.json, the verdicts are the same; a bundle's has no clock in it."""
    there = DeviceEvidence(
        problem="", evidence=Evidence(accuracy=HERE.accuracy, figures=FIGURES), facts={"cpu": "A53"}, order="ab" * 16
    )
    evidence = replace(HERE, devices={"cam-1": there})
    judgement = certificates.judge(RULES, evidence)
    kept = Certificate(
        rules=RULES, gates=certificates.lines(judgement), figures=HERE.figures, verdict="pass",
        counts=certificates.counts_of(evidence), devices=certificates.records_of(evidence),
    )  # fmt: skip
    read = certificates.read_certificate(certificates.write_certificate(kept))
    assert certificates.judge(read.rules, certificates.evidence_of(read)) == judgement
    (bundled,) = certificates.for_bundle(read).devices
    assert (bundled.order, bundled.facts, "latency_p95_ms" in bundled.figures) == ("", {}, False)
    assert bundled.figures[AGREEMENT] == 0.002


def test_a_rule_of_a_later_version_fails_on_a_device_too() -> None:
    """A rule that this version does not know can't pass."""
    rules = (GateRecipe(name="beauty", min=1.0, on="cam-1"),)
    evidence = replace(HERE, devices={"cam-1": DeviceEvidence(problem="", evidence=Evidence(figures=FIGURES))})
    assert certificates.judge(rules, evidence).verdict is Verdict.FAIL
