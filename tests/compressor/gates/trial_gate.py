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
