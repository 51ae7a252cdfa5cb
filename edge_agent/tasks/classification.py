"""Classification on a device: the most likely class with its probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import ClassVar

import numpy as np

from edge_agent.tasks._base import NO_EVENTS, NO_SCORE, Outputs, OutputStream, Seen, TaskAnswer, as_ratio, equal_runs

_NAMES = 4


@dataclass(frozen=True, slots=True)
class Classification:
    """A model with ``classes`` logits."""

    useless_filters: ClassVar[Mapping[str, str]] = {
        **NO_EVENTS,
        **NO_SCORE,
        "change_by": "a class has no numbers; changes_only alone passes another class",
    }
    """Keys of sinks that do nothing for its answers."""
    answer_outputs: ClassVar[Mapping[str, str]] = {"label": "BYTES", "confidence": "FP32"}
    """What the local interface gives for one input, with its type."""

    classes: int

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """The confidence, the entropy, the margin to the second class, and the predicted class."""
        return (
            OutputStream("confidence", (0.0, 1.0)),
            OutputStream("entropy", (-1e-6, float(np.log(max(self.classes, 2)) + 1e-3))),
            OutputStream("margin", (0.0, 1.0)),
            OutputStream("predicted", (0.0, float(self.classes - 1)), equal_runs(self.classes)),
        )

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the values of the streams; NaN if a logit is not a number. Plain floats: numpy calls cost more."""
        logits: list[float] = outputs.tolist()
        top = max(logits)
        scaled = [(value - top) / temperature for value in logits]
        weights = [math.exp(value) if value <= 0 else math.nan for value in scaled]
        total = sum(weights)
        if not math.isfinite(total):
            return [math.nan] * _NAMES
        entropy = math.log(total) - sum(map(mul, weights, scaled)) / total
        predicted = logits.index(top)
        weights[predicted] = 0.0
        return [1 / total, entropy, (1 - max(weights)) / total, float(predicted)]

    def seen(self, values: Sequence[float]) -> Seen:
        """Return the predicted class, its probability and its margin."""
        confidence, _, margin, number = values
        return Seen(-1 if math.isnan(number) else int(number), confidence, margin)

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return the predicted class by name; empty if the logits were not numbers."""
        del outputs
        if math.isnan(values[-1]):
            return TaskAnswer()
        number = int(values[-1])
        return TaskAnswer(label=names[number] if number < len(names) else str(number), confidence=as_ratio(values[0]))

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows have another largest logit."""
        return int(np.count_nonzero(outputs.argmax(axis=1) != golden.argmax(axis=1)))


def make(outputs: int) -> Classification:
    """Return the task for a model with ``outputs`` classes."""
    return Classification(outputs)
