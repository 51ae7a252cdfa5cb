"""The losses of supervised training, and the interface of any other loss (distillation).

A loss is a module that is called with (x, (logits, embedding), targets) and returns a scalar; its own parameters, if it
has any, are trained with the network's and discarded afterwards.
"""

from __future__ import annotations

import torch
from torch import nn

from compressor.recipe.model import TrainRecipe
from compressor.train.batches.samples import Samples

Outputs = tuple[torch.Tensor, torch.Tensor]


class CrossEntropy(nn.Module):
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

    def mass(self, targets: torch.Tensor) -> float:
        """Return the divisor of the mean over ``targets``, int64 (N,): the sum of their weights.

        Source: the documentation of ``torch.nn.CrossEntropyLoss``, ``reduction="mean"``.
        """
        if self._weights is None:
            return float(len(targets))
        return float(self._weights[targets].sum())


class ValueLoss(nn.Module):
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
    if isinstance(loss, CrossEntropy) and own.ndim == 1:
        return loss.mass(own) / loss.mass(whole)
    return len(own) / len(whole)


def loss_of(settings: TrainRecipe, samples: Samples) -> CrossEntropy | ValueLoss:
    """Return the loss of the settings: for classes, or for the numbers of a regression."""
    return ValueLoss(settings.loss) if samples.numeric else cross_entropy(settings, samples)


def cross_entropy(settings: TrainRecipe, samples: Samples) -> CrossEntropy:
    """Return the cross-entropy of the settings, with class weights counted on ``samples``."""
    balanced = settings.class_weights == "balanced"
    return CrossEntropy(settings.label_smoothing, balanced_weights(samples) if balanced else None)


def balanced_weights(samples: Samples) -> torch.Tensor:
    """Return n / (k * n_c) for each class c, k classes being present; 0 for a class without samples.

    Source: King and Zeng, Logistic Regression in Rare Events Data, 2001; ``class_weight="balanced"`` of scikit-learn.
    """
    counts = torch.bincount(samples.y, minlength=samples.classes)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(samples) / (present * counts.clamp(min=1)), 0.0).float()
