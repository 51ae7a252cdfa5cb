"""Bias correction: subtracts from each layer's bias the mean error that rounded weights cause in its output.

Layers are corrected in the order in which they run, each after the earlier ones are rounded and corrected, so that
errors don't add up; activations stay float. One pass over the calibration rows for the float network, one for the
corrected.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2 and
appendix D (empirical correction).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn

from compressor.errors import QuantizeError
from compressor.evaluating import evaluating
from compressor.portions import Inputs, row_bytes, rows_within
from compressor.qat.fake_quantize import Grid, on_grid
from compressor.qat.graph import TracedLayer, bias_of, layers, trace, weight_of

_MOST_ROWS = 256  # the second pass holds them all in memory
_MOST_BYTES = 32 << 20  # of inputs: 55 rows of 224 x 224, enough because means are over all positions


def correct_biases(network: nn.Module, inputs: Inputs, grid: Grid) -> tuple[int, float]:
    """Correct the biases of a folded ``network`` in place; return the number of layers and the largest correction.

    Weights stay float: the bias is right for weights on ``grid``. Layers that have no bias to hold the correction
    (neither their own nor a folded norm's) are skipped.

    Args:
        network: Folded, in evaluation mode.
        inputs: Calibration rows, float32 (N, C, H, W); the first 256, or 32 MiB, are used.
        grid: The grid of the weights.

    Raises:
        QuantizeError: If there are no rows, or the network can't be traced.
    """
    if not len(inputs):
        message = "Expected calibration rows to correct biases on, got none: give the calibration split rows"
        raise QuantizeError(message)
    most = rows_within(row_bytes(inputs), most=_MOST_ROWS, limit_bytes=_MOST_BYTES)
    rows = torch.from_numpy(np.ascontiguousarray(inputs[:most]))
    traced = trace(network)
    means = _Means(traced, layers(traced))
    with torch.no_grad(), evaluating(network):
        means.run(rows)
        kept = {}
        for layer in means.layers:
            weight = weight_of(network, layer)
            kept[layer.node] = weight.detach().clone()
            weight.copy_(on_grid(weight, grid))
        try:
            corrector = _Corrector(traced, network, means)
            corrector.run(rows)
        finally:
            for layer in means.layers:
                weight_of(network, layer).copy_(kept[layer.node])
    return len(corrector.corrected), max(corrector.corrected.values(), default=0.0)


def _channel_means(value: torch.Tensor) -> torch.Tensor:
    return value.transpose(0, 1).flatten(1).mean(1)


class _Means(fx.Interpreter):
    """Records the mean of every channel of each layer's output, including its bias."""

    def __init__(self, traced: fx.GraphModule, found: tuple[TracedLayer, ...]) -> None:
        super().__init__(traced)
        self.layers = found
        self.outputs = {layer.output: layer for layer in found}
        self.means: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self.outputs:
            self.means[n.name] = _channel_means(value)
        return value


class _Corrector(fx.Interpreter):
    """Adds to every bias the difference of the means, and continues with the corrected output."""

    def __init__(self, traced: fx.GraphModule, network: nn.Module, wanted: _Means) -> None:
        super().__init__(traced)
        self.network, self.wanted = network, wanted
        self.corrected: dict[str, float] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        layer = self.wanted.outputs.get(n.name)
        bias = bias_of(self.network, layer) if layer else None
        if bias is None:
            return value
        missing = self.wanted.means[n.name] - _channel_means(value)
        bias.add_(missing)
        self.corrected[n.name] = float(missing.abs().max())
        return value + missing.reshape(1, -1, *[1] * (value.ndim - 2))
