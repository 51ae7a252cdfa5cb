"""Evidence from the predictions of a classifier: correct predictions, flips, and ranking of the classes. Pure.

Decides which scores a ranking metric uses, and that only metrics named by a rule are bootstrapped: each costs seconds.
Every source counts as one observation; of metrics without counts, one row of it. Does not judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from compressor.errors import MeasureError
from compressor.gates import Evidence, MetricEvidence, Reordered, reordered
from compressor.gates.evidence import GateRecipe
from compressor.measurement.parity import Pair, matrix
from compressor.measurement.predictions import Compared, Floats, Predictions, calibration_error, log_probabilities
from compressor.statistics.bootstrap import Draws, auc_drop, ranking_precision_drop
from compressor.statistics.confidence_calibration import calibration_error_increase
from compressor.statistics.paired import Paired, drop_upper, paired, wilson

_RANKED: Mapping[str, Callable[..., MetricEvidence]] = {
    "auc_drop": auc_drop, "ranking_precision_drop": ranking_precision_drop,
    "calibration_error_increase": calibration_error_increase,
}  # fmt: skip

_TEMPERATURES = (0.25, 4.0)


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the evidence of a gate set, and of a drifted set if there is one.

    ``rules`` name the metrics to bootstrap. What the gates of other tasks need stays unmeasured, and they fail; so does
    the gate of a ranking metric if the gate set lacks a class.
    """
    found, unknown = _measured(gate_set.one_of_each(), rules)
    before, after = _right(gate_set.baseline, gate_set.labels), _right(gate_set.candidate, gate_set.labels)
    uncompressed, sources = _right(gate_set.float_model, gate_set.labels), gate_set.sources
    same = gate_set.float_model.classes == gate_set.candidate.classes

    def within(rows: NDArray[np.bool_]) -> Paired:
        return paired(before[rows], after[rows], None if sources is None else sources[rows])

    return Evidence(
        accuracy=paired(before, after, sources),
        slices={name: within(gate_set.slices == name) for name in np.unique(gate_set.slices).tolist()},
        classes={class_names[i]: within(gate_set.labels == i) for i in np.unique(gate_set.labels).tolist()},
        drifted=None
        if drifted is None
        else paired(
            _right(drifted.baseline, drifted.labels), _right(drifted.candidate, drifted.labels), drifted.sources
        ),
        compressed=paired(uncompressed, after, sources),
        flips=paired(np.ones_like(same), same, sources).lost,
        figures=figures,
        metrics=found,
        unknown=unknown,
    )


def _measured(gate_set: Compared, rules: Sequence[GateRecipe]) -> tuple[Mapping[str, MetricEvidence], dict[str, str]]:
    """Return the metrics that ``rules`` name, and why each of the others could not be measured."""
    found: dict[str, MetricEvidence] = {}
    unknown: dict[str, str] = {}
    for name in dict.fromkeys(rule.name for rule in rules):
        try:
            found |= metrics(gate_set, [rule for rule in rules if rule.name == name])
        except MeasureError as error:
            unknown[name] = str(error)
    return found, unknown


def metrics(gate_set: Compared, rules: Sequence[GateRecipe], *, seed: int = 0) -> dict[str, MetricEvidence]:
    """Return the bootstrapped metrics that ``rules`` name, at the highest confidence that one of them needs.

    Scores are log-probabilities: they rank samples as probabilities do, without ties where these round to 1.

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
    """Return the share of correct predictions."""
    return float(_right(predictions, labels).mean())


def confusion(predictions: Predictions, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return the counts (classes, classes): rows are labels, columns predictions."""
    cells = np.bincount(labels * classes + predictions.classes, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def _right(predictions: Predictions, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(predictions.classes == labels)


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return the accuracies of candidate, float model and baseline, and the candidate's calibration error."""
    labels, said = gate_set.labels, gate_set.candidate
    right = int(_right(said, labels).sum())
    low, high = wilson(right, len(labels), 0.95)
    found = {
        "n_gate": float(len(labels)),
        "sources_gate": float(gate_set.independent),
        "accuracy": right / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        "float_accuracy": accuracy(gate_set.float_model, labels),
        "baseline_accuracy": accuracy(gate_set.baseline, labels),
        "calibration_error": calibration_error(said.logits, labels),
    }
    if drifted is not None:
        found |= {
            "n_drifted": float(len(drifted.labels)),
            "sources_drifted": float(drifted.independent),
            "drifted_accuracy_before": accuracy(drifted.baseline, drifted.labels),
            "drifted_accuracy": accuracy(drifted.candidate, drifted.labels),
        }
    return found


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the accuracy and the calibration error of a device's answers."""
    said, labels = gate_set.candidate, gate_set.labels
    return {"accuracy": accuracy(said, labels), "calibration_error": calibration_error(said.logits, labels)}


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the drop in accuracy and its upper bound."""
    counts = evidence.accuracy
    return {} if counts is None else {"drop": counts.drop, "drop_upper": drop_upper(counts, 0.95)}


def differs(one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
    """Return which rows have different classes."""
    del allowed_abs
    return np.asarray(one.classes != other.classes)


score = accuracy


def order(
    fitted: tuple[Predictions, NDArray[np.int64]], judged: tuple[Predictions, NDArray[np.int64]],
    names: tuple[str, ...],
) -> Reordered:  # fmt: skip
    """Return the order of the labels that fits the rows of ``fitted`` best, judged on those of ``judged``."""
    return reordered((fitted[0].classes, fitted[1]), (judged[0].classes, judged[1]), names)


def parity(forms: Mapping[str, Floats]) -> tuple[Pair, ...]:
    """Return the largest difference, the lowest cosine and the flips of every two forms' logits.

    Raises:
        MeasureError: If two forms differ in shape or there are no inputs.
    """
    return matrix(forms)


def meaning(said: Floats, slack: float) -> str:
    """Return ``probability`` if all rows are positive and sum to 1: the file ends in a softmax."""
    return "probability" if (said >= 0).all() and (np.abs(said.sum(axis=1) - 1) <= slack).all() else ""


def golden_rows(labels: NDArray[np.int64], said: Predictions, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` rows: the most confident correct ones of each class in turn, so that rounding flips none.

    If the model gets none right, the most confident wrong ones: a device must reproduce an output, right or wrong.
    """
    ordered = np.sort(said.logits, axis=1)
    margin = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else ordered[:, -1]
    right = said.classes == labels
    right |= not right.any()
    ranked = [row for row in np.argsort(-margin, kind="stable") if right[row]]
    turns: dict[int, int] = {}
    keyed = []
    for row in ranked:
        label = int(labels[row])
        turns[label] = turns.get(label, 0) + 1
        keyed.append((turns[label], label, int(row)))
    return np.array(sorted(row for _, _, row in sorted(keyed)[:most]), dtype=np.int64)


def golden_reach(said: Floats) -> tuple[float, int]:
    """Return the largest logit, and that no flip is allowed."""
    return float(np.abs(said).max()), 0


def temperature(said: Floats, labels: NDArray[np.int64]) -> float:
    """Return the temperature (0.25 to 4) that minimises the negative log-likelihood of (N, classes) logits.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    wide = said.astype(np.float64)
    own = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = wide / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[own, labels]).mean())

    low, high = (float(np.log(edge)) for edge in _TEMPERATURES)
    best = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-3})
    return float(np.float32(round(float(np.exp(best.x)), 3)))
