"""The supervised training loop: AdamW or SGD with a schedule, mild augmentation, seeded.

The same inputs and settings give the same weights, resumed or not. Fine-tuning is the same loop from loaded weights
with ``TrainRecipe.for_fine_tuning``; distillation is the same loop with another loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train import resuming
from compressor.train.averaging import copied
from compressor.train.batches.samples import Floats, Samples, check_learnable, checked
from compressor.train.loop import Training, begun
from compressor.train.processes.world import World
from compressor.train.stopping import Best, Score, score


@dataclass(frozen=True, slots=True)
class Epoch:
    """Result of one epoch; ``number`` counts from 1. ``accuracy`` is on augmented training batches.

    ``held_accuracy``: on the held rows, if there are any. ``measure``: the kind of both scores: accuracy, or the mean
    absolute ``error`` in standard deviations of the targets.
    """

    number: int
    of: int
    loss: float
    accuracy: float
    held_accuracy: float | None = None
    measure: str = "accuracy"

    @property
    def said(self) -> str:
        """Loss and score as short text."""
        return f"loss {self.loss:.3f} {self.measure} {self.accuracy:.3f}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Options:
    """Options of a training besides data and settings; see ``fit``. ``world``: the processes that share it."""

    on_epoch: Callable[[Epoch], None] | None = None
    held: Rows | None = None
    resume: Path | None = None
    loss: nn.Module | None = None
    world: World = field(default_factory=World)


@dataclass(frozen=True, slots=True, eq=False)
class _Course:
    """Progress of a training: its epochs so far, and the best weights."""

    epochs: tuple[Epoch, ...] = ()
    best: Best = field(default_factory=Best)

    def over(self, settings: TrainRecipe) -> bool:
        """Return whether the last epoch is done, or too many brought no improvement."""
        stopped = 0 < settings.early_stopping <= self.best.stale
        return stopped or len(self.epochs) >= settings.epochs


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train on one thread: small layers are no faster on two, and on a busy machine two wait for each other.

    Measured on 2 busy cores: an epoch of ResNet8 on digits takes 6.4 s on one thread, 32.8 s on two. It also makes
    the weights independent of the machine's number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit(  # noqa: PLR0913 - each option is one a caller can leave out
    network: nn.Module,
    inputs: Floats,
    labels: npt.NDArray[Any],
    settings: TrainRecipe,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
    held: Rows | None = None,
    resume: Path | None = None,
    loss: nn.Module | None = None,
) -> nn.Module:
    """Train ``network`` in place and return it, in evaluation mode.

    Args:
        network: Returns (logits, embedding).
        inputs: float32, (N, C, H, W), as the device's preprocessing makes them.
        labels: int64, (N,), class indices; or float32, (N, D), numbers in standard deviations.
        settings: Epochs, seed, batch, rates. ``processes`` is used only by ``distributed.fit_distributed``.
        on_epoch: Called after every epoch; a resumed training reports the earlier epochs again.
        held: Rows for early stopping and the choice of the best weights; not trained on.
        resume: File that keeps the state after every epoch; if it exists, training continues from it and gives the
            weights of an uninterrupted one. It stays when the training ends: delete it once the weights are saved.
        loss: A loss as described in ``losses`` (distillation); None: as in the settings.

    Raises:
        TrainError: If there are too few samples or classes, a value or the loss is not finite, early stopping has no
            held rows, or ``resume`` is from another training or can't be written.
    """
    return fit_with(
        network, Rows(inputs, labels), settings, Options(on_epoch=on_epoch, held=held, resume=resume, loss=loss)
    )


def fit_with(network: nn.Module, rows: Rows, settings: TrainRecipe, options: Options) -> nn.Module:
    """Train ``network`` in place and return it; see ``fit``.

    Raises:
        TrainError: As in ``fit``.
    """
    samples = checked(network, rows)
    check_learnable(samples)
    held = checked(network, options.held, "held") if options.held else None
    if settings.early_stopping and held is None:
        message = "Expected held rows for early_stopping, got none: set early_stopping = 0 in [train], or hold rows out"
        raise TrainError(message)
    loss = options.loss or samples.task.training.loss(settings, samples.y, samples.outputs)
    training = begun(network, loss, samples, settings, options.world)
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        course = _run(training, held.to(options.world.device) if held else None, options)
    best = course.best.state if settings.early_stopping else None
    network.load_state_dict(best or copied(training.weights()))
    return network.eval()


def _run(training: Training, held: Samples | None, options: Options) -> _Course:
    key = _key(training, held) if options.resume else ""
    course = _resumed(training, options.resume, key)
    for epoch in course.epochs:
        _tell(epoch, options)
    while not course.over(training.settings):
        course = _after_one_more(training, held, course)
        if options.resume and options.world.rank == 0:
            resuming.save(options.resume, {"key": key, **training.state(), **_course_state(course)})
        _tell(course.epochs[-1], options)
    return course


def _tell(epoch: Epoch, options: Options) -> None:
    if options.on_epoch and options.world.rank == 0:
        options.on_epoch(epoch)


def _after_one_more(training: Training, held: Samples | None, course: _Course) -> _Course:
    number, settings = len(course.epochs) + 1, training.settings
    loss, accuracy = training.epoch(number)
    measure = training.samples.task.measure
    if held is None:
        return _Course((*course.epochs, Epoch(number, settings.epochs, loss, accuracy, None, measure)))
    reached = training.world.agreed(score(training.network, training.weights(), held))
    best = course.best.after(reached, training.weights()) if settings.early_stopping else course.best
    on_held = abs(reached.accuracy)
    return _Course((*course.epochs, Epoch(number, settings.epochs, loss, accuracy, on_held, measure)), best)


def _key(training: Training, held: Samples | None) -> str:
    tensors = [*training.network.state_dict().values(), *training.loss.state_dict().values()]
    tensors += [training.samples.x, training.samples.y, *((held.x, held.y) if held else ())]
    return resuming.key(f"{training.settings} {type(training.loss).__qualname__} {training.world.size}", tensors)


def _course_state(course: _Course) -> dict[str, Any]:
    best = course.best
    return {
        "epochs": [astuple(epoch) for epoch in course.epochs],
        "best_score": astuple(best.score) if best.score else (), "best": best.state or {}, "stale": best.stale,
    }  # fmt: skip


def _resumed(training: Training, path: Path | None, key: str) -> _Course:
    state = resuming.load(path, key) if path else None
    if state is None:
        return _Course()
    training.restore(state)
    best = Best(Score(*state["best_score"]), state["best"], state["stale"]) if state["best_score"] else Best()
    return _Course(tuple(Epoch(*values) for values in state["epochs"]), best)
