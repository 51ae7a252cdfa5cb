"""Evidence from the predictions of a regression: errors, and their increase over the baseline. Pure.

Decides which errors are computed, and at which confidence; slices are tested together (Bonferroni). Of each source one
row counts. Does not judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from compressor.gates import Evidence, Reordered
from compressor.gates.agreement import CHANGE
from compressor.gates.metrics import ERRORS, SLICE, VALUED, WORST_SLICE, level_of
from compressor.measurement.parity import Pair, matrix
from compressor.statistics.bootstrap import Draws, error_increase
from compressor.statistics.bounds import MetricEvidence

if TYPE_CHECKING:
    from compressor.gates.evidence import GateRecipe
    from compressor.measurement.predictions import Compared, Predictions

CONFIDENCE = 0.95
ERROR, SQUARED = VALUED
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The mean absolute error of ``n`` samples with two-sided 95 % bounds, and the root mean square, in their unit."""

    mean: float
    low: float
    high: float
    rms: float
    largest: float
    n: int


def error_of(said: NDArray[Any], values: NDArray[Any]) -> Error:
    """Return the error of ``said`` against ``values``, both (N, D), N at least 1; a row's error is the mean over D.

    Bounds by Student's t over rows; for one row they are infinite.
    """
    wide = np.abs(said.astype(np.float64) - values.astype(np.float64))
    rows = wide.mean(axis=1)
    mean, n = float(rows.mean()), len(rows)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * rows.std(ddof=1) / n**0.5) if n > 1 else float("inf")
    return Error(
        mean=mean,
        low=max(0.0, mean - reach),
        high=mean + reach,
        rms=float((wide**2).mean() ** 0.5),
        largest=float(wide.max()),
        n=n,
    )


def metrics(gate_set: Compared, rules: Sequence[GateRecipe], *, seed: int = 0) -> dict[str, MetricEvidence]:
    """Return the increase of the error with its bounds, and the other metrics that ``rules`` name.

    These are the increase of the RMSE, that of each slice, the errors themselves, as increases from zero error, and the
    difference from the float model.

    Raises:
        MeasureError: If a value is not finite.
    """
    wanted = {name: max(rule.confidence for rule in rules if rule.name == name) for name in {r.name for r in rules}}
    level = max(CONFIDENCE, wanted.get(ERROR, 0.0))
    everything = np.ones(len(gate_set.labels), dtype=bool)
    found = {ERROR: _increase(gate_set, everything, Draws(level, seed=seed))}
    if SQUARED in wanted:
        found[SQUARED] = _increase(gate_set, everything, Draws(wanted[SQUARED], seed=seed), squared=True)
    for name in (name for name in ERRORS if name in wanted):
        found[name] = _own(gate_set, Draws(wanted[name], seed=seed), squared=name == "rmse")
    if CHANGE in wanted:
        found[CHANGE] = value_change(gate_set, Draws(wanted[CHANGE], seed=seed))
    if WORST_SLICE in wanted:
        names = np.unique(gate_set.slices).tolist()
        draws = Draws(level_of(wanted[WORST_SLICE], len(names)), seed=seed)
        found |= {f"{SLICE}{name}": _increase(gate_set, gate_set.slices == name, draws) for name in names}
    return found


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return the errors of candidate, float model and baseline by the names of gates and certificate."""
    del drifted
    candidate = error_of(gate_set.candidate.logits, gate_set.labels)
    plain = error_of(gate_set.float_model.logits, gate_set.labels)
    return {
        "n_gate": float(candidate.n),
        "sources_gate": float(gate_set.independent),
        "mae": candidate.mean,
        "mae_low": candidate.low,
        "mae_high": candidate.high,
        "rmse": candidate.rms,
        "error_max": candidate.largest,
        "float_mae": plain.mean,
        "float_rmse": plain.rms,
        "constant_mae": float(np.abs(gate_set.labels - gate_set.labels.mean(axis=0)).mean()),
        "baseline_mae": error_of(gate_set.baseline.logits, gate_set.labels).mean,
    }


def _own(gate_set: Compared, draws: Draws, *, squared: bool) -> MetricEvidence:
    return error_increase(gate_set.labels, gate_set.labels, gate_set.candidate.logits, draws, squared=squared)


def value_change(gate_set: Compared, draws: Draws) -> MetricEvidence:
    """Return the mean absolute difference of the candidate's values from the float model's, as an increase from 0.

    Raises:
        MeasureError: If a value is not finite.
    """
    before = gate_set.float_model.logits
    return error_increase(before, before, gate_set.candidate.logits, draws)


def _increase(gate_set: Compared, rows: NDArray[np.bool_], draws: Draws, *, squared: bool = False) -> MetricEvidence:
    before, after = gate_set.baseline.logits[rows], gate_set.candidate.logits[rows]
    return error_increase(gate_set.labels[rows], before, after, draws, squared=squared)


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the errors of a gate set; what gates on classes need stays unmeasured, and they fail.

    Raises:
        MeasureError: If a value is not finite.
    """
    del class_names, drifted
    return Evidence(figures=figures, metrics=metrics(gate_set.one_of_each(), rules))


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the errors of a device's answers, by the names in ``figures``."""
    return figures(gate_set)


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the increase of the error and its upper bound."""
    grown = evidence.metrics.get(ERROR)
    return {} if grown is None else {"error_increase": grown.drop, "error_increase_upper": grown.upper}


def differs(one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
    """Return which rows have a value that differs by more than ``allowed_abs``."""
    return np.asarray(np.abs(one.logits - other.logits).max(axis=1) > allowed_abs)


def score(said: Predictions, labels: NDArray[Any]) -> float:
    """Return the negated mean absolute error."""
    return -error_of(said.logits, labels).mean


def order(
    fitted: tuple[Predictions, NDArray[Any]], judged: tuple[Predictions, NDArray[Any]], names: tuple[str, ...]
) -> Reordered:
    """Return nothing: the order of values can't be checked, because they have no classes."""
    del fitted, judged, names
    return Reordered({}, "")


