"""Non-maximum suppression, class by class, and the form in which boxes leave a decoder. numpy alone."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = "NDArray[np.float32]"
_PLACES = 6
PEAKS, LISTED = 4, 30
"""Candidates for each box that is kept, at most: a model that fires everywhere must not take seconds. A list without
peaks has some twenty boxes around each object."""


def chosen(
    kinds: NDArray[Any], scores: Floats, corners: Floats, *, overlap: float, most: int, candidates: int = PEAKS
) -> Floats:
    """Return the boxes of one input that remain, as one row: float32 (6 * most,), the surest first.

    Of two boxes of one class that overlap by more than ``overlap`` (intersection over union) the less sure one goes.

    Args:
        kinds: Class of each of D boxes.
        scores: (D,), 0..1.
        corners: (D, 4), x0, y0, x1, y1 as ratios of the input; what lies outside is cut off.
        overlap: 0..1; 1 keeps all.
        most: How many boxes remain at most.
        candidates: Of the surest boxes so many times ``most`` are looked at.

    Source: N. Bodla et al., Soft-NMS, ICCV 2017, section 3 (the plain greedy form); equal scores keep their order.
    """
    order = np.argsort(-scores, kind="stable")[: candidates * most]
    kinds, scores, corners = kinds[order], scores[order], np.clip(corners[order], 0, 1)
    sized = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    kinds, scores, corners = kinds[sized], scores[sized], corners[sized]
    kept = _kept(kinds, corners, overlap, most)
    row = np.zeros((most, _PLACES), np.float32)
    row[:, 0] = -1
    row[: len(kept), 0], row[: len(kept), 1], row[: len(kept), 2:] = kinds[kept], scores[kept], corners[kept]
    return row.ravel()


def _kept(kinds: NDArray[Any], corners: Floats, overlap: float, most: int) -> NDArray[np.intp]:
    moved = corners + 2 * kinds.astype(np.float64)[:, None]  # classes lie apart, so that one pass serves all
    x0, y0, x1, y1 = moved.T
    areas = (x1 - x0) * (y1 - y0)
    left = np.arange(len(moved))
    kept: list[np.intp] = []
    while len(left) and len(kept) < most:
        first, rest = left[0], left[1:]
        kept.append(first)
        width = np.minimum(x1[first], x1[rest]) - np.maximum(x0[first], x0[rest])
        height = np.minimum(y1[first], y1[rest]) - np.maximum(y0[first], y0[rest])
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        left = rest[shared <= overlap * (areas[first] + areas[rest] - shared)]
    return np.array(kept, np.intp)


def unknown(most: int) -> Floats:
    """Return the row of an input whose outputs are not numbers."""
    return np.full(_PLACES * most, np.nan, np.float32)
