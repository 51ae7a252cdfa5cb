"""Evaluation mode for as long as a network is only looked at: exported, run, counted or traced.

A forward pass in training mode moves the statistics of batch norms and drops units. ``torch.onnx.export`` restores the
mode of what it is given, which is a wrapper's where there is one, so that the network inside is left in training mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Keep ``networks`` in evaluation mode; afterwards each of their modules has the mode that it had itself."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training
