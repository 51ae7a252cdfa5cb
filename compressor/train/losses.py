"""Network and loss as one module, and the share of a part of a batch in its mean loss.

A loss is a module that is called with (x, (logits, embedding), targets) and returns a scalar; its own parameters, if
it has any, are trained with the network's and discarded afterwards. The task defines the loss.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.tasks._loss import TaskLoss

Outputs = tuple[torch.Tensor, torch.Tensor]


class Objective(nn.Module):
    """Network and loss as one module, called with inputs and targets.

    ``DistributedDataParallel`` finds the parameters that get gradients from the outputs of a module: here from the
    loss, because a network also returns an embedding, which need not contribute to it.
    """

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        """Store both; they are not changed."""
        super().__init__()
        self._network, self._loss = network, loss

    def forward(self, x: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean loss, and the logits (or values) detached."""
        outputs = self._network(x)
        return self._loss(x, outputs, targets), outputs[0].detach()


def share_of(loss: nn.Module, own: torch.Tensor, whole: torch.Tensor) -> float:
    """Return the share, 0..1, of the part with the targets ``own`` in a batch's mean loss.

    ``whole`` are the batch's targets before mixing; mixed rows all weigh the same.
    """
    if isinstance(loss, TaskLoss) and own.ndim == whole.ndim:
        return loss.mass(own) / loss.mass(whole)
    return len(own) / len(whole)
