"""Regression on a device: its values unchanged, in their own unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from edge_agent.tasks._base import EACH_NAME, NO_EVENTS, NO_SCORE, Outputs, OutputStream, Seen, TaskAnswer, as_number

MAX_VALUES = 4
"""At most this many values get a drift stream, ``value_0`` first; more would dilute the test."""


@dataclass(frozen=True, slots=True)
class Regression:
    """A model with ``outputs`` values."""

    useless_filters: ClassVar[Mapping[str, str]] = {
        **NO_EVENTS,
        **NO_SCORE,
        "above": "numbers have no confidence; changes_only with change_by passes those that moved",
        "thresholds": "numbers have no confidence; changes_only with change_by passes those that moved",
    }
    """Keys of sinks that do nothing for its answers."""
    answer_outputs: ClassVar[Mapping[str, str]] = {EACH_NAME: "FP32"}
    """What the local interface gives for one input, with its type."""

    outputs: int

    @property
    def classes(self) -> int:
        """0: values have no classes."""
        return 0

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """The first values."""
        return tuple(OutputStream(name=f"value_{index}") for index in range(min(self.outputs, MAX_VALUES)))

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the first values unchanged."""
        del temperature
        first: list[float] = outputs[: min(self.outputs, MAX_VALUES)].tolist()
        return first

    def seen(self, values: Sequence[float]) -> Seen:
        """Return whether the values were numbers; numbers are not labelled on the server."""
        return Seen(0 if all(map(math.isfinite, values)) else -1)

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return the values by name."""
        del values
        return TaskAnswer(values={name: as_number(value) for name, value in zip(names, outputs, strict=False)})

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return 0: numbers don't flip."""
        del outputs, golden
        return 0


def make(outputs: int) -> Regression:
    """Return the task for a model with ``outputs`` values."""
    return Regression(outputs)
