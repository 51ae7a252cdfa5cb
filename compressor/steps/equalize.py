"""Rescue before post-training quantization, without training: cross-layer equalization, clipping, bias correction.

Float outputs stay as they are through equalization. Clipping then takes back weights whose size changes the outputs of
calibration rows less than what they cost the others, and bias correction shifts biases by what weights on their grid
will lack, so that the float network moves a little and the quantized one comes nearer to where it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from compressor.errors import QuantizeError
from compressor.steps._base import NETWORK, Applied, Bench, Network
from wire.settings import OneOf

LEVEL = NETWORK
TRAIN_READS: frozenset[str] = frozenset()
EXACT, WITHIN_CLIP = "exact", "within_clip"


@dataclass(frozen=True, slots=True)
class Settings:
    """``[[compress]] step = "equalize"``.

    ``relu6``: ``exact`` leaves pairs with ReLU6 between alone; ``within_clip`` scales them as far as no calibration
    row reaches the clip, so that outputs are unchanged for such rows only. ``absorb_bias``: move into the next layer
    what no calibration row falls below. ``clip_weights``: clip each layer's weights where its outputs over
    calibration rows change least; with one scale per tensor it rescues networks in which channels died.
    ``per_channel`` and ``reduce_range``: the weights' grid that is clipped and corrected for; as in the quantize step
    that follows.
    ``allow_unchanged``: the step may find nothing to do; without it that is an error.
    """

    step: str = "equalize"
    relu6: Annotated[str, OneOf((EXACT, WITHIN_CLIP))] = EXACT
    absorb_bias: bool = False
    clip_weights: bool = False
    bias_correction: bool = True
    per_channel: bool = True
    reduce_range: bool = False
    allow_unchanged: bool = False


def unread(settings: Settings) -> Mapping[str, str]:
    """Return the keys that the other settings leave without use, and why."""
    if settings.clip_weights or settings.bias_correction:
        return {}
    return dict.fromkeys(("per_channel", "reduce_range"), "without clip_weights and bias_correction")


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return ``network`` with its batch norms folded and its channels equalized; it is changed in place.

    Raises:
        QuantizeError: If it can't be traced, or there are no calibration rows.
    """
    from compressor.qat import correction, equalization, fake_quantize, folding, simulation  # noqa: PLC0415 - torch

    inputs = bench.calibration.inputs
    if not len(inputs):
        message = "Expected calibration rows to equalize with, got none: give the calibration split rows"
        raise QuantizeError(message)
    folding.fold(network)
    among = equalization.pairs(network)
    before = equalization.spread(network, among)
    largest = equalization.extremes(network, among, inputs)[1] if settings.relu6 == WITHIN_CLIP else None
    notes: dict[str, float] = {
        "pairs": sum(largest is not None or not pair.clipped for pair in among),
        "pairs_left_for_relu6": sum(largest is None and pair.clipped for pair in among),
        "rounds": equalization.equalize(network, among, largest=largest),
        "channel_spread_before": before,
        "channel_spread": equalization.spread(network, among),
    }
    if settings.absorb_bias:
        smallest = equalization.extremes(network, among, inputs)[0]
        notes["absorbed_channels"] = equalization.absorb(network, among, smallest)
    grid = fake_quantize.Grid(settings.per_channel, settings.reduce_range)
    if settings.clip_weights:
        simulated = simulation.simulate(network, inputs, grid)
        simulated.clip_weights(inputs)
        notes["clipped_weights"] = simulated.keep_clips()
    if settings.bias_correction:
        notes["corrected_layers"], notes["largest_correction"] = correction.correct_biases(network, inputs, grid)
    done = ("pairs", "absorbed_channels", "clipped_weights", "corrected_layers")
    nothing = "" if any(notes.get(name) for name in done) else "no pairs, channels, weights or biases that it may touch"
    return Applied(network, notes=notes, nothing=nothing)
