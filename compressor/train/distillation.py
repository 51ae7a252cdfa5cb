"""Distillation: a student learns the teacher's logits and, optionally, its embedding.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2 (temperature, and the factor T^2);
Romero et al., FitNets, 2015, equation 3 (a learned regressor if widths differ). Teacher and student see the same
augmented batch (Beyer et al., Knowledge distillation: A good teacher is patient and consistent, 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from compressor.errors import TrainError
from compressor.evaluating import evaluating
from compressor.portions import portions
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Bench, Rows
from compressor.train.batches.samples import checked
from compressor.train.losses import CrossEntropy, Outputs, ValueLoss, loss_of
from compressor.train.sparsity import zeros_kept
from compressor.train.supervised import fit

_MOST_ROWS = 256


@dataclass(frozen=True, slots=True)
class Mixture:
    """Weights of the parts of the loss.

    ``temperature``: of both softmaxes. ``weight``: of the teacher's logits against the labels, 0..1.
    ``feature_weight``: of the embedding's direction, from 0. For a regression the teacher's values replace its logits,
    and there is no temperature.
    """

    temperature: float = 4.0
    weight: float = 0.7
    feature_weight: float = 0.0


class DistillationLoss(nn.Module):
    """(1 - w) * cross-entropy + w * T^2 * KL(teacher || student) + f * (1 - cosine of the embeddings).

    If the embeddings differ in width, the student's goes through a linear layer that is trained with it. For a
    regression the loss on the labels is also applied to the teacher's values: (1 - w) * loss + w * loss(teacher) + ...
    """

    def __init__(
        self,
        teacher: nn.Module,
        labels: CrossEntropy | ValueLoss,
        mixture: Mixture,
        widths: tuple[int, int],
    ) -> None:
        """Store the parts of the loss; ``widths`` are the embedding widths of student and teacher."""
        super().__init__()
        self._teacher = (teacher,)  # in a tuple: as a submodule it would be trained and put in training mode
        self._labels = labels
        self._mixture = mixture
        differ = mixture.feature_weight > 0 and widths[0] != widths[1]
        self.regressor = nn.Linear(*widths, bias=False) if differ else nn.Identity()

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch; ``targets`` are int64 (N,) or float32 (N, classes), or numbers (N, D)."""
        mixture, (logits, embedding) = self._mixture, outputs
        with torch.no_grad():
            wanted, direction = self._teacher[0](x)
        loss: torch.Tensor = (1 - mixture.weight) * self._labels(x, outputs, targets)
        if isinstance(self._labels, ValueLoss):
            loss = loss + mixture.weight * self._labels.between(logits, wanted)
        else:
            loss = loss + mixture.weight * mixture.temperature**2 * divergence(logits, wanted, mixture.temperature)
        if mixture.feature_weight > 0:
            cosine = nn.functional.cosine_similarity(self.regressor(embedding), direction, dim=1)
            loss = loss + mixture.feature_weight * (1 - cosine).mean()
        return loss


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the mean KL(teacher || student) in nats of logits, both (N, classes), at ``temperature``."""
    wanted = nn.functional.log_softmax(teacher / temperature, dim=1)
    got = nn.functional.log_softmax(student / temperature, dim=1)
    return nn.functional.kl_div(got, wanted, reduction="batchmean", log_target=True)


def distil(network: nn.Module, bench: Bench, settings: TrainRecipe, mixture: Mixture) -> nn.Module:
    """Train ``network`` in place on the teacher's outputs and the labels; return it, in evaluation mode.

    Weights that are zero (pruned by a mask) stay zero.

    Args:
        network: The student; returns (logits, embedding).
        bench: ``train``, ``search`` for early stopping, and ``teacher``, which is not changed.
        settings: Epochs, rates, seed, as in ``supervised.fit``.
        mixture: Weights of the loss.

    Raises:
        TrainError: If there is no teacher, it is the student itself or has other classes, or training fails.
    """
    loss = _loss(network, bench, settings, mixture)
    with zeros_kept(network), evaluating(*([bench.teacher] if bench.teacher is not None else [])):
        return fit(
            network,
            bench.train.inputs,
            bench.train.labels,
            settings,
            on_epoch=lambda epoch: bench.tell(f"distill {epoch.number}/{epoch.of} loss {epoch.loss:.3f}"),
            held=bench.search,
            loss=loss,
        )


def _loss(network: nn.Module, bench: Bench, settings: TrainRecipe, mixture: Mixture) -> DistillationLoss:
    teacher = teacher_of(network, bench)
    samples = checked(network, bench.train.inputs, bench.train.labels)
    (_, embedding), (_, direction) = _answers(network, samples.x), _answers(teacher, samples.x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        widths = (embedding.shape[1], direction.shape[1])
        return DistillationLoss(teacher, loss_of(settings, samples), mixture, widths)


def teacher_of(network: nn.Module, bench: Bench) -> nn.Module:
    """Return the bench's teacher; it and ``network`` are left in evaluation mode.

    Raises:
        TrainError: If there is none, it is ``network`` itself, or it has other classes.
    """
    if bench.teacher is None:
        message = "Expected a teacher to distil from, got none: train a network first, or use the step fine_tune"
        raise TrainError(message)
    if bench.teacher is network:
        message = "Expected a teacher apart from the student, got the same network: copy it before the first step"
        raise TrainError(message)
    x = torch.from_numpy(bench.train.inputs[:2])
    wanted, got = (_answers(one, x)[0].shape[1] for one in (network, bench.teacher))
    if wanted != got:
        message = f"Expected a teacher with the student's {wanted} classes, got {got}: train both on the same labels"
        raise TrainError(message)
    return bench.teacher


def _answers(network: nn.Module, x: torch.Tensor) -> Outputs:
    """Return logits and embedding of the first two rows of ``x``."""
    with torch.no_grad(), evaluating(network):
        outputs: Outputs = network(x[:2])
    return outputs


@dataclass(frozen=True, slots=True)
class Agreement:
    """How close a student is to its teacher: KL in nats at temperature 1, and the share of equal predictions.

    ``distance``: for a regression, the mean absolute difference in standard deviations; the others are then NaN.
    """

    divergence: float
    agreement_ratio: float
    distance: float = math.nan


def agreement(network: nn.Module, teacher: nn.Module, rows: Rows) -> Agreement:
    """Return how close ``network`` is to ``teacher`` on ``rows``; NaN without rows."""
    if rows.numeric:
        return Agreement(math.nan, math.nan, _distance(network, teacher, rows))
    distance, equal = 0.0, 0
    with torch.no_grad(), evaluating(network, teacher):
        for x in map(torch.from_numpy, portions(rows.inputs, most=_MOST_ROWS)):
            student, wanted = network(x)[0], teacher(x)[0]
            distance += float(divergence(student, wanted)) * len(x)
            equal += int((student.argmax(1) == wanted.argmax(1)).sum())
    return Agreement(distance / len(rows), equal / len(rows)) if len(rows) else Agreement(math.nan, math.nan)


def _distance(network: nn.Module, teacher: nn.Module, rows: Rows) -> float:
    with torch.no_grad(), evaluating(network, teacher):
        given = map(torch.from_numpy, portions(rows.inputs, most=_MOST_ROWS))
        parts = [(network(x)[0] - teacher(x)[0]).abs().flatten() for x in given]
    return float(torch.cat(parts).mean()) if len(rows) else math.nan
