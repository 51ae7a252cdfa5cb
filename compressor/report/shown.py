"""What a report shows of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compressor.certificate import Certificate
from compressor.parity import Pair
from compressor.statistics import wilson


@dataclass(frozen=True, slots=True)
class Bar:
    """One model's accuracy on one set: ``right`` of ``n``."""

    name: str
    right: int
    n: int

    @property
    def percent(self) -> float:
        """The accuracy in per cent."""
        return 100 * self.right / max(self.n, 1)

    @property
    def bounds(self) -> tuple[float, float]:
        """The two-sided 95 % bounds in per cent. Source: Wilson 1927."""
        low, high = wilson(self.right, self.n, 0.95)
        return 100 * low, 100 * high


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """All that is shown.

    ``accuracies`` in the order (release before,) float, compressed; ``drifted``: the same on drifted samples;
    ``slices``: the same per slice; ``confusion``: (classes, classes), rows are labels; ``lineage``: digests of what
    the model was made from; ``made``: what was done, in words;
    ``targets``: the certificate of every target.
    """

    certificate: Certificate
    class_names: tuple[str, ...]
    accuracies: Sequence[Bar]
    slices: Mapping[str, Sequence[Bar]]
    confusion: NDArray[np.int64]
    parity: Sequence[Pair]
    drifted: Sequence[Bar] = field(default_factory=tuple)
    lineage: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    targets: Sequence[Certificate] = field(default_factory=tuple)
