"""Multi-label on a device: the labels whose probability reaches their threshold, of several or none.

The outputs are a logit for each label: the probability is its sigmoid. The thresholds were chosen on calibration rows
and travel in the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.tasks._base import (
    EACH_NAME,
    NO_EVENTS,
    NO_SCORE,
    Outputs,
    OutputStream,
    Seen,
    TaskAnswer,
    as_number,
    as_ratio,
    equal_runs,
)

MAX_RATES = 8
"""At most this many labels get a drift stream of their rate, ``label_0`` first; more would dilute the test."""
HALF = 0.5
"""The threshold of a label if the manifest has none."""
_YES_NO = equal_runs(2)


def limits_of(thresholds: Sequence[float], labels: int) -> NDArray[np.float32]:
    """Return the logit from which each of ``labels`` is in the answer, float32 (labels,).

    ``thresholds``: the probabilities, above 0 and below 1; none: all are ``HALF``.
    """
    odds = np.array(thresholds or (HALF,) * labels, np.float64)
    return np.log(odds / (1 - odds)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """A model with a logit for each label; ``limits``: from which on it is in the answer, as ``limits_of`` returns."""

    useless_filters: ClassVar[Mapping[str, str]] = {
        **NO_EVENTS,
        **NO_SCORE,
        "reject": "labels below above or thresholds are left out of the answer, which passes; leave reject out",
    }
    """Keys of sinks that do nothing for its answers."""
    answer_outputs: ClassVar[Mapping[str, str]] = {"labels": "BYTES", EACH_NAME: "FP32"}
    """What the local interface gives for one input, with its type."""

    limits: NDArray[np.float32]

    @property
    def classes(self) -> int:
        """0: the labels are not exclusive, so that there is no table of right answers by class."""
        return 0

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """The labels of an input, the largest probability, and whether each of the first labels is in the answer."""
        rates = (OutputStream(f"label_{at}", (0.0, 1.0), _YES_NO) for at in range(min(len(self.limits), MAX_RATES)))
        return (OutputStream("labels", (0.0, float(len(self.limits)))), OutputStream("top", (0.0, 1.0)), *rates)

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the values of the streams; NaN if a logit is not a number."""
        del temperature
        if not np.isfinite(outputs).all():
            return [math.nan] * len(self.streams)
        there: list[float] = (outputs >= self.limits).astype(np.float64).tolist()
        return [sum(there), _probability(float(outputs.max())), *there[:MAX_RATES]]

    def seen(self, values: Sequence[float]) -> Seen:
        """Return whether the outputs were numbers; inputs with several labels are not labelled on the server."""
        return Seen(0 if all(map(math.isfinite, values)) else -1)

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return the probability of each label by name, and ``labels`` with ``scores``: those of the answer."""
        if math.isnan(values[0]):
            return TaskAnswer()
        rows = list(zip(names, outputs, self.limits.tolist(), strict=False))
        said = sorted((row for row in rows if row[1] >= row[2]), key=lambda row: -row[1])
        return TaskAnswer(
            values={name: as_ratio(_probability(logit)) for name, logit, _ in rows},
            labels=tuple(name for name, _, _ in said),
            scores={name: as_ratio(_probability(logit)) for name, logit, _ in said},
        )

    def thresholds(self, names: Sequence[str], number: float) -> Mapping[str, float]:
        """Return the probability from which each label is in the answer."""
        del number
        return {name: as_number(_probability(limit)) for name, limit in zip(names, self.limits.tolist(), strict=False)}

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows have another set of labels."""
        return int(((outputs >= self.limits) != (golden >= self.limits)).any(axis=1).sum())


def _probability(logit: float) -> float:
    """Return the sigmoid of ``logit``; written so that no exponential overflows."""
    small = math.exp(-abs(logit))
    return 1 / (1 + small) if logit >= 0 else small / (1 + small)


def make(outputs: int, thresholds: Sequence[float] = ()) -> MultiLabel:
    """Return the task for a model of so many labels; ``thresholds``: of each label, from the manifest."""
    return MultiLabel(limits_of(thresholds, outputs))
