"""Whether an input is inside what the model was trained on: its distance from the training data, against a limit.

The distance is the mean of squared robust z-scores over the streams of the image's features and, if the model has one,
of the embedding: ``((x - median) / (q3 - q1)) ** 2``, with median and quartiles of the reference. The compressor
sets the limit by split conformal prediction: on rows that had no part in median and quartiles, the
``ceil((n + 1) (1 - rate))``-th smallest distance. So of inputs exchangeable with those rows, at most ``rate`` are
called unsupported; inputs that depend on each other (frames of a scene) are unsupported together.

Source: Papadopoulos et al., Inductive Confidence Machines for Regression, ECML 2002, section 3; Laxhammar and Falkman,
Conformal prediction for distribution-independent anomaly detection, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wire.reference import Reference

RATES = (0.01, 0.02, 0.05)
"""Shares that a release may state; the smallest needs 99 independent inputs."""
_LARGEST = 1e12  # of one squared score: an overflow is an unsupported input, never an error
_Q1, _MEDIAN, _Q3 = 3, 7, 11  # the 15 edges are the 16-quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """The rule of one reference. ``streams``: positions in the values; ``centres`` and ``scales``: one for each."""

    streams: tuple[int, ...]
    centres: tuple[float, ...]
    scales: tuple[float, ...]
    limit: float
    rate: float

    @classmethod
    def of(cls, reference: Reference) -> Support:
        """Return the rule; ``limit`` is 0 if the reference states none."""
        found = [place for place, spec in enumerate(reference.streams) if spec.kind != "output"]
        edges = [reference.edges[place] for place in found]
        return cls(
            streams=tuple(found),
            centres=tuple(row[_MEDIAN] for row in edges),
            scales=tuple(max(row[_Q3] - row[_Q1], 1e-6) for row in edges),
            limit=reference.support_limit,
            rate=reference.support_rate,
        )

    def distance(self, values: Sequence[float]) -> float:
        """Return the distance of one input; ``values``: of all streams of the reference."""
        total = 0.0
        for place, centre, scale in zip(self.streams, self.centres, self.scales, strict=True):
            score = (values[place] - centre) / scale
            squared = score * score
            total += min(_LARGEST, squared)  # NaN is not below it
        return total / len(self.centres)


def limit_of(distances: Sequence[float], n_effective: int) -> tuple[float, float]:
    """Return the limit, and the smallest of ``RATES`` that it can state; (0, 0) if there are too few inputs for any.

    ``distances``: of the calibration rows. ``n_effective``: how many of them are independent; with fewer than there are
    rows the limit is further out.
    """
    ordered = sorted(distances)
    effective = min(n_effective, len(ordered))
    for rate in RATES:
        place = math.ceil((effective + 1) * (1 - rate))
        if place <= effective:
            return ordered[math.ceil(place / effective * len(ordered)) - 1], rate
    return 0.0, 0.0
