"""Before the first step of training: ranges from calibration rows, and weights that their grid can hold.

One scale for a whole tensor is ruined by a few large channels. Where these matter (channels of unlike size),
equalization moves their scale into the next layer; where they don't (channels that died, whose norms then blew them
up), clipping gives their levels back to the others. Training alone mends neither: weights that round to 0 get no useful
gradient. Measured on a MobileNetV2-0.35 with dead channels, one scale per tensor: 0.105 as it is, 0.990 clipped, 0.990
equalized, 0.197 after 18 steps of training alone; with channels of unlike size: 0.105, 0.105, 0.990. Channels of unlike
size ruin a scale per channel too (0.105), because activations have one scale in any case.

Decides which preparation training starts from: that with the best score on the search rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.qat import equalization
from compressor.qat.simulation import Simulation
from compressor.qat.training import Score, score
from compressor.steps._base import Rows

PLAIN, CLIPPED, EQUALIZED = "min/max ranges", "clipped weights", "equalized channels, clipped weights"


@dataclass(frozen=True, slots=True)
class Prepared:
    """``name`` of the preparation that is kept, its score, and that of plain min/max ranges."""

    name: str
    score: Score
    plain: Score


def prepare(simulation: Simulation, inputs: npt.NDArray[np.float32], search: Rows, *, equalize: bool) -> Prepared:
    """Observe ranges and put ``simulation``, in place, where training starts best.

    Args:
        simulation: As ``simulate`` made it.
        inputs: Calibration rows, float32 (N, C, H, W).
        search: Rows that preparations are judged by.
        equalize: Also try equalized channels.

    Raises:
        QuantizeError: If there are no calibration rows, or an activation is not finite.
        TrainError: If there are no search rows.
    """
    ways: dict[str, Callable[[], None]] = {
        PLAIN: lambda: simulation.observe(inputs),
        CLIPPED: lambda: simulation.clip_weights(inputs),
    }
    if equalize:
        ways[EQUALIZED] = lambda: _equalize(simulation, inputs)
    scores, states = {}, {}
    for name, way in ways.items():
        way()
        scores[name], states[name] = score(simulation.copy, search), simulation.state()
    best = max(scores, key=lambda name: (scores[name].accuracy, -scores[name].loss))
    simulation.restore(states[best])
    return Prepared(best, scores[best], scores[PLAIN])


def _equalize(simulation: Simulation, inputs: npt.NDArray[np.float32]) -> None:
    """Give channels alike ranges as far as no calibration row reaches a clip, then observe and clip anew."""
    among = equalization.pairs(simulation.network)
    largest = equalization.extremes(simulation.network, among, inputs)[1]
    equalization.equalize(simulation.network, among, largest=largest)
    simulation.observe(inputs)
    simulation.clip_weights(inputs)
