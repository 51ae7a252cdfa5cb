"""From predictions to evidence: who was right where, and how well the classes are ranked. Pure.

Decides which scores a ranking metric is taken of, and that only the metrics that a rule names are bootstrapped: each
costs seconds. Does not judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError
from compressor.gates import Evidence, MetricEvidence
from compressor.gates.rule import GateRecipe
from compressor.measurement.predictions import Predictions, log_probabilities
from compressor.statistics.bootstrap import Draws, auc_drop, ranking_precision_drop
from compressor.statistics.confidence_calibration import calibration_error_increase
from compressor.statistics.paired import Paired, paired
from compressor.tasks.compared import Compared
from compressor.tasks.regression import evidence as regression

_RANKED: Mapping[str, Callable[..., MetricEvidence]] = {
    "auc_drop": auc_drop, "ranking_precision_drop": ranking_precision_drop,
    "calibration_error_increase": calibration_error_increase,
}  # fmt: skip


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the evidence of a gate set, and of a drifted set where there is one.

    ``rules`` say which metrics are bootstrapped. A classifier has no regression error, and a regression nothing but
    it and figures: what the other's gates want stays unmeasured, and they fail, as does the gate of a ranking metric
    where the gate set lacks a class.
    """
    found, unknown = _measured(gate_set, rules)
    if gate_set.numeric:
        return Evidence(figures=figures, metrics=found, unknown=unknown)
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
        metrics=found,
        unknown=unknown,
    )


def _measured(gate_set: Compared, rules: Sequence[GateRecipe]) -> tuple[Mapping[str, MetricEvidence], dict[str, str]]:
    """Return the metrics that ``rules`` name, and why each of the others could not be measured."""
    if gate_set.numeric:
        return regression.metrics(gate_set, rules), {}
    found: dict[str, MetricEvidence] = {}
    unknown: dict[str, str] = {}
    for name in dict.fromkeys(rule.name for rule in rules):
        try:
            found |= metrics(gate_set, [rule for rule in rules if rule.name == name])
        except MeasureError as error:
            unknown[name] = str(error)
    return found, unknown


def metrics(gate_set: Compared, rules: Sequence[GateRecipe], *, seed: int = 0) -> dict[str, MetricEvidence]:
    """Return the bootstrapped metrics that ``rules`` name, at the highest confidence that any asks for.

    Scores are log-probabilities: they rank samples as probabilities do, and don't tie where these round to 1.

    Raises:
        MeasureError: If the gate set lacks positives or negatives of a class.
    """
    wanted = {name: max(rule.confidence for rule in rules if rule.name == name) for name in {r.name for r in rules}}
    before, after = (log_probabilities(said.logits) for said in (gate_set.baseline, gate_set.candidate))
    return {
        name: measured(gate_set.labels, before, after, Draws(wanted[name], seed=seed))
        for name, measured in _RANKED.items()
        if name in wanted
    }


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
