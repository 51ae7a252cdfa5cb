"""Looks at a gate split are counted, and planned ones keep the risk."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest

from compressor.gates import AccuracyDrop, Evidence, Verdict
from compressor.gates.evidence import GateRecipe
from compressor.gates.looks import Ledger
from compressor.statistics.paired import Paired, p_value

RULES = (GateRecipe(name="accuracy_drop", max=0.05),)


def hashes(start: int, stop: int) -> list[str]:
    """Return the content hashes of rows."""
    return [hashlib.sha256(b"%d" % row).hexdigest() for row in range(start, stop)]


def test_another_candidate_and_more_rows_are_looks_and_a_repetition_is_none() -> None:
    """Fresh rows begin a new ledger."""
    first = Ledger().after("a", hashes(0, 100), 0)
    assert (len(first.candidates), first.remark) == (1, "")
    assert first.after("a", hashes(0, 100), 0) == first
    for candidate, rows in (("b", hashes(0, 100)), ("a", hashes(0, 150)), ("a", hashes(50, 150))):
        second = first.after(candidate, rows, 0)
        assert len(second.candidates) == 2
        assert second.remark.startswith("Look 2 at this gate split: ")
        assert "up to 10 %" in second.remark
    assert len(first.after("b", hashes(100, 200), 0).candidates) == 1


def test_planned_looks_share_the_risk_and_are_used_up() -> None:
    """The plan of the first look holds: no later one can raise it."""
    first = Ledger().after("a", hashes(0, 100), 2)
    assert first.rules(RULES)[0].confidence == pytest.approx(0.975)
    second = first.after("b", hashes(0, 100), 9)
    assert (second.planned, second.used_up) == (2, False)
    assert second.remark == "Look 2 of 2 planned at this gate split: each has 1/2 of the risk."
    assert second.after("c", hashes(0, 100), 9).used_up
    assert Ledger().after("a", hashes(0, 1), 0).rules(RULES) == RULES


@cache
def _risk(counts: Paired) -> float:
    return p_value(counts, 0.05)


def _passes(confidence: float, counts: Paired) -> bool:
    return _risk(counts) <= 1 - confidence


def test_a_gate_passes_where_the_p_value_is_within_the_risk_of_a_look() -> None:
    """So that the simulations below, which compare it, are of the gate."""
    for lost in range(2, 9):
        counts = Paired(lost, 2, 200)
        for confidence in (0.95, 0.995):
            verdict = AccuracyDrop(0.05, confidence).judge(Evidence(accuracy=counts)).verdict
            assert (verdict is Verdict.PASS) == _passes(confidence, counts)


@pytest.mark.parametrize("looks", [3, 10])
def test_of_planned_candidates_at_the_margin_one_passes_no_more_often(looks: int) -> None:
    """Candidates that are all worse by the margin, judged on one split; without a plan 14 and 39 % of the lots pass."""
    random, ledger = np.random.default_rng(looks), Ledger(planned=looks)
    confidence = ledger.rules(RULES)[0].confidence
    lots = random.multinomial(200, [0.085, 0.035, 0.88], size=(300, looks))
    passed = sum(any(_passes(confidence, Paired(b, c, 200)) for b, c, _ in lot.tolist()) for lot in lots)
    assert passed / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_labelling_more_until_it_passes_stays_within_the_risk_of_the_plan() -> None:
    """One candidate at the margin, judged after 100, 200 and 400 rows; without a plan about 10 % pass."""
    random, confidence = np.random.default_rng(5), Ledger(planned=3).rules(RULES)[0].confidence
    passed = 0
    for _ in range(300):
        rows = random.choice(3, size=400, p=[0.085, 0.035, 0.88])
        parts = [rows[:n] for n in (100, 200, 400)]
        counts = [Paired(int((part == 0).sum()), int((part == 1).sum()), len(part)) for part in parts]
        passed += any(_passes(confidence, one) for one in counts)
    assert passed / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5
