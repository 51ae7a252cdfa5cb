"""Whether a device looks at a place that training knows: its windows so far against the contexts of the reference.

A device that is installed at a bad place never changes, so its own baseline can't show it. While the baseline is
collected, and for good once it is complete, all its windows together are compared with the contexts of training, as
one bet on each tilt that no context explains. A device that looks at one of the contexts, or at a mixture of them, is
ordinary.

Decides how strongly samples count (the memory of the device's own windows), and how far a place may differ from
training without being new: by as much as the device ordinarily moves, at least a tenth of a standard deviation; half of
one while the device has not been seen for long enough to know how it moves.

Source: ``docs/explanation/drift.md``, "New places".
"""

from __future__ import annotations

import math

import numpy as np

from server.drift.detection.evidence import increments, sums, values
from server.drift.detection.movement import KAPPA, Ordinary, ScoreColumns
from server.drift.detection.reference import PLACE_LEVELS, SHAPE_MEMORY, Floats, Ints, Profile

LOOK_WINDOWS = 12
"""A device's windows are compared with training after so many, and again after as many more."""
LOG_LIMIT = math.log(100)
"""Of a hundred devices at places that training knows, at most one is called new."""
_UNMEASURED = 0.5  # standard deviations
_PAIRS = 8  # of adjacent windows, from which on a device's memory is known


def place_values(training: Profile, counts: Ints, ordinary: Ordinary, columns: ScoreColumns) -> Floats:
    """Return the log evidence (R,) that R devices look at places that ``training`` does not know.

    ``counts`` (R, S, 16): of all windows of each device; ``ordinary``: how these windows moved. -inf where the memory
    is not known, or ``training`` has no contexts that are places.
    """
    if training.places is None:
        return np.full(len(counts), -np.inf)
    memory = ordinary.memory.astype(np.float64)
    by_stream = columns.by_stream(np.maximum(memory, memory.mean(axis=1, keepdims=True)))[0][..., list(SHAPE_MEMORY)]
    measured = (ordinary.lags > 0).any(axis=1, keepdims=True)
    moved = np.where(measured, KAPPA * columns.by_stream(ordinary.movement)[0].max(axis=-1), _UNMEASURED)
    level = np.minimum(np.searchsorted(PLACE_LEVELS, moved), len(PLACE_LEVELS) - 1)
    log_z = training.places[level, np.arange(columns.streams)]
    found = values(increments(sums(counts, training.shapes), counts.sum(axis=-1), log_z, by_stream))
    return np.where(ordinary.pairs[:, 0] >= _PAIRS, found, -np.inf)
