"""Folds batch norms into the layer before them and keeps the original module structure.

The layer's weights take the norm's scale; the norm becomes an exact identity that keeps the bias (weight 1, mean 0,
variance 1 - eps), so that the network's keys and classes do not change and it can be exported as before.
Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
2018, equation 14.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.qat.graph import Layer, layers, trace


def fold(network: nn.Module) -> tuple[Layer, ...]:
    """Fold every batch norm that directly follows a layer, in place; return the layers in the order in which they run.

    The network is left in evaluation mode, and its outputs in evaluation mode do not change. Folding twice has no
    further effect.

    Raises:
        QuantizeError: If the network can't be traced or has weights outside of modules.
    """
    network.eval()
    found = layers(trace(network))
    with torch.no_grad():
        for layer in found:
            if layer.norm:
                _fold(network.get_submodule(layer.target), network.get_submodule(layer.norm))
    return found


def bias_of(network: nn.Module, layer: Layer) -> nn.Parameter | None:
    """Return the parameter that holds the bias of a folded ``layer``: the norm's, the layer's own, or None."""
    bias = network.get_submodule(layer.norm or layer.target).bias
    return bias if isinstance(bias, nn.Parameter) else None


def weight_of(network: nn.Module, layer: Layer) -> nn.Parameter:
    """Return the weights of ``layer``: (out, in / groups, ...) of a convolution, (out, in) of a linear layer.

    Raises:
        TypeError: If the weight is not a plain parameter (but a parametrization).
    """
    weight = network.get_submodule(layer.target).weight
    if not isinstance(weight, nn.Parameter):
        message = f"Expected a plain weight in {layer.target}, got {type(weight).__name__}: remove its parametrization"
        raise TypeError(message)
    return weight


def _fold(layer: Any, norm: Any) -> None:  # noqa: ANN401 - several classes of layers and norms, used alike
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if layer.bias is not None:
        bias = bias + layer.bias * scale
        layer.bias.zero_()
    layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    norm.weight.fill_(1)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
