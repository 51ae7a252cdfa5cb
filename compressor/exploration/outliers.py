"""Rows far from all others in a simple feature space."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compressor.exploration.thumbnails import Thumbs

MIN_SCORE = 5.0
_COMPONENTS = 16
_NORMAL_MAD = 1.4826
Scores = npt.NDArray[np.float64]


def outlier_scores(thumbs: Thumbs) -> Scores:
    """Return how far each row lies from the middle, float64 (N,): a robust z-score, an outlier from ``MIN_SCORE`` on.

    The distance is Mahalanobis' in the first 16 principal components, plus the residual outside of them; its logarithm
    is compared with the median by the median absolute deviation.
    Source: Hubert et al., ROBPCA, 2005, section 3 (score and orthogonal distances); Iglewicz and Hoaglin 1993 (MAD).
    """
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float64)
    flat -= flat.mean(axis=0)
    variances, directions = np.linalg.eigh(flat.T @ flat / max(len(flat) - 1, 1))
    kept = directions[:, ::-1][:, :_COMPONENTS]
    spread = np.sqrt(np.maximum(variances[::-1][:_COMPONENTS], 1e-6))
    along = flat @ kept
    rest = ((flat - along @ kept.T) ** 2).sum(axis=1)
    distance = ((along / spread) ** 2).sum(axis=1) + rest / max(float(rest.mean()), 1e-6)
    logs = np.log(distance + 1e-9)
    middle = np.median(logs)
    mad = _NORMAL_MAD * float(np.median(np.abs(logs - middle)))
    scores: Scores = (logs - middle) / max(mad, 1e-3)
    return scores
