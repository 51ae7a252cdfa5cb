"""A gate from outside, for the tests: the share of right answers among the rows that the candidate is surest of."""

from __future__ import annotations

from typing import Any

import numpy as np

from compressor.gates.kinds import SHARE, GateKind, Place


def right_where_sure(compared: Any) -> float:  # noqa: ANN401 - as a person writes it
    """Return the accuracy of the half of the rows with the highest logit."""
    said = compared.candidate
    sure = np.argsort(said.logits.max(axis=1))[len(compared.labels) // 2 :]
    return float((said.classes == compared.labels)[sure].mean())


def breaks(compared: Any) -> float:  # noqa: ANN401 - as above
    """Fail as a plug-in's mistake does."""
    return float(compared.no_such_field)


RIGHT_WHERE_SURE = GateKind(limits=("min",), tasks=("classification",), unit=SHARE, measure=right_where_sure)
HERE_ONLY = GateKind(place=Place.HOST, measure=right_where_sure)
BROKEN = GateKind(measure=breaks)
WITHOUT_END = GateKind(measure=lambda _compared: float("nan"))
BOUNDED_FROM_BELOW = GateKind(limits=("min",), bounded=True, measure=right_where_sure)
EMPTY = GateKind()
NO_KIND = 3


def certainty(outputs: Any, labels: Any) -> Any:  # noqa: ANN401 - as above
    """Return the probability of the right class of each row."""
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return (shares / shares.sum(axis=1, keepdims=True))[np.arange(len(labels)), labels]


def one_number(outputs: Any, labels: Any) -> float:  # noqa: ANN401 - as above
    """Return one number for all rows, by mistake."""
    return float((outputs.argmax(axis=1) == labels).mean())


def not_a_number(outputs: Any, labels: Any) -> Any:  # noqa: ANN401 - as above
    """Divide by zero where the class is 0."""
    return np.where(labels == 0, np.nan, outputs[:, 0])
