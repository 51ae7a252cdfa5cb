"""What a device needs of a task: the streams of its outputs, and the answer that they are. numpy, no framework."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from numpy.typing import NDArray

from wire.histogram import BINS
from wire.reference import StreamSpec

Outputs: TypeAlias = "NDArray[Any]"
UNBOUNDED = 1e30
"""A value beyond it is no measurement, but an overflow."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of the outputs: its name, and the smallest and the largest value it can have.

    ``edges``: its 15 edges, where its values are class indices; else the rows of the train split give them.
    """

    name: str
    limits: tuple[float, float] = (-UNBOUNDED, UNBOUNDED)
    edges: tuple[float, ...] = ()

    @property
    def spec(self) -> StreamSpec:
        """The stream as a reference names it."""
        return StreamSpec(self.name, "output", categorical=bool(self.edges))


class Seen(NamedTuple):
    """One inference for heartbeat and samples.

    ``predicted``: the class that counts it, -1 where the outputs were no numbers. ``confidence`` and ``margin``, 0..1,
    say which inputs are worth a label; NaN: people label none of this task.
    """

    predicted: int
    confidence: float = math.nan
    margin: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """The answer in words and numbers: a ``label`` with its ``confidence``, or ``values`` by name."""

    label: str = ""
    confidence: float = math.nan
    values: Mapping[str, float] = field(default_factory=dict)


class DeviceTask(Protocol):
    """The device half of a task, made for one model.

    ``streams``: of its outputs, in the order of ``values``. ``classes``: of the reference's table of right answers by
    class and confidence, which needs streams ``confidence`` and ``predicted``, first and last; 0: it has none.
    """

    @property
    def streams(self) -> tuple[Stream, ...]: ...

    @property
    def classes(self) -> int: ...

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the values of the streams of one inference: ``outputs``, (D,), as the runtime gave them."""

    def seen(self, values: Sequence[float]) -> Seen:
        """Return what heartbeat and samples need of the stream ``values`` of one inference."""

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> Said:
        """Return the answer of one inference; ``names``: of the outputs, as the manifest has them."""

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows, both (N, D), have another answer than the build host's."""


def equal_runs(classes: int) -> tuple[float, ...]:
    """Return the edges of a stream of class indices: one bin a class, or runs of classes beyond 16."""
    step = max(1, -(-classes // BINS))
    return tuple(step * (index + 1) - 0.5 for index in range(BINS - 1))
