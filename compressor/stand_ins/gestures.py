"""Digits drawn as noisy polylines in the format of ``windows`` for strokes: JSON with ``strokePoints``, ``label``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.cache import write_atomically
from compressor.recipe.model import DataRecipe

STROKES_A_DIGIT = 200
_POINTS = 40
_CORNERS: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.5, 0), (0, 0.3), (0, 0.7), (0.5, 1), (1, 0.7), (1, 0.3), (0.5, 0)),
    ((0.3, 0.2), (0.5, 0), (0.5, 1)),
    ((0, 0.2), (0.5, 0), (1, 0.3), (0, 1), (1, 1)),
    ((0, 0), (1, 0), (0.4, 0.4), (1, 0.7), (0.5, 1), (0, 0.9)),
    ((0.7, 1), (0.7, 0), (0, 0.7), (1, 0.7)),
    ((1, 0), (0, 0), (0, 0.45), (1, 0.5), (1, 0.9), (0, 1)),
    ((0.8, 0), (0.1, 0.5), (0.1, 0.9), (0.9, 0.9), (0.9, 0.6), (0.1, 0.6)),
    ((0, 0), (1, 0), (0.3, 1)),
    ((0.5, 0.5), (0, 0.2), (0.5, 0), (1, 0.2), (0, 0.8), (0.5, 1), (1, 0.8), (0.5, 0.5)),
    ((1, 0.4), (0.2, 0.4), (0.2, 0.1), (0.9, 0.1), (0.9, 1)),
)


def write(folder: Path, data: DataRecipe) -> Path:
    """Write ``STROKES_A_DIGIT`` strokes of each digit; return the folder, which holds nothing else."""
    del data
    rng = np.random.default_rng(0)
    strokes = [
        {"label": str(digit), "strokePoints": [{"x": x, "y": y} for x, y in _stroke(corners, rng).tolist()]}
        for _ in range(STROKES_A_DIGIT)
        for digit, corners in enumerate(_CORNERS)
    ]
    own = folder / "gestures"
    write_atomically(own / "generated_0.json", json.dumps({"strokes": strokes}).encode())
    return own


def _stroke(corners: tuple[tuple[float, float], ...], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return points along ``corners``, (``_POINTS``, 2), slightly rotated, sheared and noisy."""
    path = np.array(corners) + rng.normal(0, 0.03, (len(corners), 2))
    places = np.linspace(0, len(path) - 1, _POINTS)
    points = np.stack([np.interp(places, np.arange(len(path)), axis) for axis in path.T], axis=1)
    bend = np.eye(2) + rng.normal(0, 0.06, (2, 2))
    return np.round((points - 0.5) @ bend + rng.normal(0, 0.008, points.shape), 4)
