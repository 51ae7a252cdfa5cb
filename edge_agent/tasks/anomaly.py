"""Anomaly on a device: the score of an input against a threshold.

The score is the decoder's. The threshold was chosen on normal calibration rows, for a stated number of false alarms a
day, and travels in the reference, where other tasks have the temperature of their confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from edge_agent.tasks._base import NO_EVENTS, UNBOUNDED, Outputs, OutputStream, Seen, TaskAnswer, as_number

SCORE, THRESHOLD = "anomaly", "threshold"
"""Names of the numbers in an answer."""


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A model whose decoder gives a score; ``threshold``: above it an input is anomalous."""

    useless_filters: ClassVar[Mapping[str, str]] = {
        **NO_EVENTS,
        "above": "an anomaly has a score, no confidence; use score_above",
        "thresholds": "an anomaly has a score, no confidence; use score_above",
    }
    """Keys of sinks that do nothing for its answers."""
    answer_outputs: ClassVar[Mapping[str, str]] = {
        "label": "BYTES",
        "anomalous": "BOOL",
        SCORE: "FP32",
        THRESHOLD: "FP32",
    }
    """What the local interface gives for one input, with its type."""

    threshold: float = math.inf

    @property
    def classes(self) -> int:
        """0: a score has no table of confidences."""
        return 0

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """The score."""
        return (OutputStream("score"),)  # that of a file from elsewhere may be below 0

    def fitted(self, number: float) -> Anomaly:
        """Return the task with the threshold of a reference."""
        return replace(self, threshold=number)

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the score; NaN if it is not a number."""
        del temperature
        score = float(outputs[0])
        return [score if abs(score) < UNBOUNDED and np.isfinite(outputs).all() else math.nan]

    def seen(self, values: Sequence[float]) -> Seen:
        """Return whether the input is anomalous, 1, or normal, 0; inputs are not labelled on the server."""
        return Seen(-1 if math.isnan(values[0]) else int(values[0] > self.threshold))

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return whether the input is anomalous, with its score and the threshold."""
        del outputs
        if math.isnan(values[0]):
            return TaskAnswer()
        anomalous = values[0] > self.threshold
        scores = {SCORE: as_number(values[0]), THRESHOLD: as_number(self.threshold)}
        return TaskAnswer(label=names[int(anomalous)], anomalous=anomalous, scores=scores)

    def thresholds(self, names: Sequence[str], number: float) -> Mapping[str, float]:
        """Return the score above which an input is an anomaly."""
        del number
        return {names[1]: as_number(self.threshold)}

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows are on the other side of the threshold."""
        return int(np.count_nonzero((outputs[:, 0] > self.threshold) != (golden[:, 0] > self.threshold)))


def make(outputs: int) -> Anomaly:
    """Return the task, without its threshold; the number of ``outputs`` is that of a decoder."""
    del outputs
    return Anomaly()
