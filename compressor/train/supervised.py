"""The supervised training loop: AdamW or SGD with a schedule, mild augmentation, seeded.

The same inputs and settings give the same weights, resumed or not. Fine-tuning is the same loop from loaded weights
with ``TrainRecipe.for_fine_tuning``; distillation is the same loop with another loss. Early stopping compares epochs on
held rows only. The state of a training is written whole or not at all, as tensors and plain values tied to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from compressor.errors import TrainError
from compressor.portions import Inputs
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Rows
from compressor.train.lazy_tensor import LazyTensor
from compressor.train.loop import State, TrainingState, begun, copied
from compressor.train.processes.world import World
from compressor.train.samples import Samples, check_learnable, checked
from compressor.train.scoring import Score, score
from wire.durable import replacing


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
class Best:
    """The best weights so far, their score, and the number of epochs since then."""

    score: Score | None = None
    state: State | None = None
    stale: int = 0

    def after(self, score: Score, state: State) -> Best:
        """Return the best after ``state`` scored ``score``; a tie is no improvement. The best ``state`` is copied."""
        if self.score is None or score > self.score:
            return Best(score, copied(state))
        return Best(self.score, self.state, self.stale + 1)


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
def one_thread() -> Iterator[None]:
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
    inputs: Inputs,
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
        inputs: float32, (N, C, H, W), as the device's preprocessing makes them; many are taken batch by batch.
        labels: int64, (N,), class indices; or float32, (N, D), numbers in standard deviations.
        settings: Epochs, seed, batch, rates. ``processes`` is used only by ``distributed.fit_distributed``.
        on_epoch: Called after every epoch; a resumed training reports the earlier epochs again.
        held: Rows for early stopping and the choice of the best weights; not trained on.
        resume: File that keeps the state after every epoch; if it exists, training continues from it and gives the
            weights of an uninterrupted one. It stays when the training ends: delete it once the weights are saved.
        loss: A loss as described in ``loop`` (distillation); None: as in the settings.

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
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        course = _run(training, held.to(options.world.device) if held else None, options)
    best = course.best.state if settings.early_stopping else None
    network.load_state_dict(best or copied(training.weights()))
    network.requires_grad_()
    return network.eval()


def _run(training: TrainingState, held: Samples | None, options: Options) -> _Course:
    key = _key(training, held) if options.resume else ""
    state = _load(options.resume, key) if options.resume else None
    course = _Course()
    if state is not None:
        training.restore(state)
        best = Best(Score(*state["best_score"]), state["best"], state["stale"]) if state["best_score"] else Best()
        course = _Course(tuple(Epoch(*values) for values in state["epochs"]), best)
    for epoch in course.epochs:
        _tell(epoch, options)
    settings, measure = training.settings, training.samples.task.measure
    while not course.over(settings):
        number, best, on_held = len(course.epochs) + 1, course.best, None
        loss, accuracy = training.epoch(number)
        if held is not None:
            reached = training.world.agreed(score(training.network, held.x, held.y, held.task, training.weights()))
            best = best.after(reached, training.weights()) if settings.early_stopping else best
            on_held = abs(reached.accuracy)
        epoch = Epoch(number, settings.epochs, loss, accuracy, on_held, measure)
        course = _Course((*course.epochs, epoch), best)
        if options.resume and options.world.rank == 0:
            _save(options.resume, {
                "key": key, **training.state(), "epochs": [astuple(epoch) for epoch in course.epochs],
                "best_score": astuple(best.score) if best.score else (), "best": best.state or {}, "stale": best.stale,
            })  # fmt: skip
        _tell(epoch, options)
    return course


def _tell(epoch: Epoch, options: Options) -> None:
    if options.on_epoch and options.world.rank == 0:
        options.on_epoch(epoch)


def _key(training: TrainingState, held: Samples | None) -> str:
    """Return the SHA-256 of everything a training starts from, hexadecimal: another start is another training."""
    settings = f"{training.settings} {type(training.loss).__qualname__} {training.world.size}"
    settings += " head" if training.settings.keeps_body else ""
    settings += f" {training.settings.flips}" if training.settings.flips != "none" else ""
    digest = hashlib.sha256(f"{torch.__version__} {settings}".encode())
    tensors = [*training.network.state_dict().values(), *training.loss.state_dict().values()]
    tensors += [training.samples.x, training.samples.y, *((held.x, held.y) if held else ())]
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        for part in tensor.parts() if isinstance(tensor, LazyTensor) else [tensor]:
            digest.update(np.ascontiguousarray(part.detach().cpu().numpy()).data)
    return digest.hexdigest()


def _save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path``; the old file stays until the new one is complete.

    Raises:
        TrainError: If the file can't be written.
    """
    try:
        with replacing(path, mode=0o644, alone=True) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError when the disk is full
        message = f"Expected to write the state of the training to {path}, got: {error}: free space, then run again"
        raise TrainError(message) from error


def _load(path: Path, expected: str) -> dict[str, Any] | None:
    """Return the state in ``path``, or None if the file does not exist.

    Args:
        path: The file of the state.
        expected: The key of this training.

    Raises:
        TrainError: If the file is not such a state, or is from another training.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of zip, pickle and dictionaries alike
        message = f"Expected the state of a training in {path}, got {type(error).__name__}: delete it to start over"
        raise TrainError(message) from error
    if not isinstance(state, dict) or state.get("key") != expected:
        message = f"Expected the state of this training in {path}, got another's: delete it to start over"
        raise TrainError(message)
    return state


@contextmanager
def zeros_kept(network: nn.Module) -> Iterator[None]:
    """Keep weights of layers that are exactly zero at zero, whatever optimizer trains inside the block.

    With a gradient of zero from the first step on, AdamW and SGD (momentum, decay) leave a zero unchanged. A trained
    weight is zero only because of a mask; biases and scales are not affected.
    """
    weights = [weight for weight in network.parameters() if weight.ndim > 1 and bool((weight == 0).any())]
    handles = []
    for weight in weights:
        mask = (weight != 0).to(weight.dtype)
        handles.append(weight.register_hook(partial(torch.mul, mask)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
