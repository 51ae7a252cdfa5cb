"""Events in a stream on a device: is there one of the known kinds in this input, and how sure is that.

Class 0 is the background. The streams are those of single inputs, as of every task; a smoother makes events of them
(``edge_agent/smoothers/events.py``). The threshold was chosen on calibration rows and travels in the reference, where
other tasks have the temperature of their confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_agent.tasks._base import NO_SCORE, Outputs, OutputStream, Seen, TaskAnswer, as_number, as_ratio, equal_runs


@dataclass(frozen=True, slots=True)
class StreamEvents:
    """A model with a logit for the background and one for each kind of event."""

    useless_filters: ClassVar[Mapping[str, str]] = {
        **NO_SCORE,
        "change_by": "a class has no numbers; changes_only alone passes another class",
    }
    """Keys of sinks that do nothing for its answers."""
    answer_outputs: ClassVar[Mapping[str, str]] = {"label": "BYTES", "confidence": "FP32"}
    """What the local interface gives for one input, with its type."""

    outputs: int

    @property
    def classes(self) -> int:
        """0: how sure a single input is does not tell how often events are right."""
        return 0

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """The highest probability of an event, whether it reaches the threshold (the rate of events), and its kind."""
        return (
            OutputStream("event_score", (0.0, 1.0)),
            OutputStream("event_active", (0.0, 1.0)),
            OutputStream("event_kind", (0.0, float(self.outputs - 1)), equal_runs(self.outputs)),
        )

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the values of the streams; ``temperature`` is the threshold. Without an event the kind is 0."""
        chances = probabilities(outputs.tolist())
        if not chances:
            return [math.nan] * len(self.streams)
        best = max(chances[1:], default=0.0)
        active = best >= temperature
        return [best, float(active), float(chances.index(best, 1)) if active else 0.0]

    def seen(self, values: Sequence[float]) -> Seen:
        """Return whether the outputs were numbers; windows of a stream are not labelled on the server."""
        return Seen(0 if all(map(math.isfinite, values)) else -1)

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return the most probable class of the newest inputs, perhaps the background; empty without numbers."""
        del values
        chances = probabilities(outputs)
        if not chances:
            return TaskAnswer()
        number = chances.index(max(chances))
        label = names[number] if number < len(names) else str(number)
        return TaskAnswer(label=label, confidence=as_ratio(chances[number]))

    def thresholds(self, names: Sequence[str], number: float) -> Mapping[str, float]:
        """Return the mean probability at which each kind of event begins; the background has none."""
        return dict.fromkeys(names[1:], as_number(number))

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows have another largest logit."""
        return int(np.count_nonzero(outputs.argmax(axis=1) != golden.argmax(axis=1)))


def probabilities(logits: Sequence[float]) -> list[float]:
    """Return the softmax of ``logits``; empty if one is not a number. Plain floats: numpy calls cost more."""
    if not all(map(math.isfinite, logits)):
        return []
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    total = sum(weights)
    return [weight / total for weight in weights]


def make(outputs: int) -> StreamEvents:
    """Return the task for a model with ``outputs`` classes, the background among them."""
    return StreamEvents(outputs)
