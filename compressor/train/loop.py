"""State of one training: network, loss, optimizer, schedule, average and random generators, advanced epoch by epoch.

Decides how an epoch runs and what its state is; ``supervised.py`` decides when to stop. A loss is a module that is
called with (x, (logits, embedding), targets) and returns a scalar; its own parameters, if it has any, are trained with
the network's and discarded afterwards. The task defines the loss.

Tensors keep the default memory format on purpose: with torch 2.13 on a CPU, channels-last training of layers with
4 channels corrupts memory (crashes, weights that differ from run to run), for a gain of 13 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from compressor import tasks
from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.tasks._loss import TaskLoss
from compressor.train.augmentation import draw, draw_mix, moved_together
from compressor.train.frozen_body import freeze_body
from compressor.train.processes.world import World, answered
from compressor.train.samples import Samples

State: TypeAlias = dict[str, torch.Tensor]
Schedule: TypeAlias = torch.optim.lr_scheduler.LRScheduler
_RISING_RATIO = 0.25
_DROP = 0.1
_DROPS_AT = (0.5, 0.75)


def copied(state: Mapping[str, torch.Tensor]) -> State:
    """Return a state dict that shares no memory with ``state``."""
    return {name: value.detach().clone() for name, value in state.items()}


class Average:
    """average <- d * average + (1 - d) * weights after every step, with d = min(decay, (1 + n) / (10 + n)).

    n counts the updates: without this ramp the untrained weights would dominate a short training. Integers (the batch
    counters) are copied.
    Source: tf.train.ExponentialMovingAverage, ``num_updates``.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start from the weights of ``network``; ``decay`` in 0..1."""
        self._decay = decay
        self.updates = 0
        self.state = copied(network.state_dict())

    def update(self, network: nn.Module) -> None:
        """Take one step towards the weights of ``network``."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value.detach(), 1 - decay)
            else:
                self.state[name].copy_(value)


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
    if isinstance(loss, TaskLoss) and own.ndim == whole.ndim:
        return loss.mass(own) / loss.mass(whole)
    return len(own) / len(whole)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TrainingState:
    """What an epoch works with; ``generator`` shuffles and draws augmentation and mixing.

    ``objective`` is the loss as a module; with several processes it averages their gradients. ``frozen``: modules that
    are not trained.
    """

    network: nn.Module
    loss: nn.Module
    objective: nn.Module
    samples: Samples
    settings: TrainRecipe
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: torch.Generator
    average: Average | None
    world: World
    frozen: tuple[nn.Module, ...] = ()

    def epoch(self, number: int) -> tuple[float, float]:
        """Run epoch ``number``; return mean loss and score on its augmented batches.

        Raises:
            TrainError: If the loss is not finite, or another process is lost.
        """
        self.network.train()
        for module in self.frozen:
            module.eval()
        steps, batch = steps_and_batch(self.samples, self.settings, self.world)
        rows = torch.randperm(len(self.samples), generator=self.generator)[: steps * batch].reshape(steps, batch)
        self.world.begin_epoch(self.settings.seed, number)
        with answered(self.world):
            figures = [self._step(batch_rows) for batch_rows in rows]
            loss, accuracy = self.world.mean(np.asarray(figures))
        if not np.isfinite(loss):
            rate = self.settings.learning_rate
            message = f"Expected a finite loss, got {loss}: lower learning_rate ({rate:g}) in [train]"
            raise TrainError(message)
        return loss, accuracy

    def _step(self, rows: torch.Tensor) -> tuple[float, float]:
        """Take one step of the optimizer on this process's part of the batch ``rows``.

        Returns:
            Loss and score (accuracy, or mean error), weighted so that the mean over the processes is that of the whole
            batch.
        """
        own = self.world.part(len(rows))
        x, targets = self._batch(rows, own)
        share = 1.0
        if self.world.size > 1:
            share = self.world.size * share_of(self.loss, targets, self.samples.y[rows])
        loss, outputs = self.objective(x.to(self.world.device), targets.to(self.world.device))
        said, task = outputs.to("cpu"), self.samples.task
        loss = loss if share == 1 else loss * share
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update(self.network)
        score = abs(task.training.goodness(said, tasks.aims(task, x, targets, said)))
        return loss.item(), score * self.world.size / len(rows)

    def _batch(self, rows: torch.Tensor, own: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of the ``own`` rows of a batch, augmented and mixed.

        Values are drawn for the whole batch: every process draws the same and takes its part.
        """
        settings, samples = self.settings, self.samples
        shape = (len(rows), *samples.x.shape[1:])
        drawn = draw(shape, settings.augment, self.generator)
        mix = draw_mix(shape, (settings.mixup, settings.cutmix), self.generator)
        mine = torch.arange(len(rows))[own]
        needed = mine if mix is None else torch.unique(torch.cat([mine, mix.partners[own]]))
        x, y = samples.x[rows[needed]], samples.y[rows[needed]]
        if drawn is not None:
            x, y = moved_together(x, y, drawn.of(needed), samples.task.training, settings.flips)
        if mix is None:
            return x, y
        first, second = torch.searchsorted(needed, mine), torch.searchsorted(needed, mix.partners[own])
        return mix.inputs(x[first], x[second]), mix.labels(y[first], y[second], samples.outputs)

    def weights(self) -> State:
        """Return the trained weights: the averaged ones if it averages, else the network's own."""
        return self.average.state if self.average else self.network.state_dict()

    def state(self) -> dict[str, Any]:
        """Return everything that the next epoch depends on, as tensors and plain values."""
        return {
            "network": self.network.state_dict(), "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            "average": self.average.state if self.average else {},
            "updates": self.average.updates if self.average else 0,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.network.load_state_dict(state["network"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if self.average:
            on_device = {name: value.to(self.world.device) for name, value in state["average"].items()}
            self.average.state, self.average.updates = on_device, state["updates"]


def steps_and_batch(samples: Samples, settings: TrainRecipe, world: World) -> tuple[int, int]:
    """Return the steps of an epoch and the rows of a step, for any number of processes.

    Rows that do not fill a batch are left out of this epoch; the next one shuffles again.

    Raises:
        TrainError: If a process would get fewer than two rows.
    """
    batch = min(settings.batch, len(samples))
    if batch < 2 * world.size:
        message = (
            f"Expected at least 2 rows of each batch for each of {world.size} processes, got a batch of {batch}: "
            "raise batch or lower processes in [train]"
        )
        raise TrainError(message)
    return len(samples) // batch, batch


def begun(network: nn.Module, loss: nn.Module, samples: Samples, settings: TrainRecipe, world: World) -> TrainingState:
    """Return a training before its first step; with several processes it starts from rank 0's weights.

    Raises:
        TrainError: If the batch is too small for the processes, the schedule is unknown, a process is lost, or there is
            no head to train alone.
    """
    frozen = freeze_body(network, samples.x) if settings.keeps_body else ()
    objective: nn.Module = Objective(network, loss).to(world.device)
    if world.size > 1:
        with answered(world):
            objective = nn.parallel.DistributedDataParallel(
                objective,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                find_unused_parameters=True,  # an embedding may have layers that do not contribute to the loss
            )
    parameters, decay = [*network.parameters(), *loss.parameters()], settings.weight_decay
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(parameters, settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=decay)
    else:
        optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=decay)
    steps, _ = steps_and_batch(samples, settings, world)
    return TrainingState(
        network=network,
        loss=loss,
        objective=objective,
        samples=samples,
        settings=settings,
        optimizer=optimizer,
        schedule=schedule(optimizer, settings, steps),
        generator=torch.Generator().manual_seed(settings.seed),
        average=Average(network, settings.ema) if settings.ema > 0 else None,
        world=world,
        frozen=frozen,
    )


def schedule(optimizer: torch.optim.Optimizer, settings: TrainRecipe, steps: int) -> Schedule:
    """Return the schedule of the settings.

    Args:
        optimizer: The optimizer whose rate changes.
        settings: ``schedule``, ``learning_rate`` (the peak), ``epochs``, ``warm_up_epochs``.
        steps: Steps of the optimizer in one epoch.

    Raises:
        TrainError: If the schedule is unknown.
    """
    total = max(2, settings.epochs * steps)
    warm_up = min(settings.warm_up_epochs * steps, total - 1)
    if settings.schedule == "one_cycle":
        rising = warm_up / total if warm_up else _RISING_RATIO
        if rising * total == 1:  # torch divides by the number of steps before the peak, counted from 0
            rising = 1.5 / total
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, total_steps=total, pct_start=rising
        )
    if settings.schedule not in _FACTORS:
        message = f"Expected a schedule of one_cycle, {', '.join(_FACTORS)}, got {settings.schedule!r}"
        raise TrainError(message)
    factor = _FACTORS[settings.schedule]

    def at(step: int) -> float:
        return (step + 1) / (warm_up + 1) if step < warm_up else factor((step - warm_up) / (total - warm_up))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, at)


def _cosine(progress: float) -> float:
    """Return the factor of half a cosine. Source: Loshchilov and Hutter, SGDR, 2017, equation 5 without restarts."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def _step(progress: float) -> float:
    """Return a tenth for each drop passed. Source: He et al., 2015, section 4.2 (drops at 1/2 and 3/4)."""
    return _DROP ** sum(progress >= drop for drop in _DROPS_AT)


_FACTORS: dict[str, Callable[[float], float]] = {"cosine": _cosine, "step": _step, "constant": lambda _: 1.0}
