"""Training on normal inputs: the squared difference of the network's picture from the input itself.

The outputs are (N, D), the picture of the input's last rows, as ``edge_agent/decoders/residual.py`` reads them. The
targets are not the labels, but that part of the (augmented) input: ``aims``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.tasks._loss import TaskLoss
from compressor.tasks.anomaly.targets import ANOMALOUS

Outputs = tuple[torch.Tensor, torch.Tensor]


class ResidualLoss(TaskLoss):
    """The mean squared residual."""

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of ``outputs`` against the input ``x``; ``targets``, the labels, are not read."""
        return nn.functional.mse_loss(outputs[0], aims(x, targets, outputs[0]))

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` times the mean squared difference from a teacher's pictures."""
        del temperature
        return weight * nn.functional.mse_loss(outputs, wanted)


def aims(x: torch.Tensor, y: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """Return what ``outputs``, (N, D), are to be: the last rows of the inputs ``x``, float32 (N, C, H, W)."""
    del y
    rows = outputs.shape[1] // (x.shape[1] * x.shape[3])
    return x[:, :, x.shape[2] - rows :].flatten(1)


def check(labels: NDArray[Any], outputs: int, what: str) -> None:
    """Check that no row of ``labels``, int64 (N,), is anomalous.

    Raises:
        TrainError: If one is.
    """
    del outputs
    wrong = np.flatnonzero(labels == ANOMALOUS)
    if len(wrong):
        message = f"Expected normal {what} rows, got {len(wrong)} anomalous ones, the first is row {wrong[0]}"
        raise TrainError(f"{message}: anomalies are only judged; leave them out of this split")


def check_learnable(y: torch.Tensor) -> None:
    """Check nothing: all labels are the same, and are not learned."""
    del y


def loss(settings: TrainRecipe, y: torch.Tensor, outputs: int) -> ResidualLoss:
    """Return the loss; no setting changes it."""
    del settings, y, outputs
    return ResidualLoss()


def goodness(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the negated sum of each row's root mean squared residual; ``targets`` as from ``aims``."""
    return -float(((outputs - targets) ** 2).mean(dim=1).sqrt().sum())


def loss_sum(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of each row's mean squared residual."""
    return ((outputs - targets) ** 2).mean(dim=1).sum()


def agreement(outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
    """Return the sum of each row's mean absolute difference of the pictures."""
    return {"teacher_distance_{}": float((outputs - wanted).abs().mean(dim=1).sum())}
