"""The device half of the trial task: the tags whose score is above 0."""

import math
from dataclasses import dataclass

import numpy as np

from edge_agent.tasks import OutputStream, Seen, TaskAnswer


@dataclass(frozen=True)
class Tags:
    """A model of so many tags."""

    outputs: int
    classes: int = 0

    @property
    def streams(self):  # noqa: ANN201 - as a person writes it
        """How many tags, and how unsure the least sure one is."""
        return (OutputStream("tags", (0.0, float(self.outputs))), OutputStream("weakest"))

    def values(self, outputs, temperature):  # noqa: ANN001, ANN201 - as above
        """Return the number of tags and the smallest score, without its sign."""
        del temperature
        return [float((outputs > 0).sum()), float(np.abs(outputs).min())]

    def seen(self, values):  # noqa: ANN001, ANN201 - as above
        """Return whether the scores were numbers."""
        return Seen(-1 if math.isnan(values[1]) else 0)

    def answer(self, outputs, values, names):  # noqa: ANN001, ANN201 - as above
        """Return the tags, and the score of each."""
        del values
        label = "+".join(name for name, score in zip(names, outputs, strict=True) if score > 0)
        return TaskAnswer(label=label or "none", values=dict(zip(names, outputs, strict=True)))

    def flips(self, outputs, golden) -> int:  # noqa: ANN001 - as above
        """Return how many rows have another set of tags."""
        return int(((outputs > 0) != (golden > 0)).any(axis=1).sum())


def make(outputs):  # noqa: ANN001, ANN201 - as above
    """Return it for a model of so many tags."""
    return Tags(outputs)
