"""A certificate can be judged again and never passes by omission."""

from __future__ import annotations

import pytest

from compressor.certificate import (
    Certificate,
    Rule,
    combine,
    counts_of,
    evidence_of,
    judge,
    lines,
    read_certificate,
    rules_for,
    write_certificate,
)
from compressor.errors import PackageError
from compressor.gates import Evidence, Verdict
from compressor.recipe import GateRecipe
from compressor.statistics import Paired

EVIDENCE = Evidence(
    accuracy=Paired(1, 1, 900), slices={"a": Paired(0, 1, 400)}, classes={"7": Paired(1, 0, 90)},
    compressed=Paired(1, 1, 900), flips=2, figures={"size_bytes": 10.0},
)  # fmt: skip


def test_the_evidence_survives_the_file() -> None:
    """Counts and figures come back, and give the same verdict."""
    written = write_certificate(Certificate(counts=counts_of(EVIDENCE), figures=EVIDENCE.figures))
    assert evidence_of(read_certificate(written)) == EVIDENCE


def test_an_unknown_rule_fails() -> None:
    """A gate from the future is not skipped."""
    judgement = judge((Rule("size_bytes", max=20), Rule("beauty", min=1)), EVIDENCE)
    assert judgement.verdict is Verdict.FAIL
    assert lines(judgement)[1].limit is None


def test_a_retraining_must_also_be_better_on_the_drifted_samples() -> None:
    """The superiority rule is added, and fails without drifted samples."""
    rules = rules_for((GateRecipe("size_bytes", max=20),), "host", retrained=True)
    assert judge(rules, EVIDENCE).verdict is Verdict.FAIL


def test_superiority_is_asked_of_a_retraining_alone() -> None:
    """A recipe's own margin takes the place of the default, and a first release isn't failed for want of drift."""
    gates = (GateRecipe("superiority", min=0.05),)
    assert rules_for(gates, "host", retrained=False) == ()
    assert [rule.min for rule in rules_for(gates, "host", retrained=True)] == [0.05]
    assert [rule.min for rule in rules_for((), "host", retrained=True)] == [0.0]


def test_a_rule_holds_on_its_own_target_only() -> None:
    """``on`` selects."""
    gates = (GateRecipe("size_bytes", max=20, on="pi"),)
    assert rules_for(gates, "host", retrained=False) == ()
    assert len(rules_for(gates, "pi", retrained=False)) == 1


def test_the_worst_target_decides() -> None:
    """One failing target fails the release."""
    good, bad = Certificate(verdict="pass", target="a"), Certificate(verdict="fail", target="b")
    assert combine([good, bad]).verdict == "fail"


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema": 99}', b'{"schema": 1, "gates": 3}'])
def test_a_broken_certificate_is_an_error(data: bytes) -> None:
    """No traceback, no verdict."""
    with pytest.raises(PackageError):
        read_certificate(data)
