"""Evidence of a regression without labels: how far the compressed file's values are from its original's. Pure.

Of each source one row counts. Does not judge, and says nothing of the error of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compressor.gates import Evidence
from compressor.gates.agreement import CHANGE
from compressor.gates.evidence import GateRecipe
from compressor.measurement.predictions import Compared
from compressor.statistics.bootstrap import Draws
from compressor.tasks.regression.evidence import (
    CONFIDENCE,
    differs,
    error_of,
    golden_reach,
    golden_rows,
    meaning,
    order,
    parity,
    score,
    temperature,
    value_change,
)

__all__ = [
    "compared_figures", "device_figures", "differs", "evidence", "figures", "golden_reach", "golden_rows", "meaning",
    "order", "parity", "score", "temperature",
]  # fmt: skip


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the difference from the original with its bounds; what gates on labels need stays unmeasured.

    Raises:
        MeasureError: If a value is not finite.
    """
    del class_names, drifted
    level = max([CONFIDENCE, *(rule.confidence for rule in rules if rule.name == CHANGE)])
    return Evidence(figures=figures, metrics={CHANGE: value_change(gate_set.one_of_each(), Draws(level))})


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return the difference from the original, and its gain over that of the mean of the original's values."""
    del drifted
    before = gate_set.float_model.logits
    found = error_of(gate_set.candidate.logits, before)
    constant = float(np.abs(before - before.mean(axis=0)).mean())
    return {
        "n_gate": float(found.n),
        "sources_gate": float(gate_set.independent),
        CHANGE: found.mean,
        f"{CHANGE}_low": found.low,
        f"{CHANGE}_high": found.high,
        f"{CHANGE}_max": found.largest,
        "constant_gain": 1 - found.mean / constant if constant > 0 else 0.0,
    }


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the difference of a device's values from the original's."""
    return {CHANGE: error_of(gate_set.candidate.logits, gate_set.float_model.logits).mean}


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the upper bound of the difference."""
    found = evidence.metrics.get(CHANGE)
    return {} if found is None else {f"{CHANGE}_upper": found.upper}
