"""Training on windows of streams: cross-entropy on the class of each window, the background among them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from compressor.data._event_windows import CLASS
from compressor.recipe.model import TrainRecipe
from compressor.tasks._loss import TaskLoss
from compressor.tasks.classification import training as of_classes
from compressor.tasks.classification.training import agreement

__all__ = ["agreement", "check", "check_learnable", "goodness", "loss", "loss_sum"]

Outputs = tuple[torch.Tensor, torch.Tensor]


class WindowLoss(TaskLoss):
    """The cross-entropy of classes, for targets that are the columns of events."""

    def __init__(self, loss: of_classes.CrossEntropy) -> None:
        """Use ``loss`` for the classes."""
        super().__init__()
        self._loss = loss

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss; ``targets`` are float64 (N, columns)."""
        return torch.as_tensor(self._loss(x, outputs, _classes(targets)))

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return the divergence from a teacher's logits, as of classes."""
        return self._loss.towards(outputs, wanted, temperature, weight)

    def mass(self, targets: torch.Tensor) -> float:
        """Return the divisor of the mean over ``targets``, as of classes."""
        return self._loss.mass(_classes(targets))


def check(labels: NDArray[Any], outputs: int, what: str) -> None:
    """Check that the classes in ``labels`` are indices of the network's outputs.

    Raises:
        TrainError: If one is not.
    """
    of_classes.check(labels[:, CLASS].astype(int), outputs, what)


def check_learnable(y: torch.Tensor) -> None:
    """Check that the windows have at least two classes.

    Raises:
        TrainError: If all are of one class.
    """
    of_classes.check_learnable(_classes(y))


def loss(settings: TrainRecipe, y: torch.Tensor, outputs: int) -> WindowLoss:
    """Return the loss of the settings, with class weights counted on ``y``."""
    return WindowLoss(of_classes.loss(settings, _classes(y), outputs))


def goodness(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the number of windows whose class is right."""
    return of_classes.goodness(outputs, _classes(targets))


def loss_sum(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of the cross-entropy."""
    return of_classes.loss_sum(outputs, _classes(targets))


def _classes(targets: torch.Tensor) -> torch.Tensor:
    return targets[:, CLASS].long()
