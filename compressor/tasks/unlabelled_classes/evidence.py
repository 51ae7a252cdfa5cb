"""Evidence of a classifier without labels: how often the compressed file answers otherwise than its original. Pure.

Every source counts as one observation, as with labels. Does not judge, and says nothing of what is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.gates import Evidence, Reordered
from compressor.gates.evidence import GateRecipe
from compressor.measurement.predictions import Compared, Predictions
from compressor.statistics.paired import paired, proportion_bounds, wilson
from compressor.tasks.classification.evidence import accuracy, differs, golden_reach, golden_rows, meaning, parity

__all__ = [
    "compared_figures", "device_figures", "differs", "evidence", "figures", "golden_reach", "golden_rows", "meaning",
    "order", "parity", "score", "temperature",
]  # fmt: skip

CONFIDENCE = 0.95
score = accuracy


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the counts of changed answers; what gates on labels need stays unmeasured, and they fail."""
    del class_names, drifted, rules
    same = np.asarray(gate_set.float_model.classes == gate_set.candidate.classes)
    counts = paired(np.ones_like(same), same, gate_set.sources)
    return Evidence(compressed=counts, flips=counts.lost, figures=figures)


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return the agreement, and how much more it is than that of the original's most frequent answer to everything."""
    del drifted
    before, after = gate_set.float_model.classes, gate_set.candidate.classes
    same, n = int((before == after).sum()), len(before)
    low, high = wilson(same, n, CONFIDENCE)
    return {
        "n_gate": float(n),
        "sources_gate": float(gate_set.independent),
        "agreement": same / n,
        "agreement_low": low,
        "agreement_high": high,
        "constant_gain": same / n - float(np.bincount(before).max()) / n,
    }


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the agreement of a device's answers with the original's."""
    return {"agreement": accuracy(gate_set.candidate, gate_set.float_model.classes)}


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the share of changed answers and its exact upper bound."""
    counts, flips = evidence.compressed, evidence.flips
    if counts is None or flips is None or not counts.n:
        return {}
    upper = proportion_bounds(flips, counts.n, CONFIDENCE)[1]
    return {"flip_ratio": flips / counts.n, "flip_ratio_upper": upper}


def order(
    fitted: tuple[Predictions, NDArray[np.int64]], judged: tuple[Predictions, NDArray[np.int64]],
    names: tuple[str, ...],
) -> Reordered:  # fmt: skip
    """Return nothing: only labels could show that the outputs have another order."""
    del fitted, judged, names
    return Reordered({}, "")


def temperature(said: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return 1: without labels the confidence stays as the model has it."""
    del said, labels
    return 1.0
