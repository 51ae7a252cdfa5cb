"""Training on numbers: Huber's loss or the squared error, the mean absolute error, and the distance from a teacher."""

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

Outputs = tuple[torch.Tensor, torch.Tensor]


class ValueLoss(TaskLoss):
    """Huber's loss, quadratic up to an error of 1 (a standard deviation of the targets), or the squared error.

    Source: P. J. Huber, Robust Estimation of a Location Parameter, 1964.
    """

    def __init__(self, kind: str) -> None:
        """Store the kind: ``mse``, or else Huber's."""
        super().__init__()
        self._squared = kind == "mse"

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss; outputs and ``targets`` are float32 (N, D) in standard deviations."""
        del x
        return self.between(outputs[0], targets)

    def between(self, values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of ``values`` against ``wanted``, both float32 (N, D) in standard deviations."""
        if self._squared:
            return nn.functional.mse_loss(values, wanted)
        return nn.functional.huber_loss(values, wanted)

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` times the loss of ``outputs`` against the teacher's values; there is no temperature."""
        del temperature
        return weight * self.between(outputs, wanted)


def check(labels: NDArray[Any], outputs: int, what: str) -> None:
    """Check that ``labels``, float32 (N, D), are finite and that D is the network's number of outputs.

    Raises:
        TrainError: If they are not.
    """
    wrong = np.argwhere(~np.isfinite(labels))
    if len(wrong):
        row, column = wrong[0].tolist()
        message = f"Expected finite {what} values, got {labels[row, column]} in row {row}: mend or leave out the row"
        raise TrainError(message)
    if labels.shape[1] != outputs:
        message = f"Expected {what} values (N, {outputs}), as the network gives, got {labels.shape}"
        raise TrainError(f"{message}: build the network with {labels.shape[1]} outputs")


def check_learnable(y: torch.Tensor) -> None:
    """Check that no value is the same in all rows.

    Raises:
        TrainError: If one is: nothing can be learned from a constant.
    """
    same = (y == y[0]).all(dim=0)
    if bool(same.any()):
        message = f"Expected training values that differ, got the same in all {len(y)} rows of value"
        raise TrainError(f"{message} {int(same.float().argmax())}: nothing can be learnt from a constant")


def loss(settings: TrainRecipe, y: torch.Tensor, outputs: int) -> ValueLoss:
    """Return the loss of the settings."""
    del y, outputs
    return ValueLoss(settings.loss)


def goodness(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the negated sum of each row's mean absolute error."""
    return -float((outputs - targets).abs().mean(dim=1).sum())


def loss_sum(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of each row's mean squared error."""
    return ((outputs - targets) ** 2).mean(dim=1).sum()


def agreement(outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
    """Return the sum of each row's mean absolute difference, in standard deviations."""
    return {"teacher_distance_{}": float((outputs - wanted).abs().mean(dim=1).sum())}
