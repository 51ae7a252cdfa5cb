"""Distillation: a student learns the teacher's logits and, optionally, its embedding.

Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015, section 2 (temperature, and the factor T^2);
Romero et al., FitNets, 2015, equation 3 (a learned regressor if widths differ). Teacher and student see the same
augmented batch (Beyer et al., Knowledge distillation: A good teacher is patient and consistent, 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from compressor.errors import TrainError
from compressor.evaluating import evaluating
from compressor.portions import Inputs, portions
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Bench, Rows
from compressor.tasks._loss import TaskLoss
from compressor.train.augmentation import augment
from compressor.train.lazy_tensor import LazyTensor, as_tensor
from compressor.train.samples import checked
from compressor.train.supervised import Options, fit_with, zeros_kept

Outputs = tuple[torch.Tensor, torch.Tensor]
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


class Unlabelled:
    """Inputs without labels in a random order without end, augmented as the rows of a training are, and seeded."""

    def __init__(self, student: nn.Module, inputs: Inputs, settings: TrainRecipe) -> None:
        """Store the ``student`` that answers them; ``settings``: its training's ``augment`` and ``seed``."""
        self._student, self._x, self._strength = student, as_tensor(inputs), settings.augment
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._waiting = torch.zeros(0, dtype=torch.int64)

    def drawn(self, count: int) -> tuple[torch.Tensor, Outputs]:
        """Return the next ``count`` inputs, float32 (count, C, H, W), and the student's outputs for them."""
        while len(self._waiting) < count:
            order = torch.randperm(len(self._x), generator=self._generator)
            self._waiting = torch.cat([self._waiting, order])
        rows, self._waiting = self._waiting[:count], self._waiting[count:]
        x = augment(self._x[rows], self._strength, self._generator)
        outputs: Outputs = self._student(x)
        return x, outputs


class DistillationLoss(nn.Module):
    """(1 - w) * loss on the labels + w * loss towards the teacher + f * (1 - cosine of the embeddings).

    Both losses are the task's: for classes the cross-entropy and T^2 * KL(teacher || student). If embeddings differ
    in width, the student's goes through a linear layer that is trained with it.
    """

    def __init__(
        self,
        teacher: nn.Module,
        labels: TaskLoss,
        mixture: Mixture,
        widths: tuple[int, int],
        beside: Unlabelled | None = None,
    ) -> None:
        """Store the parts of the loss; ``widths`` are the embedding widths of student and teacher.

        ``beside``: inputs without labels, as many for each batch as it has rows; the teacher's part is the mean over
        both, that of the labels the mean over the rows with labels.
        """
        super().__init__()
        self._teacher = (teacher,)  # in a tuple: as a submodule it would be trained and put in training mode
        self._labels = labels
        self._mixture = mixture
        self._beside = beside
        differ = mixture.feature_weight > 0 and widths[0] != widths[1]
        self.regressor = nn.Linear(*widths, bias=False) if differ else nn.Identity()

    def forward(self, x: torch.Tensor, outputs: Outputs, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch; ``targets`` are int64 (N,) or float32 (N, classes), or numbers (N, D)."""
        mixture = self._mixture
        loss: torch.Tensor = (1 - mixture.weight) * self._labels(x, outputs, targets)
        if self._beside is not None:
            more, answers = self._beside.drawn(len(x))
            x, outputs = (
                torch.cat([x, more]),
                (torch.cat([outputs[0], answers[0]]), torch.cat([outputs[1], answers[1]])),
            )
        logits, embedding = outputs
        with torch.no_grad():
            wanted, direction = self._teacher[0](x)
        loss = loss + self._labels.towards(logits, wanted, mixture.temperature, mixture.weight)
        if mixture.feature_weight > 0:
            cosine = nn.functional.cosine_similarity(self.regressor(embedding), direction, dim=1)
            loss = loss + mixture.feature_weight * (1 - cosine).mean()
        return loss


def distil(network: nn.Module, bench: Bench, settings: TrainRecipe, mixture: Mixture) -> nn.Module:
    """Train ``network`` in place on the teacher's outputs and the labels; return it, in evaluation mode.

    Weights that are zero (pruned by a mask) stay zero.

    Args:
        network: The student; returns (logits, embedding).
        bench: ``train``, ``search`` for early stopping, and ``teacher``, which is not changed; ``unlabelled`` inputs
            are learnt by its answers alone.
        settings: Epochs, rates, seed, as in ``supervised.fit``.
        mixture: Weights of the loss.

    Raises:
        TrainError: If there is no teacher, it is the student itself or has other classes, or training fails.
    """
    options = Options(
        on_epoch=lambda epoch: bench.tell(f"distill {epoch.number}/{epoch.of} loss {epoch.loss:.3f}"),
        held=bench.search,
        loss=_loss(network, bench, settings, mixture),
    )
    with zeros_kept(network), evaluating(*([bench.teacher] if bench.teacher is not None else [])):
        return fit_with(network, bench.train, settings, options)


def _loss(network: nn.Module, bench: Bench, settings: TrainRecipe, mixture: Mixture) -> DistillationLoss:
    teacher = teacher_of(network, bench)
    samples = checked(network, bench.train)
    (_, embedding), (_, direction) = _answers(network, samples.x), _answers(teacher, samples.x)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        widths = (embedding.shape[1], direction.shape[1])
        labels = samples.task.training.loss(settings, samples.y, samples.outputs)
        beside = Unlabelled(network, bench.unlabelled, settings) if bench.unlabelled is not None else None
        return DistillationLoss(teacher, labels, mixture, widths, beside)


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


def _answers(network: nn.Module, x: torch.Tensor | LazyTensor) -> Outputs:
    """Return logits and embedding of the first two rows of ``x``."""
    with torch.no_grad(), evaluating(network):
        outputs: Outputs = network(x[:2])
    return outputs


def agreement(network: nn.Module, teacher: nn.Module, rows: Rows, when: str) -> dict[str, float]:
    """Return how close ``network`` is to ``teacher``, a mean over ``rows``, as notes for ``when``; {} without rows."""
    sums: dict[str, float] = {}
    training = rows.of_task.training
    with torch.no_grad(), evaluating(network, teacher):
        for x in map(torch.from_numpy, portions(rows.inputs, most=_MOST_ROWS)) if len(rows) else ():
            for name, value in training.agreement(network(x)[0], teacher(x)[0]).items():
                sums[name] = sums.get(name, 0.0) + value
    return {name.format(when): value / len(rows) for name, value in sums.items()}
