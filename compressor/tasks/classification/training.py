"""Training on classes: cross-entropy, accuracy, and the divergence from a teacher."""

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


class CrossEntropy(TaskLoss):
    """Cross-entropy with label smoothing and class weights, for class indices and for mixed labels."""

    def __init__(self, label_smoothing: float, weights: torch.Tensor | None) -> None:
        """Store the settings; ``weights`` is float32, (classes,), or None if all are equal."""
        super().__init__()
        self._label_smoothing = label_smoothing
        self._weights: torch.Tensor | None
        self.register_buffer("_weights", weights, persistent=False)  # moves with the module, not part of its state

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss; ``targets`` are int64 (N,) or float32 (N, classes)."""
        del x
        return nn.functional.cross_entropy(
            outputs[0], targets, weight=self._weights, label_smoothing=self._label_smoothing
        )

    def towards(self, outputs: torch.Tensor, wanted: torch.Tensor, temperature: float, weight: float) -> torch.Tensor:
        """Return ``weight`` * T^2 * KL(teacher || student) of logits, both (N, classes), at temperature T.

        Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2 (the factor T^2).
        """
        return weight * temperature**2 * divergence(outputs, wanted, temperature)

    def mass(self, targets: torch.Tensor) -> float:
        """Return the divisor of the mean over ``targets``, int64 (N,): the sum of their weights.

        Source: the documentation of ``torch.nn.CrossEntropyLoss``, ``reduction="mean"``.
        """
        if self._weights is None:
            return float(len(targets))
        return float(self._weights[targets].sum())


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the mean KL(teacher || student) in nats of logits, both (N, classes), at ``temperature``."""
    wanted = nn.functional.log_softmax(teacher / temperature, dim=1)
    got = nn.functional.log_softmax(student / temperature, dim=1)
    return nn.functional.kl_div(got, wanted, reduction="batchmean", log_target=True)


def check(labels: NDArray[Any], outputs: int, what: str) -> None:
    """Check that ``labels``, int64 (N,), are indices of the network's classes.

    Raises:
        TrainError: If one is not.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= outputs))
    if len(wrong):
        message = (
            f"Expected {what} labels of 0 to {outputs - 1}, got {labels[wrong[0]]} in row {wrong[0]}: "
            "mend the label, or build the network with more classes"
        )
        raise TrainError(message)


def check_learnable(y: torch.Tensor) -> None:
    """Check that the labels have at least two classes.

    Raises:
        TrainError: If all are of one class: any network would be right without learning.
    """
    present = torch.unique(y)
    if len(present) < 2:  # noqa: PLR2004 - two classes make a choice
        message = (
            f"Expected training labels of at least two classes, got only class {int(present[0])} in "
            f"{len(y)} rows: add samples of another class"
        )
        raise TrainError(message)


def loss(settings: TrainRecipe, y: torch.Tensor, outputs: int) -> CrossEntropy:
    """Return the loss of the settings, with class weights counted on ``y``."""
    balanced = settings.class_weights == "balanced"
    return CrossEntropy(settings.label_smoothing, balanced_weights(y, outputs) if balanced else None)


def balanced_weights(y: torch.Tensor, classes: int) -> torch.Tensor:
    """Return n / (k * n_c) for each class c, k classes being present; 0 for a class without samples.

    Source: King and Zeng, Logistic Regression in Rare Events Data, 2001; ``class_weight="balanced"`` of scikit-learn.
    """
    counts = torch.bincount(y, minlength=classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(y) / (present * counts.clamp(min=1)), 0.0).float()


def goodness(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Return the number of correct rows; for mixed labels (N, classes) the largest counts."""
    wanted = targets.argmax(1) if targets.ndim > 1 else targets
    return float(int((outputs.argmax(1) == wanted).sum()))


def loss_sum(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the sum of the cross-entropy."""
    return nn.functional.cross_entropy(outputs, targets, reduction="sum")


def agreement(outputs: torch.Tensor, wanted: torch.Tensor) -> Mapping[str, float]:
    """Return the sums over rows of KL(teacher || student) in nats, and of equal predictions."""
    return {
        "teacher_kl_{}_nats": float(divergence(outputs, wanted)) * len(outputs),
        "teacher_agreement_{}_ratio": int((outputs.argmax(1) == wanted.argmax(1)).sum()),
    }
