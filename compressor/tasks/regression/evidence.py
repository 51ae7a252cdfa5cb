"""From the numbers a regression gives to evidence: errors, and how much they grew against the baseline. Pure.

Decides which errors are taken, and at which confidence; slices are taken together (Bonferroni). Does not judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from compressor.gates.metrics import ERRORS, SLICE, VALUED, WORST_SLICE, level_of
from compressor.statistics.bootstrap import Draws, error_increase
from compressor.statistics.bounds import MetricEvidence

if TYPE_CHECKING:
    from compressor.gates.rule import GateRecipe
    from compressor.tasks.compared import Compared

CONFIDENCE = 0.95
ERROR, SQUARED = VALUED
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Error:
    """The mean absolute error of ``n`` samples with two-sided 95 % bounds, and the root mean square, in their unit."""

    mean: float
    low: float
    high: float
    rms: float
    largest: float
    n: int


def error_of(said: NDArray[Any], values: NDArray[Any]) -> Error:
    """Return how far ``said`` is from ``values``, both (N, D), N at least 1; a row's error is the mean over D.

    Bounds by Student's t over rows; of one row they are infinite.
    """
    wide = np.abs(said.astype(np.float64) - values.astype(np.float64))
    rows = wide.mean(axis=1)
    mean, n = float(rows.mean()), len(rows)
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * rows.std(ddof=1) / n**0.5) if n > 1 else float("inf")
    return Error(mean, max(0.0, mean - reach), mean + reach, float((wide**2).mean() ** 0.5), float(wide.max()), n)


def metrics(gate_set: Compared, rules: Sequence[GateRecipe], *, seed: int = 0) -> dict[str, MetricEvidence]:
    """Return the increase of the error with its bounds, and what else ``rules`` name.

    That is the increase of the RMSE, that of each slice, and the errors themselves: increases from no error at all.

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
    if WORST_SLICE in wanted:
        names = np.unique(gate_set.slices).tolist()
        draws = Draws(level_of(wanted[WORST_SLICE], len(names)), seed=seed)
        found |= {f"{SLICE}{name}": _increase(gate_set, gate_set.slices == name, draws) for name in names}
    return found


def figures(gate_set: Compared) -> Mapping[str, float]:
    """Return the errors of candidate, float model and baseline by the names of gates and certificate."""
    candidate = error_of(gate_set.candidate.logits, gate_set.labels)
    plain = error_of(gate_set.float_model.logits, gate_set.labels)
    return {
        "n_gate": float(candidate.n),
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


def _increase(gate_set: Compared, rows: NDArray[np.bool_], draws: Draws, *, squared: bool = False) -> MetricEvidence:
    before, after = gate_set.baseline.logits[rows], gate_set.candidate.logits[rows]
    return error_increase(gate_set.labels[rows], before, after, draws, squared=squared)
