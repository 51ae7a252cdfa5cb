"""A figure that can't be measured is unknown: it fails its own gate, in a run and when judged again."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.gates import certificate as certificates
from compressor.gates.certificate import Certificate
from compressor.gates.evidence import GateRecipe
from compressor.measurement.predictions import Compared, Predictions
from compressor.run.comparison import Figures
from compressor.tasks.classification import evidence as classification

RULES = (
    GateRecipe(name="accuracy_drop", max=0.5),
    GateRecipe(name="auc_drop", max=0.5),
    GateRecipe(name="peak_memory_bytes", max=1),
)


def gate_set() -> Compared:
    """Return 200 rows of two classes of three, so that the ranking of the third can't be measured."""
    labels = np.arange(200) % 2
    said = Predictions(np.eye(3, dtype=np.float32)[labels], np.zeros((200, 0), np.float32))
    return Compared(labels=labels, slices=np.array([""] * 200), baseline=said, float_model=said, candidate=said)


def test_a_metric_that_needs_a_class_that_is_not_there_fails_alone() -> None:
    """The gate on accuracy passes beside it."""
    found = classification.evidence(gate_set(), ("a", "b", "c"), {}, None, RULES)
    assert set(found.unknown) == {"auc_drop"}
    verdicts = {line.name: line.verdict.value for line in certificates.judge(RULES, found).results}
    assert verdicts == {"accuracy_drop": "pass", "auc_drop": "fail", "peak_memory_bytes": "fail"}


def test_a_certificate_keeps_why_something_is_unknown() -> None:
    """Judged again from the file it has the same reason; a figure measured since is no longer unknown."""
    kept = Certificate(
        rules=RULES, unknown={"peak_memory_bytes": "no answer in 60 s"}, counts={"accuracy": (0, 0, 200)}
    )
    read = certificates.read_certificate(certificates.write_certificate(kept))
    again = certificates.judge(RULES, certificates.evidence_of(read)).results[2]
    assert "unknown (no answer in 60 s)" in again.text
    measured = certificates.judge(RULES, certificates.evidence_of(read, {"peak_memory_bytes": 1.0})).results[2]
    assert measured.verdict.value == "pass"
    assert certificates.for_bundle(read).unknown == {}


def test_a_figure_that_can_not_be_measured_leaves_the_others() -> None:
    """The reason is given for each name that it concerns."""

    def child() -> dict[str, float]:
        raise MeasureError("the child ended early")

    found = Figures({"size_bytes": 1.0})
    found.add(("peak_memory_bytes",), child)
    found.add(("macs",), lambda: {"macs": 2.0})
    assert (found.known, found.unknown) == (
        {"size_bytes": 1.0, "macs": 2.0},
        {"peak_memory_bytes": "the child ended early"},
    )


@pytest.mark.parametrize("labels", [2, 3])
def test_all_classes_there_leave_nothing_unknown(labels: int) -> None:
    """The other side: with every class each metric is measured."""
    rows = np.arange(300) % labels
    said = Predictions(np.eye(labels, dtype=np.float32)[rows], np.zeros((300, 0), np.float32))
    compared = Compared(labels=rows, slices=np.array([""] * 300), baseline=said, float_model=said, candidate=said)
    found = classification.evidence(compared, ("a", "b", "c")[:labels], {}, None, RULES)
    assert (set(found.metrics), dict(found.unknown)) == ({"auc_drop"}, {})
