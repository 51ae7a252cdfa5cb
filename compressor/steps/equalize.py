"""Prepares a network for post-training quantization without training: equalization, clipping, bias correction.

Equalization leaves float outputs unchanged. Clipping then limits weights where that changes the outputs on calibration
rows less than their large range costs the others, and bias correction compensates for the rounding of the weights, so
that the float network changes slightly and the quantized one comes closer to the original.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """``[[compress]] step = "equalize"``.

    ``relu6``: ``exact`` skips pairs with ReLU6 between them; ``within_clip`` scales them as far as no calibration row
    reaches the clip, so that outputs are unchanged only for such rows. ``absorb_bias``: move the part of a bias that
    every calibration row exceeds into the next layer. ``clip_weights``: clip each layer's weights where its outputs on
    calibration rows change least; with one scale per tensor this rescues networks with dead channels. ``per_channel``
    and ``reduce_range``: the grid of the weights, taken from the quantize step that follows. ``allow_unchanged``: no
    error if the step finds nothing to do.
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
    """Return the keys that other settings make unused, with the reason."""
    if settings.clip_weights or settings.bias_correction:
        return {}
    return dict.fromkeys(("per_channel", "reduce_range"), "without clip_weights and bias_correction")


def apply(network: Network, bench: Bench, settings: Settings) -> Applied:
    """Return ``network`` with its batch norms folded and its channels equalized; changed in place.

    Raises:
        QuantizeError: If it can't be traced, or there are no calibration rows.
    """
    from compressor.qat import correction, equalization, fake_quantize, graph, simulation  # noqa: PLC0415 - torch

    inputs = bench.calibration.inputs
    if not len(inputs):
        message = "Expected calibration rows to equalize with, got none: give the calibration split rows"
        raise QuantizeError(message)
    graph.fold(network)
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
    return Applied(network=network, notes=notes, nothing=nothing)
