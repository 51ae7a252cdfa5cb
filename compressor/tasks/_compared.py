"""One labelled set under all models: what a task's evidence is computed from. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from compressor.measurement.predictions import Predictions


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One labelled set under all models.

    ``baseline``: what the candidate must not be worse than (the float model, or the release before);
    ``float_model``: what the candidate was compressed from; ``labels`` int64 (N,), or float32 (N, D) of a regression;
    ``slices`` str (N,).
    """

    labels: NDArray[Any]
    slices: NDArray[np.str_]
    baseline: Predictions
    float_model: Predictions
    candidate: Predictions
