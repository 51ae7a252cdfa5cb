"""Exponential moving average of a network's weights (EMA), including batch norm buffers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

State = dict[str, torch.Tensor]


def copied(state: Mapping[str, torch.Tensor]) -> State:
    """Return a state dict that shares no memory with ``state``."""
    return {name: value.detach().clone() for name, value in state.items()}


class Average:
    """average <- d * average + (1 - d) * weights after every step, with d = min(decay, (1 + n) / (10 + n)).

    n counts the updates: without this ramp the untrained weights would dominate a short training. Integers (the batch
    counters) are copied.
    Source: tf.train.ExponentialMovingAverage, ``num_updates``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the weights of ``network``; ``decay`` in 0..1."""
        self._decay = decay
        self.updates = 0
        self.state = copied(network.state_dict())

    def update(self, network: nn.Module) -> None:
        """Take one step towards the weights of ``network``."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach(), 1 - decay)
            else:
                self.state[name].copy_(value)
