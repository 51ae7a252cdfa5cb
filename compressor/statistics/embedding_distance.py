"""Where normal embeddings lie: a linear map to deviations from centres, in standard deviations. Pure.

Each kind of normal rows is a centre; the covariance within the kinds is common to all. What is far from every centre is
unlike all that was seen. The map is whitening by the inverse of the covariance's Cholesky factor, so that the squared
length of a deviation is Mahalanobis' distance: one linear layer, which a model file can have at its end.

The covariance is shrunk towards that of equal variances: of D directions estimated from dependent rows the least are
far too small, and what is noise there would decide the distance. Of a wide embedding the directions with the most
variance are kept, so that the layer stays small.

Source: K. Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
2018, equations 1 and 2; O. Ledoit, M. Wolf, A well-conditioned estimator for large-dimensional covariance matrices,
2004 (shrinkage to equal variances; the weight is fixed here, because its estimate takes rows as independent);
T. Defard et al., PaDiM, 2020, section III-C (few directions of a wide embedding suffice).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError

SHRINKAGE = 0.1
"""On digits .01 to .5 changed an AUC by .01 at most."""
MOST_DIRECTIONS = 64
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CentredMap:
    """A linear layer, ``embedding @ weights + offsets``: deviations from C centres in K directions.

    ``weights``: float32 (D, C * K), ``offsets``: float32 (C * K,), centre by centre.
    """

    weights: Floats
    offsets: Floats
    centres: int


def fitted(embeddings: NDArray[np.floating[Any]], kinds: NDArray[Any]) -> CentredMap:
    """Return the map for normal ``embeddings``, (N, D); ``kinds``, (N,), are equal for rows with one centre.

    Raises:
        MeasureError: If there are fewer rows than two more than kinds, or all embeddings of a kind are equal.
    """
    values = np.asarray(embeddings, np.float64)
    named, owner = np.unique(kinds, return_inverse=True)
    if len(values) < len(named) + 2:
        message = f"Expected normal rows for {len(named)} centres and a covariance, got {len(values)}"
        raise MeasureError(f"{message}: give more, or fewer labels in [data] normal")
    centres = np.stack([values[owner == kind].mean(axis=0) for kind in range(len(named))])
    basis = _basis(values)
    within = (values - centres[owner]) @ basis
    covariance = within.T @ within / (len(values) - len(named))
    usual = float(np.trace(covariance)) / len(covariance)
    if not np.isfinite(usual) or usual <= 0:
        message = f"Expected embeddings of normal rows that differ, got a mean variance of {usual:g}"
        raise MeasureError(f"{message}: take the output of an earlier layer, or train longer")
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * usual * np.eye(len(covariance))
    to_deviations = basis @ np.linalg.inv(np.linalg.cholesky(shrunk)).T
    return CentredMap(
        weights=np.tile(to_deviations, (1, len(named))).astype(np.float32),
        offsets=-(centres @ to_deviations).reshape(-1).astype(np.float32), centres=len(named),
    )  # fmt: skip


def _basis(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the directions that are kept, (D, K): all, or those with the most variance."""
    size = values.shape[1]
    if size <= MOST_DIRECTIONS:
        return np.eye(size)
    _, vectors = np.linalg.eigh(np.cov(values.T))
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(size)])  # else the solver chooses them
    return np.asarray((vectors * signs)[:, : -MOST_DIRECTIONS - 1 : -1])
