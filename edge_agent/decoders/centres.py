"""Boxes from centre points: what the detector of ``compressor/networks/centre_net.py`` outputs.

The first output is (N, classes + 4, h, w), a grid over the input: for each class the logit that an object of it has its
centre in the cell, then the size and the centre of that object. All six are of like range on purpose, so that one scale
of an int8 output serves them: ``width`` and ``height`` are twice the binary logarithm of the size in cells, ``x`` and
``y`` four times the centre's distance from the cell's corner, in cells.

Source: X. Zhou et al., Objects as Points, 2019, section 4 (peaks of a 3 x 3 neighbourhood, boxes at their place). Equal
neighbours both count, because quantized scores have plateaus; suppression takes the second away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.decoders._suppression import chosen, unknown
from edge_agent.errors import DecoderError
from wire.settings import Bound

Array: TypeAlias = "NDArray[Any]"
SIZE_STEPS, OFFSET_STEPS = 2.0, 4.0
"""Units of the size's binary logarithm, and of the centre's distance in cells."""
_LARGEST = 24.0  # twice the logarithm of 4,096 cells
_RANK = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``most`` boxes at most, of at least the score ``least``; ``overlap``: above it the less sure box goes."""

    least: Annotated[float, Bound(0.001, 0.999)] = 0.05
    overlap: Annotated[float, Bound(0, 1)] = 0.6
    most: Annotated[int, Bound(1, 500)] = 100


def output_shape(classes: int) -> tuple[int, ...]:
    """Return the shape of the first output; the grid is open."""
    return (-1, classes + 4, -1, -1)


@dataclass(frozen=True, slots=True)
class Centres:
    """Reads peaks of the scores, and the boxes at their place."""

    settings: Settings
    classes: int

    def boxes(self, outputs: Sequence[Array]) -> Array:
        """Return the boxes of N inputs, float32 (N, 6 * most).

        Raises:
            DecoderError: If the first output is no grid of classes and four values.
        """
        grid = np.asarray(outputs[0], np.float32)
        if grid.ndim != _RANK or grid.shape[1] != self.classes + 4:
            message = f"Expected centres as (N, {self.classes + 4}, h, w), got {grid.shape}"
            raise DecoderError(f"{message}: rebuild the bundle")
        return np.stack([self._one(one) for one in grid])

    def _one(self, grid: Array) -> Array:
        most = int(self.settings.most)
        if not np.isfinite(grid).all():
            return unknown(most)
        logits, (width, height, x, y) = grid[: self.classes], grid[self.classes :]
        least = math.log(self.settings.least / (1 - self.settings.least))
        kinds, rows, columns = np.nonzero((logits >= least) & (logits >= _around(logits)))
        scores = 1 / (1 + np.exp(-logits[kinds, rows, columns]))
        cells = np.array([grid.shape[2], grid.shape[1]], np.float32)
        sizes = np.stack([width[rows, columns], height[rows, columns]], axis=1)
        half = np.exp2(np.clip(sizes, -_LARGEST, _LARGEST) / SIZE_STEPS) / 2
        middle = np.stack([columns + x[rows, columns] / OFFSET_STEPS, rows + y[rows, columns] / OFFSET_STEPS], axis=1)
        corners = np.concatenate([(middle - half) / cells, (middle + half) / cells], axis=1).astype(np.float32)
        return chosen(kinds, scores.astype(np.float32), corners, overlap=self.settings.overlap, most=most)


def _around(values: Array) -> Array:
    """Return the largest value of each 3 x 3 neighbourhood, (C, h, w)."""
    framed = np.pad(values, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    across = np.maximum(np.maximum(framed[:, :, :-2], framed[:, :, 1:-1]), framed[:, :, 2:])
    largest: Array = np.maximum(np.maximum(across[:, :-2], across[:, 1:-1]), across[:, 2:])
    return largest


def parts(settings: Settings, shape: object, outputs: Sequence[Array]) -> dict[str, Array]:
    """Return scores, sizes and places of the grid: they share an output, and one scale in an int8 file."""
    del settings
    grid, classes = np.asarray(outputs[0], np.float32), shape.classes  # type: ignore[attr-defined]
    scores = 1 / (1 + np.exp(-np.clip(grid[:, :classes], -80, 80)))
    return {"scores": scores, "sizes": grid[:, classes : classes + 2], "places": grid[:, classes + 2 :]}


def make(settings: Settings, shape: object) -> Centres:
    """Return the decoder for a model of ``shape``, a ``ModelShape``."""
    return Centres(settings, shape.classes)  # type: ignore[attr-defined]
