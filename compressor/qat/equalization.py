"""Cross-layer equalization: moves scale between neighbouring layers until their channels have similar ranges.

A pair is two layers with nothing between them but what commutes with positive factors: ReLU, or no activation. ReLU6
does not (its clip would have to scale too), so by default pairs with ReLU6 are skipped. With ``within_clip`` they are
scaled as far as no calibration row reaches the clip before or after: outputs of calibration rows stay, others may
change.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, sections 4.1 and
4.2, equation 11 (s = sqrt(r1 r2) / r2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from compressor.evaluating import evaluating
from compressor.portions import INPUT_BYTES, Inputs
from compressor.qat.graph import TracedLayer, bias_of, layers, operation, trace, weight_of

_COMMUTING = frozenset({"relu", "identity", "dropout", "dropout2d"})
_ROUNDS = 40
_CONVERGED = 1e-3
_CLIP, _BELOW_CLIP = 6.0, 0.999
_FACTOR = 1e3
"""The largest factor of one round, so that a nearly dead channel does not inflate its neighbour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPair:
    """Two consecutive layers; ``clipped`` if ReLU6 is between them, ``rectified`` if ReLU or ReLU6 is."""

    first: TracedLayer
    second: TracedLayer
    rectified: bool
    clipped: bool


def pairs(network: nn.Module) -> tuple[LayerPair, ...]:
    """Return the pairs of a folded ``network``, in the order in which they run.

    Raises:
        QuantizeError: If it can't be traced or has weights outside of modules.
    """
    traced = trace(network)
    found = layers(traced)
    by_node, by_name = {layer.node: layer for layer in found}, {node.name: node for node in traced.graph.nodes}
    candidates = (_pair(by_name[layer.output], layer, by_node, traced) for layer in found)
    return tuple(pair for pair in candidates if pair)


def equalize(
    network: nn.Module, among: Sequence[LayerPair], *, largest: Mapping[str, torch.Tensor] | None = None
) -> int:
    """Scale the channels of every pair in ``among``, in place, until nothing changes; return the number of rounds.

    Args:
        network: Folded.
        among: From ``pairs`` of this network.
        largest: Largest value before each ReLU6 by its layer's node, (channels,): pairs with ReLU6 are then scaled as
            far as these stay below the clip. Without it they are skipped.
    """
    reached = {node: value.clone() for node, value in (largest or {}).items()}
    usable = [pair for pair in among if not pair.clipped or pair.first.node in reached]
    with torch.no_grad():
        for done in range(1, _ROUNDS + 1):
            moved = [_scale(network, pair, reached) for pair in usable]
            if max(moved, default=0.0) < _CONVERGED:
                return done
    return _ROUNDS


def absorb(network: nn.Module, among: Sequence[LayerPair], smallest: Mapping[str, torch.Tensor]) -> int:
    """Move the smallest output on calibration rows from each first bias into the second, in place; return the channels.

    ``smallest``: least output of the first layer by node, (channels,). Exact for rows above it. Applies only if the
    second layer does not pad (the zeros of its border would not be shifted) and there is no ReLU6 between.
    Source: Nagel et al., 2019, section 4.1.3, with the measured minimum instead of three standard deviations.
    """
    count = 0
    with torch.no_grad():
        for pair in among:
            bias, other = bias_of(network, pair.first), bias_of(network, pair.second)
            second = network.get_submodule(pair.second.target)
            padding = getattr(second, "padding", 0)
            pads = padding not in {0, "valid"} and not (isinstance(padding, tuple) and not any(padding))
            if pair.clipped or not pair.rectified or bias is None or other is None or pads:
                continue
            shift = smallest[pair.first.node].clamp(min=0)
            groups = _by_input(second, weight_of(network, pair.second))
            bias.sub_(shift)
            other.add_(torch.einsum("goik,gi->go", groups, shift.reshape(len(groups), -1)).flatten())
            count += int((shift > 0).sum())
    return count


def extremes(
    network: nn.Module, among: Sequence[LayerPair], inputs: Inputs
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return (smallest, largest) output of the first layer of each pair over ``inputs``, by node, (channels,)."""
    wanted = {pair.first.output: pair.first.node for pair in among}
    smallest: dict[str, torch.Tensor] = {}
    largest: dict[str, torch.Tensor] = {}

    class _Extremes(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            value = super().run_node(n)
            if n.name in wanted:
                channels, key = value.transpose(0, 1).flatten(1), wanted[n.name]
                low, high = channels.amin(1), channels.amax(1)
                smallest[key] = torch.minimum(low, smallest.get(key, low))
                largest[key] = torch.maximum(high, largest.get(key, high))
            return value

    watch = _Extremes(trace(network))
    with torch.no_grad(), evaluating(network):
        parts = min(len(inputs), max(1, len(inputs) // 64, -(-inputs.nbytes // INPUT_BYTES)))
        for rows in np.array_split(np.arange(len(inputs)), parts):
            watch.run(torch.from_numpy(np.ascontiguousarray(inputs[rows[0] : rows[-1] + 1])))
    return smallest, largest


def spread(network: nn.Module, among: Sequence[LayerPair]) -> float:
    """Return the largest channel range over the median one, averaged over the pairs' first layers; 1 is even."""
    ratios = []
    for pair in among:
        channels = weight_of(network, pair.first).detach().flatten(1).abs().amax(1)
        ratios.append(float(channels.max() / channels.median().clamp(min=1e-12)))
    return float(np.mean(ratios)) if ratios else 1.0


def _pair(
    node: fx.Node, first: TracedLayer, by_node: Mapping[str, TracedLayer], traced: fx.GraphModule
) -> LayerPair | None:
    """Return the pair that starts at ``first``, whose output is ``node``; None if another node reads that output."""
    rectified = clipped = False
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.name in by_node:
            return LayerPair(first=first, second=by_node[node.name], rectified=rectified, clipped=clipped)
        done = operation(traced, node)
        rectified, clipped = rectified or done in {"relu", "relu6"}, clipped or done == "relu6"
        if done not in _COMMUTING and done != "relu6":
            return None
    return None


def _scale(network: nn.Module, pair: LayerPair, reached: dict[str, torch.Tensor]) -> float:
    """Equalize one pair; return how far its channels changed, as the largest logarithm of a factor."""
    weight, bias = weight_of(network, pair.first), bias_of(network, pair.first)
    groups = _by_input(network.get_submodule(pair.second.target), weight_of(network, pair.second))
    first, second = weight.flatten(1).abs().amax(1), groups.abs().amax(dim=(1, 3)).flatten()
    factor = torch.sqrt(first * second) / second
    factor = torch.where((first > 0) & (second > 0), factor, torch.ones_like(factor)).clamp(1 / _FACTOR, _FACTOR)
    if pair.clipped:
        top = reached[pair.first.node]
        factor = torch.where(top < _CLIP, torch.maximum(factor, top / (_CLIP * _BELOW_CLIP)), torch.ones_like(factor))
        reached[pair.first.node] = top / factor
    weight.div_(factor.reshape(-1, *[1] * (weight.ndim - 1)))
    if bias is not None:
        bias.div_(factor)
    groups.mul_(factor.reshape(len(groups), 1, -1, 1))
    return float(factor.log().abs().max())


def _by_input(layer: Any, weight: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - several classes of layers
    """Return a view of ``weight`` as (groups, outputs per group, inputs per group, kernel)."""
    count = getattr(layer, "groups", 1)
    return weight.view(count, len(weight) // count, weight.shape[1], -1)
