"""From tag scores to figures: which tags were right."""

import numpy as np

from compressor.gates import Reordered
from compressor.gates.evidence import Evidence
from compressor.gates.kinds import SHARE, GateKind
from compressor.measurement.parity import matrix


def _right(said, labels):  # noqa: ANN001, ANN202 - as a person writes it
    return (said.logits > 0) == (labels > 0)


def score(said, labels) -> float:  # noqa: ANN001 - as above
    """Return the share of right tags."""
    return float(_right(said, labels).mean())


RIGHT_TAGS = GateKind(
    limits=("min",), tasks=("trial_tags:TASK",), unit=SHARE,
    measure=lambda compared: score(compared.candidate, compared.labels),
)  # fmt: skip
"""Its gate."""


def figures(gate_set, drifted=None):  # noqa: ANN001, ANN201 - as above
    """Return the shares of right tags, and how much more it is than that of one answer to everything."""
    del drifted
    own, often = score(gate_set.candidate, gate_set.labels), gate_set.labels.mean(axis=0)
    return {
        "n_gate": float(len(gate_set.labels)), "tag_accuracy": own,
        "float_tag_accuracy": score(gate_set.float_model, gate_set.labels),
        "constant_gain": own - float(np.maximum(often, 1 - often).mean()),
    }  # fmt: skip


device_figures = figures


def evidence(gate_set, class_names, figures, drifted=None, rules=()):  # noqa: ANN001, ANN201 - as above
    """Return the figures: its gate measures for itself."""
    del gate_set, class_names, drifted, rules
    return Evidence(figures=figures)


def compared_figures(evidence):  # noqa: ANN001, ANN201 - as above
    """Return nothing more."""
    del evidence
    return {}


def differs(one, other, allowed_abs):  # noqa: ANN001, ANN201 - as above
    """Return which rows have another set of tags."""
    del allowed_abs
    return ((one.logits > 0) != (other.logits > 0)).any(axis=1)


def order(fitted, judged, names):  # noqa: ANN001, ANN201 - as above
    """Return nothing: the order is not sought."""
    del fitted, judged, names
    return Reordered({}, "")


def parity(forms):  # noqa: ANN001, ANN201 - as above
    """Return the distances of the scores."""
    return matrix(forms)


def meaning(said, slack) -> str:  # noqa: ANN001 - as above
    """Return "": scores are scores."""
    del said, slack
    return ""


def golden_rows(labels, said, most):  # noqa: ANN001, ANN201 - as above
    """Return the rows with the clearest tags."""
    del labels
    return np.sort(np.argsort(-np.abs(said.logits).min(axis=1), kind="stable")[:most])


def golden_reach(said):  # noqa: ANN001, ANN201 - as above
    """Return the largest score, and that no set of tags may change."""
    return float(np.abs(said).max()), 0


def temperature(said, labels) -> float:  # noqa: ANN001 - as above
    """Return 1."""
    del said, labels
    return 1.0
