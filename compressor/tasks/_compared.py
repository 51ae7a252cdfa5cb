"""One labelled set with the predictions of all models, from which a task computes its evidence. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from compressor.measurement.predictions import Predictions


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Compared:
    """One labelled set with the predictions of all models.

    ``baseline``: the model that the candidate must not be worse than (the float model, or the previous release);
    ``float_model``: the model that was compressed; ``labels`` int64 (N,), or float32 (N, D) of a regression; ``slices``
    str (N,).
    """

    labels: NDArray[Any]
    slices: NDArray[np.str_]
    baseline: Predictions
    float_model: Predictions
    candidate: Predictions
