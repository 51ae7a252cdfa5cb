"""Bounds of a median from repeated measurements, by their order alone. Pure.

Decides how far the median of repeats may be from that of all repeats that could be made; no distribution is assumed,
only that repeats do not depend on each other. Does without scipy: a process whose memory is measured imports this.

Source: H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition (2003), section 7.1, equation 7.1.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE = 0.95


def median_bounds(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the one-sided lower and upper bound of the median of what ``values`` are draws of; None: too few values.

    The upper bound is the smallest of the values that exceeds the median with at least ``confidence``: of five the
    largest, of eight the second largest.
    """
    ordered, n = sorted(values), len(values)
    if n < least_repeats(confidence):
        return None
    rank, covered = 1, 0.5**n  # the chance that fewer than ``rank`` of them are below the median
    while covered < confidence:
        covered += math.comb(n, rank) * 0.5**n
        rank += 1
    return ordered[n - rank], ordered[rank - 1]


def least_repeats(confidence: float = CONFIDENCE) -> int:
    """Return the number of repeats from which on the largest bounds the median: 5 for 95 %."""
    return math.ceil(math.log2(1 / (1 - confidence)) - 1e-9)
