"""Multiply-accumulates of a network, counted in a forward pass on one input of zeros.

Counts convolutions and linear layers, which do nearly all of the work of a small CNN; batch norms are folded at export
and activations multiply nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from compressor.evaluating import evaluating


def layer_macs(network: nn.Module, channels: int, height: int, width: int) -> dict[str, int]:
    """Return the MACs of each ``Conv2d`` and ``Linear`` by its name, for one input (1, channels, height, width).

    A layer that runs twice counts twice; one that does not run is missing. The network is not changed.
    """
    counted: dict[str, int] = {}
    layers = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    hooks = [module.register_forward_hook(_counter(counted, name)) for name, module in layers.items()]
    try:
        with torch.no_grad(), evaluating(network):
            network(torch.zeros(1, channels, height, width))
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def count_macs(network: nn.Module, channels: int, height: int, width: int) -> int:
    """Return the MACs of ``network`` for one input of shape (1, channels, height, width)."""
    return sum(layer_macs(network, channels, height, width).values())


def count_parameters(network: nn.Module) -> int:
    """Return the number of trained values: parameters, not the statistics of batch norms."""
    return sum(parameter.numel() for parameter in network.parameters())


def _counter(counted: dict[str, int], name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        del inputs
        weight = module.weight
        per_output = weight[0].numel() if isinstance(weight, torch.Tensor) else 0
        counted[name] = counted.get(name, 0) + output.numel() * per_output

    return count
