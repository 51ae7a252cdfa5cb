"""Parity: how far the outputs of one model in several forms differ. Pure.

Compares every pair of forms (torch, ONNX and TFLite, float and int8) on the same inputs. Does not run anything;
``layers`` finds the layer at which two forms diverge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two forms of one model: largest absolute difference and lowest cosine of their logits, share of flips.

    For a regression ``cosine`` is the lowest correlation of an output, and ``flip_ratio`` is NaN.
    """

    first: str
    second: str
    max_abs: float
    cosine: float
    flip_ratio: float


def matrix(logits: Mapping[str, NDArray[np.float32]]) -> tuple[Pair, ...]:
    """Return every pair of ``logits``, each float32 (N, classes) for the same inputs, in the given order.

    Raises:
        MeasureError: If two forms differ in shape or there are no inputs.
    """
    return tuple(_pair(first, second, logits[first], logits[second]) for first, second in combinations(logits, 2))


def _pair(first: str, second: str, one: NDArray[np.float32], other: NDArray[np.float32]) -> Pair:
    if one.shape != other.shape or one.ndim != 2 or not one.size:  # noqa: PLR2004 - rows and classes
        message = f"Expected logits (N, classes) of the same inputs, got {one.shape} of {first!r} and {other.shape} of "
        raise MeasureError(f"{message}{second!r}: run both on the same rows")
    left, right = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    both_zero = ~(left.any(axis=1) | right.any(axis=1))  # if only one is zero they disagree: cosine 0
    cosine = np.where(both_zero, 1.0, (left * right).sum(axis=1) / np.where(norms == 0, 1, norms))
    flips = left.argmax(axis=1) != right.argmax(axis=1)
    return Pair(
        first=first,
        second=second,
        max_abs=float(np.abs(left - right).max()),
        cosine=float(cosine.min()),
        flip_ratio=float(flips.mean()),
    )


def find(pairs: tuple[Pair, ...], first: str, second: str) -> Pair | None:
    """Return the pair with these two names, in either order; None if they were not compared."""
    return next((pair for pair in pairs if {pair.first, pair.second} == {first, second}), None)
