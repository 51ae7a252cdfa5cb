"""Puts networks into evaluation mode while they are exported, run, counted or traced.

A forward pass in training mode updates batch norm statistics and applies dropout. ``torch.onnx.export`` restores the
mode only of the module it is given; if that is a wrapper, the network inside is left in training mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Put ``networks`` into evaluation mode inside the block; afterwards restore the mode of each of their modules."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
