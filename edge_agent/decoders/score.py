"""An anomaly score that the file computes itself: its first output, one number an input; larger is more anomalous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import DecoderError

Array: TypeAlias = "NDArray[Any]"
OUTPUT, WIDTH = "anomaly", 1
"""Name and width of what it gives instead of the first output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """It has none."""


def output_shape(classes: int) -> tuple[int, ...]:
    """Return the shape of the first output."""
    del classes
    return (-1, 1)


def ends_float(settings: Settings) -> bool:
    """Return True: 8 bits would cut the output at the largest score of the rows that calibrated."""
    del settings
    return True


def parts(settings: Settings, shape: object, outputs: Sequence[Array]) -> Mapping[str, Array]:
    """Return nothing: the output is one thing."""
    del settings, shape, outputs
    return {}


@dataclass(frozen=True, slots=True)
class OwnScore:
    """Passes the first output on."""

    def scores(self, inputs: Array, outputs: Sequence[Array]) -> Array:
        """Return the score of N inputs, float32 (N, 1).

        Raises:
            DecoderError: If the output has another number of values than one for each input.
        """
        said = np.asarray(outputs[0], np.float32)
        if said.size != len(inputs):
            message = f"Expected one number for each of {len(inputs)} inputs, got an output {said.shape}"
            raise DecoderError(f"{message}: rebuild the bundle")
        return said.reshape(-1, 1)


def make(settings: Settings, shape: object) -> OwnScore:
    """Return the decoder; it needs nothing of ``shape``."""
    del settings, shape
    return OwnScore()
