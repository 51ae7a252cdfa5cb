"""Detection on a device: the boxes above a threshold, and how many there are of each class.

The outputs are those of a decoder: boxes as (class, score, x0, y0, x1, y1), the surest first. The threshold was chosen
on calibration rows and travels in the reference, where other tasks have the temperature of their confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edge_agent.tasks._base import (
    EACH_NAME,
    NO_EVENTS,
    NO_SCORE,
    FoundBox,
    Outputs,
    OutputStream,
    Seen,
    TaskAnswer,
    as_number,
    as_ratio,
)

VALUES = 6
_MOST = 500.0
_SURE = 0.3
"""A golden box of less is not compared: near the least score, boxes come and go with the last bit."""
_APART, _OVERLAP = 0.1, 0.7


@dataclass(frozen=True, slots=True)
class Detection:
    """A model whose decoder gives boxes."""

    useless_filters: ClassVar[Mapping[str, str]] = {
        **NO_EVENTS,
        **NO_SCORE,
        "reject": "boxes below above or thresholds are left out of the answer, which passes; leave reject out",
    }
    """Keys of sinks that do nothing for its answers."""
    answer_outputs: ClassVar[Mapping[str, str]] = {"boxes": "BYTES", EACH_NAME: "FP32"}
    """What the local interface gives for one input, with its type."""

    @property
    def classes(self) -> int:
        """0: the classes are those of boxes, not of inputs."""
        return 0

    @property
    def streams(self) -> tuple[OutputStream, ...]:
        """Boxes an input, and of these the mean size, the mean place and the score of the surest, a candidate too."""
        return (
            OutputStream("boxes", (0.0, _MOST)),
            OutputStream("box_size", (0.0, 1.0)),
            OutputStream("box_x", (0.0, 1.0)),
            OutputStream("box_y", (0.0, 1.0)),
            OutputStream("box_score", (0.0, 1.0)),
        )

    def values(self, outputs: Outputs, temperature: float) -> list[float]:
        """Return the values of the streams; ``temperature`` is the threshold. Without boxes the size is 0.

        The size is the square root of the box's share of the input's area.
        """
        boxes = outputs.reshape(-1, VALUES)
        if not np.isfinite(boxes).all():
            return [math.nan] * len(self.streams)
        surest = max(0.0, float(boxes[0, 1]))
        boxes = boxes[boxes[:, 1] >= np.float32(temperature)]
        if not len(boxes):
            return [0.0, 0.0, 0.5, 0.5, surest]
        middle = (boxes[:, 2:4] + boxes[:, 4:6]).mean(axis=0) / 2
        size = np.sqrt((boxes[:, 4:6] - boxes[:, 2:4]).prod(axis=1)).mean()
        return [float(len(boxes)), float(size), float(middle[0]), float(middle[1]), surest]

    def seen(self, values: Sequence[float]) -> Seen:
        """Return whether the outputs were numbers; pictures with boxes are not labelled on the server."""
        return Seen(0 if all(map(math.isfinite, values)) else -1)

    def answer(self, outputs: Sequence[float], values: Sequence[float], names: Sequence[str]) -> TaskAnswer:
        """Return the boxes above the threshold, as many as ``values`` says, and their number by class."""
        if math.isnan(values[0]):
            return TaskAnswer()
        found, counts = [], dict.fromkeys(names, 0.0)
        for place in range(int(values[0])):
            kind, score, x0, y0, x1, y1 = outputs[VALUES * place : VALUES * (place + 1)]
            label = names[int(kind)] if int(kind) < len(names) else str(int(kind))
            counts[label] = counts.get(label, 0.0) + 1
            found.append(FoundBox(label=label, score=as_ratio(score), edges=(x0, y0, x1, y1)))
        return TaskAnswer(values=counts, boxes=tuple(found))

    def thresholds(self, names: Sequence[str], number: float) -> Mapping[str, float]:
        """Return the score from which a box is in the answer, which is one for all classes."""
        return dict.fromkeys(names, as_number(number))

    def flips(self, outputs: Outputs, golden: Outputs) -> int:
        """Return how many rows lack a sure box of the other side: its class, place and about its score."""
        rows = zip(outputs.reshape(len(outputs), -1, VALUES), golden.reshape(len(golden), -1, VALUES), strict=True)
        return sum(not (_has(one, other) and _has(other, one)) for one, other in rows)


def _has(boxes: Outputs, wanted: Outputs) -> bool:
    """Return whether each sure box of ``wanted``, (K, 6), is among ``boxes``."""
    sure = wanted[wanted[:, 1] >= _SURE]
    low = np.maximum(sure[:, None, 2:4], boxes[None, :, 2:4])
    high = np.minimum(sure[:, None, 4:6], boxes[None, :, 4:6])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(one[:, 4:6] - one[:, 2:4]).prod(axis=1) for one in (sure, boxes)]
    same = shared >= _OVERLAP * np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)
    same &= sure[:, None, 0] == boxes[None, :, 0]
    same &= np.abs(sure[:, None, 1] - boxes[None, :, 1]) <= _APART
    return bool(same.any(axis=1).all())


def make(outputs: int) -> Detection:
    """Return the task; the number of ``outputs`` is that of a decoder."""
    del outputs
    return Detection()
