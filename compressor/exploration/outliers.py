"""Rows far from all others: in their content, in the directions of their edges, or in their brightness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compressor.exploration.simple_model import gradients
from compressor.exploration.thumbnails import Thumbs

MIN_SCORE = 3.5
"""Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993. Measured without planted outliers: 0 of 1,797
digits, 5 of 3,000 meter digits and 2 of 3,000 of Fashion-MNIST reach it; at 5, the earlier bound, few planted ones
did."""
_MIN_LIGHT = 7.0
"""Robust deviations of brightness or contrast that count as much as ``MIN_SCORE``. Measured: pictures at 15 % light
are at 7 to 16, black and white ones beyond; of 1,000 gestures 29 thin strokes reach 6 without cause, none reaches 7."""
_COMPONENTS = 16
_NORMAL_MAD = 1.4826
Scores = npt.NDArray[np.float64]


def outlier_scores(thumbs: Thumbs) -> Scores:
    """Return how far each row is from the centre, float64 (N,): a robust z-score, an outlier from ``MIN_SCORE`` on.

    It is the largest of three scores: of the pixels, of the gradients, and of brightness and contrast.
    """
    ways = _distances(thumbs.reshape(len(thumbs), -1)), _distances(gradients(thumbs))
    mean, contrast = thumbs.mean(axis=(1, 2), dtype=np.float64), thumbs.std(axis=(1, 2), dtype=np.float64)
    light = np.maximum(np.abs(_robust(mean)), np.abs(_robust(np.log(contrast + 1))))
    scores: Scores = np.maximum(np.maximum(*ways), light * (MIN_SCORE / _MIN_LIGHT))
    return scores


def _distances(rows: npt.NDArray[np.float32]) -> Scores:
    """Return the robust z-score of the distance of each of ``rows`` (N, D) from the mean.

    The distance is Mahalanobis' in the first 16 principal components, plus the residual outside of them; its logarithm
    is compared with the median by the median absolute deviation.
    Source: Hubert et al., ROBPCA, 2005, section 3 (score and orthogonal distances); Iglewicz and Hoaglin 1993 (MAD).
    """
    flat = rows.astype(np.float64)
    flat -= flat.mean(axis=0)
    variances, directions = np.linalg.eigh(flat.T @ flat / max(len(flat) - 1, 1))
    kept = directions[:, ::-1][:, :_COMPONENTS]
    spread = np.sqrt(np.maximum(variances[::-1][:_COMPONENTS], 1e-6))
    along = flat @ kept
    rest = ((flat - along @ kept.T) ** 2).sum(axis=1)
    distance = ((along / spread) ** 2).sum(axis=1) + rest / max(float(rest.mean()), 1e-6)
    return _robust(np.log(distance + 1e-9))


def _robust(values: Scores) -> Scores:
    middle = np.median(values)
    mad = _NORMAL_MAD * float(np.median(np.abs(values - middle)))
    return (values - middle) / max(mad, 1e-3)
