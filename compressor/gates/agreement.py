"""What a run without labels shows, and what labels would add, as one line. Pure.

Agreement bounds the loss: an input whose answer stays is not lost, so that accuracy falls by at most the share of
changed answers, and a mean absolute error grows by at most the mean difference (triangle inequality).
"""

from __future__ import annotations

from compressor.gates.evidence import Evidence, points, sure
from compressor.gates.metrics import MIN_SAMPLES
from compressor.statistics.paired import proportion_bounds
from compressor.statistics.power import samples_for

CHANGE = "value_change"
_CONFIDENCE = 0.95
_MARGIN = 0.01
_NOTHING = "Agreement with the original says nothing about whether the original is right"


def remark(evidence: Evidence) -> str:
    """Return what agreement says of the loss against the original, and how many labelled rows would say more."""
    found = evidence.metrics.get(CHANGE)
    counts, flips = evidence.compressed, evidence.flips
    if found is not None:
        return (
            f"{_NOTHING}: against it, the mean absolute error grew by at most {found.upper:.4g} "
            f"({sure(found.confidence)} confidence); {MIN_SAMPLES} labelled rows or more would show the error itself."
        )
    if counts is None or flips is None or not counts.n:
        return f"{_NOTHING}."
    upper = proportion_bounds(flips, counts.n, _CONFIDENCE)[1]
    needed = samples_for(_MARGIN, max(flips, 1) / counts.n)
    return (
        f"{_NOTHING}: against it, accuracy fell by at most {points(upper)} ({sure(_CONFIDENCE)} confidence); "
        f"about {needed} labelled rows would show a margin of {points(_MARGIN)}, and how often it is right."
    )
