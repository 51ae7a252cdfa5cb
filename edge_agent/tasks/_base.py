"""The device's interface of a task: the streams of its outputs, and their answer. Needs numpy, no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wire.histogram import BINS
from wire.reference import StreamSpec

Outputs: TypeAlias = "NDArray[Any]"
UNBOUNDED = 1e30
"""A value beyond it is an overflow, not a measurement."""


@dataclass(frozen=True, slots=True)
class OutputStream:
    """One stream of the outputs: its name, and the smallest and largest possible value.

    ``edges``: its 15 edges, if its values are class indices; otherwise the rows of the train split determine them.
    """

    name: str
    limits: tuple[float, float] = (-UNBOUNDED, UNBOUNDED)
    edges: tuple[float, ...] = ()

    @property
    def spec(self) -> StreamSpec:
        """The stream's description in a reference."""
        return StreamSpec(name=self.name, kind="output", categorical=bool(self.edges))


class Seen(NamedTuple):
    """One inference, for heartbeat and samples.

    ``predicted``: the class to count, -1 if the outputs were not numbers. ``confidence`` and ``margin``, 0..1,
    determine which inputs are worth a label; NaN: inputs of this task are not labelled.
    """

    predicted: int
    confidence: float = math.nan
    margin: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBox:
    """One object: its class, its score (0..1), and x0, y0, x1, y1 as ratios of the input's width and height."""

    label: str
    score: float
    edges: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAnswer:
    """The answer for people: a ``label`` with its ``confidence``, or ``values`` by name and ``boxes``.

    ``anomalous`` and ``scores``: of an anomaly, whether it is one, and the numbers behind that. ``labels`` and
    ``scores``: of several labels, those of the answer, the surest first, and their probabilities. ``boxes``, ``labels``
    and ``scores`` are None where a task has none; empty ones are an answer. Probabilities are ``as_ratio``, other
    numbers ``as_number``.
    """

    label: str = ""
    confidence: float = math.nan
    values: Mapping[str, float] = field(default_factory=dict)
    boxes: tuple[FoundBox, ...] | None = None
    anomalous: bool | None = None
    labels: tuple[str, ...] | None = None
    scores: Mapping[str, float] | None = None


class DeviceTask(Protocol):
    """The device half of a task, for one model.

    One whose answer needs the number that was fitted on calibration rows also has ``fitted(number) -> DeviceTask``.
    One that compares with thresholds also has ``thresholds(names, number) -> Mapping[str, float]``: from which number
    on each of ``names`` is in an answer; ``number``: that of the calibration rows. One for whose answers keys of sinks
    do nothing names them, each with what to use, in ``useless_filters``. One that says what the local interface gives
    for one input has ``answer_outputs``: names with their types in KServe v2, ``EACH_NAME`` for each name of an output.

    ``streams``: of its outputs, in the order of ``values``. ``classes``: of the reference's calibration table by class
    and confidence, which needs streams ``confidence`` and ``predicted``, first and last; 0: it has none.
    """

    @property
    def streams(self) -> tuple[OutputStream, ...]: ...

    @property
    def classes(self) -> int: ...

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the values of the streams of one inference: ``outputs``, (D,), as returned by the runtime.

        ``temperature``: the task's number that was fitted on calibration rows; of boxes, the threshold of their scores.
        """

    def seen(self, values: Sequence[float]) -> Seen:
        """Return the values for heartbeat and samples from the stream ``values`` of one inference."""

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return the answer of one inference; ``names``: of the outputs, from the manifest."""

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows, both (N, D), have another answer than on the build host."""


EACH_NAME = "*"
_EVENTS = "only a stream of events has any; changes_only passes what changes"
_SCORE = "only an anomaly has such a score; above and thresholds are for probabilities"
NO_EVENTS: Mapping[str, str] = {"events_only": _EVENTS}
NO_SCORE: Mapping[str, str] = {"score_above": _SCORE}


def as_ratio(value: float) -> float:
    """Return a probability or score of 0..1 as answers have it: to four decimals."""
    return round(value, 4)


def as_number(value: float) -> float:
    """Return a number of a model as answers have it: the shortest decimal that is the same float32."""
    return float(str(np.float32(value)))


def equal_runs(classes: int) -> tuple[float, ...]:
    """Return the edges of a stream of class indices: one bin per class, or runs of classes beyond 16."""
    step = max(1, -(-classes // BINS))
    return tuple(step * (index + 1) - 0.5 for index in range(BINS - 1))
