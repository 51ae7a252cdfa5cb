"""An anomaly score from a reconstruction or a forecast: how far the input is from what the network made of it.

The first output is (N, C * rows * W): the network's own picture of the input's last ``rows`` rows, in the input's order
of channels, rows and columns. All rows are a reconstruction (an auto-encoder), fewer a forecast of the last steps of a
window. The score is the root of the mean squared difference, in the units of the network's input.

The difference is taken here in float32, not inside the file: an int8 file would cut it at the largest difference of the
normal rows that calibrated it, and those of anomalies are larger.

Source: M. Sakurada, T. Yairi, Anomaly Detection Using Autoencoders with Nonlinear Dimensionality Reduction, 2014
(reconstruction error); P. Malhotra et al., Long Short Term Memory Networks for Anomaly Detection in Time Series, 2015
(prediction error).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import DecoderError

Array: TypeAlias = "NDArray[Any]"
OUTPUT, WIDTH = "anomaly", 1
"""Name and width of what it gives instead of the first output."""
_PICTURES = 4  # axes of inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """It has none."""


def output_shape(classes: int) -> tuple[int, ...]:
    """Return the shape of the first output; how much of the input it covers is open."""
    del classes
    return (-1, -1)


def covered(inputs: Array, width: int) -> Array:
    """Return the part of ``inputs``, (N, C, H, W), that an output of ``width`` numbers stands for, (N, width).

    Raises:
        DecoderError: If that is no whole number of rows.
    """
    channels, height, columns = inputs.shape[1:]
    rows, rest = divmod(width, channels * columns)
    if rest or not 0 < rows <= height:
        message = f"Expected an output of 1 to {height} rows of {channels} x {columns} numbers, got {width} numbers"
        raise DecoderError(f"{message}: rebuild the bundle")
    part: Array = inputs[:, :, height - rows :].reshape(len(inputs), width)
    return part


@dataclass(frozen=True, slots=True)
class Residual:
    """Compares the first output with the input; ``last``: whether the input's channels are its last axis."""

    last: bool

    def scores(self, inputs: Array, outputs: Sequence[Array]) -> Array:
        """Return the score of N inputs, float32 (N, 1).

        Raises:
            DecoderError: If input or output have another shape than a picture's.
        """
        said = np.asarray(outputs[0], np.float32)
        if inputs.ndim != _PICTURES or said.ndim != 2 or len(said) != len(inputs):  # noqa: PLR2004 - (N, D)
            message = f"Expected an input (N, C, H, W) and an output (N, D), got {inputs.shape} and {said.shape}"
            raise DecoderError(f"{message}: rebuild the bundle")
        given = np.asarray(inputs, np.float32)
        apart = covered(given.transpose(0, 3, 1, 2) if self.last else given, said.shape[1]) - said
        return np.sqrt(np.mean(apart**2, axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)


def make(settings: Settings, shape: object) -> Residual:
    """Return the decoder for a model of ``shape``, a ``ModelShape``."""
    del settings
    return Residual(shape.layout == "NHWC")  # type: ignore[attr-defined]
