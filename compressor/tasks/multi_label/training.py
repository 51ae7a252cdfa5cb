"""Training on sets of labels: cross-entropy of each label's sigmoid, F1 of the rows, and distance from a teacher."""

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
MAX_WEIGHT = 20.0
"""Of a rare label: of fewer rows than 1 in 21 a larger weight makes training follow single rows."""


class LabelsLoss(TaskLoss):
    """The mean over rows and labels of the binary cross-entropy, with label smoothing and weights of rare labels."""

    def __init__(self, label_smoothing: float, weights: torch.Tensor | None) -> None:
        """Store the settings; ``weights`` of a label where it is there, float32 (labels,), None: all are 1."""
        super().__init__()
        self._label_smoothing = label_smoothing
        self._weights: torch.Tensor | None
        self.register_buffer("_weights", weights, persistent=False)  # moves with the module, not part of its state

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss; ``targets`` are bool (N, labels)."""
        del x
        wanted = targets.to(outputs[0].dtype)
        wanted = wanted * (1 - self._label_smoothing) + self._label_smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(outputs[0], wanted, pos_weight=self._weights)

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` * T^2 times the mean divergence of each label's probability at ``temperature`` T."""
        return weight * temperature**2 * divergence(outputs, wanted, temperature)


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the mean over rows and labels of KL(teacher || student) in nats of logits, both (N, labels)."""
    wanted = torch.sigmoid(teacher / temperature)
    cross = nn.functional.binary_cross_entropy_with_logits(student / temperature, wanted)
    return cross - nn.functional.binary_cross_entropy_with_logits(teacher / temperature, wanted)


def check(labels: NDArray[Any], outputs: int, what: str) -> None:
    """Check that ``labels``, bool (N, labels), have a column for each of the network's ``outputs``.

    Raises:
        TrainError: If they have not.
    """
    if labels.dtype != np.bool_ or labels.shape[1:] != (outputs,):
        message = f"Expected {what} labels as bool (N, {outputs}), as the network gives, got {labels.dtype}"
        raise TrainError(f"{message} {labels.shape}: build the network with as many outputs as there are labels")


def check_learnable(y: torch.Tensor) -> None:
    """Check that some label is in some rows and not in others.

    Raises:
        TrainError: If all rows have the same labels: there is nothing to learn.
    """
    if bool((y == y[0]).all()):
        message = f"Expected training rows with different labels, got the same {int(y[0].sum())} in all {len(y)} rows"
        raise TrainError(f"{message}: add samples of others")


def loss(settings: TrainRecipe, y: torch.Tensor, outputs: int) -> LabelsLoss:
    """Return the loss of the settings, with the weights of rare labels counted on ``y``."""
    del outputs
    return LabelsLoss(settings.label_smoothing, rare_weights(y) if settings.class_weights == "balanced" else None)


def rare_weights(y: torch.Tensor) -> torch.Tensor:
    """Return for each label the rows without it over the rows with it, 1 to ``MAX_WEIGHT``; 1 if no row has it."""
    there = y.sum(dim=0)
    return torch.where(there > 0, (len(y) - there) / there.clamp(min=1), 1.0).clamp(1.0, MAX_WEIGHT).float()


def goodness(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the sum of each row's F1 at a probability of .5; 1 for a row rightly without labels."""
    said = outputs > 0
    hits, both = (said & targets).sum(dim=1), said.sum(dim=1) + targets.sum(dim=1)
    return float(torch.where(both > 0, 2 * hits / both.clamp(min=1), 1.0).sum())


def loss_sum(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum over rows of the mean cross-entropy of the labels."""
    wanted = targets.to(outputs.dtype)
    return nn.functional.binary_cross_entropy_with_logits(outputs, wanted, reduction="none").mean(dim=1).sum()


def agreement(outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
    """Return the sums over rows of the divergence from a teacher in nats a label, and of equal sets of labels."""
    return {
        "teacher_kl_{}_nats": float(divergence(outputs, wanted)) * len(outputs),
        "teacher_agreement_{}_ratio": int(((outputs > 0) == (wanted > 0)).all(dim=1).sum()),
    }
