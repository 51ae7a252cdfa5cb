"""From predictions to evidence: who was right where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.gates import Evidence
from compressor.measure import Predictions
from compressor.statistics import Paired, paired


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """One labelled set under all models.

    ``baseline``: what the candidate must not be worse than (the float model, or the release before);
    ``float_model``: what the candidate was compressed from; ``labels`` int64 (N,); ``slices`` str (N,).
    """

    labels: NDArray[np.int64]
    slices: NDArray[np.str_]
    baseline: Predictions
    float_model: Predictions
    candidate: Predictions


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None
) -> Evidence:
    """Return the evidence of a gate set, and of a drifted set where there is one."""
    before, after = _right(gate_set.baseline, gate_set.labels), _right(gate_set.candidate, gate_set.labels)
    uncompressed = _right(gate_set.float_model, gate_set.labels)
    flips = int(np.count_nonzero(gate_set.float_model.classes != gate_set.candidate.classes))
    present = np.unique(gate_set.labels).tolist()
    return Evidence(
        accuracy=paired(before, after),
        slices={name: _within(before, after, gate_set.slices == name) for name in np.unique(gate_set.slices).tolist()},
        classes={class_names[i]: _within(before, after, gate_set.labels == i) for i in present},
        drifted=None if drifted is None else _all(drifted),
        compressed=paired(uncompressed, after),
        flips=flips,
        figures=figures,
    )


def accuracy(predictions: Predictions, labels: NDArray[np.int64]) -> float:
    """Return the share of right predictions."""
    return float(_right(predictions, labels).mean())


def confusion(predictions: Predictions, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the counts (classes, classes): rows are labels, columns predictions."""
    cells = np.bincount(labels * classes + predictions.classes, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def _right(predictions: Predictions, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(predictions.classes == labels)


def _within(before: NDArray[np.bool_], after: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Paired:
    return paired(before[rows], after[rows])


def _all(compared: Compared) -> Paired:
    return paired(_right(compared.baseline, compared.labels), _right(compared.candidate, compared.labels))
