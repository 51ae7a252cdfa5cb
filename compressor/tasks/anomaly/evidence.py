"""Evidence from scores: the AUC and its drop, false alarms, and the threshold for a stated rate of them. Pure.

Predictions are scores, float32 (N, 1). Decides which rows count: for the AUC the first normal and the first anomalous
row of each source, for false alarms all normal rows in their course. Does not judge.

The threshold is each file's own, from its own scores: those of an int8 file differ a little from those of the float
model, and so does the level with the same rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError
from compressor.gates import BETTER_THAN_CONSTANT, Evidence, Reordered
from compressor.gates.alarms import AUC, AUC_DROP
from compressor.measurement.parity import Pair, matrix
from compressor.recipe.model import AlarmRecipe
from compressor.statistics import false_alarms
from compressor.statistics.bootstrap import Draws, auc_drop
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.false_alarms import ScoreSeries, Threshold
from compressor.tasks.anomaly.targets import ANOMALOUS, NORMAL

if TYPE_CHECKING:
    from compressor.gates.evidence import GateRecipe
    from compressor.measurement.predictions import Compared, Predictions

CONFIDENCE = 0.95
_CHANCE = 0.5
_FLIPPED_RATIO = 0.1
_NO_ANOMALIES = "Expected normal and anomalous rows in the gate split, got one kind: give some labelled anomalies"
Labels = NDArray[Any]
Floats = NDArray[np.float32]


def scores_of(said: Predictions) -> NDArray[np.float64]:
    """Return the score of each row, float64 (N,)."""
    return said.logits[:, 0].astype(np.float64)


def area(scores: NDArray[np.float64], labels: Labels) -> float:
    """Return the area under the ROC curve; NaN without normal or without anomalous rows.

    It is the share of pairs of an anomalous and a normal row in which the former has the higher score, a tie as half.
    """
    normal, anomalous = (np.sort(scores[labels == kind]) for kind in (NORMAL, ANOMALOUS))
    if not len(normal) or not len(anomalous):
        return float("nan")
    below, upto = (np.searchsorted(normal, anomalous, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(normal))


def alarms(said: Predictions) -> NDArray[np.bool_]:
    """Return which rows are anomalous by the threshold of ``said``, as on a device, bool (N,)."""
    return np.asarray(said.logits[:, 0] > np.float32(said.fitted))


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return AUC, false alarms and detected anomalies by the names of gates and certificate."""
    del drifted
    labels, candidate = gate_set.labels, gate_set.candidate
    normal, anomalous = labels == NORMAL, labels == ANOMALOUS
    found = {
        "n_gate": float(len(labels)), "sources_gate": float(gate_set.independent),
        "anomalies_gate": float(anomalous.sum()), "normal_rows": float(normal.sum()), "threshold": candidate.fitted,
    }  # fmt: skip
    models = {"": candidate, "float_": gate_set.float_model, "baseline_": gate_set.baseline}
    rows = _apart(gate_set)
    for prefix, said in models.items():
        found[f"{prefix}auc"] = area(scores_of(said)[rows], labels[rows])
        found[f"{prefix}detected"] = float(alarms(said)[anomalous].mean()) if anomalous.any() else float("nan")
    found["constant_gain"] = found["auc"] - _CHANCE
    found |= _false_alarms(gate_set, normal) if normal.any() else {}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _false_alarms(gate_set: Compared, normal: NDArray[np.bool_]) -> dict[str, float]:
    course = _course(gate_set, gate_set.candidate, normal)
    days = len(course.scores) * gate_set.interval_s / false_alarms.DAY_S
    events = float(course.events(float(np.float32(gate_set.candidate.fitted))).sum())
    plain = _course(gate_set, gate_set.float_model, normal)
    return {
        "false_alarms": events, "normal_days": days, "false_alarms_per_day": events / days,
        "false_alarm_dispersion": course.dispersion(),
        "float_false_alarms_per_day": float(plain.events(float(np.float32(gate_set.float_model.fitted))).sum()) / days,
    }  # fmt: skip


def _course(gate_set: Compared, said: Predictions, rows: NDArray[np.bool_]) -> ScoreSeries:
    sources = None if gate_set.sources is None else gate_set.sources[rows]
    return ScoreSeries.of(scores_of(said)[rows], sources, gate_set.interval_s, gate_set.gap_s)