def parity(forms: Mapping[str, NDArray[np.float32]]) -> tuple[Pair, ...]:
    """Return the largest difference and the lowest correlation of a value for every two forms; flips are NaN.

    Raises:
        MeasureError: If two forms differ in shape or there are no inputs.
    """
    return tuple(
        replace(pair, cosine=_correlation(forms[pair.first], forms[pair.second]), flip_ratio=math.nan)
        for pair in matrix(forms)
    )


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the lowest correlation of a column; a column constant in both counts as 1, in one as 0."""
    left, right = (values.astype(np.float64) - values.mean(axis=0, dtype=np.float64) for values in (one, other))
    norms = np.linalg.norm(left, axis=0) * np.linalg.norm(right, axis=0)
    same = ~(left.any(axis=0) | right.any(axis=0))
    return float(np.where(same, 1.0, (left * right).sum(axis=0) / np.where(norms == 0, 1, norms)).min())


def meaning(said: NDArray[np.float32], slack: float) -> str:
    """Return "": a value has its usual meaning."""
    del said, slack
    return ""


def golden_rows(labels: NDArray[Any], said: Predictions, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` rows from the smallest to the largest predicted first value, evenly by rank."""
    del labels
    ranked = np.argsort(said.logits[:, 0], kind="stable")
    places = np.unique(np.linspace(0, len(ranked) - 1, most).round().astype(np.int64))
    return np.sort(ranked[places]).astype(np.int64)


def golden_reach(said: NDArray[np.float32]) -> tuple[float, int]:
    """Return the widest range of a value, and that any number of flips is allowed: they mean nothing for values."""
    return float(np.ptp(said, axis=0).max()), len(said)


def temperature(said: NDArray[np.float32], labels: NDArray[Any]) -> float:
    """Return 1: values have no confidence."""
    del said, labels
    return 1.0
