"""Mergeable counters of a window of inferences.

The merge is a commutative monoid: integer addition for equal shapes; the empty counters of a shape are its identity.
Counters made with different references must never be merged; ``ref_id`` and artifact digest prevent that where reports
are aggregated, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.errors import HistogramError

BINS = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """The number of counters: ``streams`` x 16 bins, and a ``classes`` x ``confidence_bins`` table."""

    streams: int
    classes: int
    confidence_bins: int = 10

    @property
    def total(self) -> int:
        """The number of counters: bins, one invalid count per stream, the table."""
        return self.streams * (BINS + 1) + self.classes * self.confidence_bins


@dataclass(frozen=True, slots=True)
class Counters:
    """The counts of one window (or of many, merged).

    ``values`` has ``shape.total`` integers: first ``streams`` x 16 bin counts (row by row), then one
    count of invalid values per stream, then the class x confidence-bin table (row by row).
    ``n`` is the number of inferences.
    """

    shape: Shape
    n: int
    values: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check the number of values.

        Raises:
            HistogramError: If it differs from that of the shape.
        """
        if len(self.values) != self.shape.total:
            message = f"Expected {self.shape.total} counters for {self.shape}, got {len(self.values)}"
            raise HistogramError(message)

    def bins(self, stream: int) -> tuple[int, ...]:
        """Return the 16 bin counts of one stream."""
        return self.values[stream * BINS : (stream + 1) * BINS]

    @property
    def invalid(self) -> tuple[int, ...]:
        """The number of NaN, infinite or physically impossible values per stream."""
        start = self.shape.streams * BINS
        return self.values[start : start + self.shape.streams]

    @property
    def table(self) -> tuple[int, ...]:
        """The class x confidence-bin counts, row by row."""
        return self.values[self.shape.streams * (BINS + 1) :]


def empty(shape: Shape) -> Counters:
    """Return the identity of ``merge`` for ``shape``."""
    return Counters(shape, 0, (0,) * shape.total)


def merge(left: Counters, right: Counters) -> Counters:
    """Return the sum of two windows.

    Raises:
        HistogramError: If their shapes differ.
    """
    if left.shape != right.shape:
        message = f"Expected counters of one shape, got {left.shape} and {right.shape}"
        raise HistogramError(message)
    return Counters(left.shape, left.n + right.n, tuple(a + b for a, b in zip(left.values, right.values, strict=True)))