def _apart(gate_set: Compared) -> NDArray[np.int64]:
    """Return the first normal and the first anomalous row of each source: more of one source are no evidence."""
    if gate_set.sources is None:
        return np.arange(len(gate_set.labels))
    owner = np.unique(gate_set.sources, return_inverse=True)[1]
    return np.sort(np.unique(2 * owner + gate_set.labels, return_index=True)[1]).astype(np.int64)


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the AUC and its drop with their bounds; without anomalous rows they are unknown, with the reason."""
    del class_names, drifted
    rows = _apart(gate_set)
    labels = gate_set.labels[rows]
    wanted = {name: max([CONFIDENCE, *(rule.confidence for rule in rules if rule.name == name)])
              for name in (AUC, AUC_DROP)}  # fmt: skip
    before, after = (scores_of(said)[rows] for said in (gate_set.baseline, gate_set.candidate))
    try:
        found: dict[str, MetricEvidence] = {
            AUC: auc_drop(labels, labels.astype(np.float64), after, Draws(wanted[AUC])),
            AUC_DROP: auc_drop(labels, before, after, Draws(wanted[AUC_DROP])),
        }
    except MeasureError:
        names = (AUC, AUC_DROP, BETTER_THAN_CONSTANT)
        return Evidence(figures=figures, unknown=dict.fromkeys(names, _NO_ANOMALIES))
    return Evidence(figures=figures, metrics=found)


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the figures of a device's scores, by the names in ``figures``."""
    return figures(gate_set)


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the drop of the AUC and its upper bound, and the lower bound of the AUC."""
    drop, own = evidence.metrics.get(AUC_DROP), evidence.metrics.get(AUC)
    found = {} if drop is None else {"auc_drop": drop.drop, "auc_drop_upper": drop.upper}
    return found if own is None else {**found, "auc_low": 1 - own.upper}


def differs(one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
    """Return which rows are an alarm of one model alone, and not by a difference within ``allowed_abs``."""
    near = np.abs(one.logits[:, 0] - other.logits[:, 0]) <= allowed_abs if allowed_abs else False
    return np.asarray((alarms(one) != alarms(other)) & ~np.asarray(near))


def score(said: Predictions, labels: Labels) -> float:
    """Return the negated mean score of the normal rows."""
    return -float(scores_of(said)[labels == NORMAL].mean()) if (labels == NORMAL).any() else 0.0


def order(fitted: tuple[Predictions, Labels], judged: tuple[Predictions, Labels], names: tuple[str, ...]) -> Reordered:
    """Return nothing: a score has no order."""
    del fitted, judged, names
    return Reordered({}, "")


def parity(forms: Mapping[str, Floats]) -> tuple[Pair, ...]:
    """Return the largest difference of the scores of every two forms, and their correlation; flips are NaN.

    Raises:
        MeasureError: If two forms differ in shape or there are no inputs.
    """
    return tuple(
        replace(pair, cosine=_correlation(forms[pair.first], forms[pair.second]), flip_ratio=float("nan"))
        for pair in matrix(forms)
    )


def _correlation(one: Floats, other: Floats) -> float:
    """Return the correlation of two columns of scores; 1 if both are constant, 0 if one is."""
    left, right = (values[:, 0].astype(np.float64) - values[:, 0].mean(dtype=np.float64) for values in (one, other))
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right / norms) if norms else float(not left.any() and not right.any())


def meaning(said: Floats, slack: float) -> str:
    """Return "": a score has its usual meaning."""
    del said, slack
    return ""


def golden_rows(labels: Labels, said: Predictions, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` rows from the lowest to the highest score, evenly by rank."""
    del labels
    ranked = np.argsort(said.logits[:, 0], kind="stable")
    places = np.unique(np.linspace(0, len(ranked) - 1, most).round().astype(np.int64))
    return np.sort(ranked[places]).astype(np.int64)


def golden_reach(said: Floats) -> tuple[float, int]:
    """Return the range of the scores, and how many rows may be on the other side of the threshold: a tenth, or one."""
    return float(np.ptp(said[:, 0])), max(1, int(_FLIPPED_RATIO * len(said)))


def temperature(said: Floats, labels: Labels) -> float:
    """Return the largest score of normal rows: the threshold if no rate is stated."""
    normal = said[labels == NORMAL, 0]
    return float(normal.max()) if len(normal) else 1.0


def threshold(said: Predictions, sources: NDArray[Any], alarm: AlarmRecipe) -> float:
    """Return the score above which an input is anomalous, for the rate of ``alarm``, from normal calibration rows."""
    return float(np.float32(_threshold(said, sources, alarm).level))


def threshold_figures(said: Predictions, sources: NDArray[Any], alarm: AlarmRecipe) -> dict[str, float]:
    """Return what the threshold rests on: days of calibration rows, days needed, dispersion of the events."""
    found = _threshold(said, sources, alarm)
    return {
        "calibration_days": found.days, "calibration_days_needed": found.needed,
        "calibration_false_alarms": float(found.events), "calibration_dispersion": found.dispersion,
        "stated_false_alarms_per_day": alarm.false_alarms_per_day,
    }  # fmt: skip


def _threshold(said: Predictions, sources: NDArray[Any], alarm: AlarmRecipe) -> Threshold:
    course = ScoreSeries.of(scores_of(said), sources, alarm.interval_s, alarm.gap_s)
    return false_alarms.threshold(course, alarm.false_alarms_per_day, alarm.interval_s, alarm.confidence)
