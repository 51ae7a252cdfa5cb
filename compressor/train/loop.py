"""State of one training: network, optimizer, schedule and random generators, advanced epoch by epoch.

Decides how an epoch runs and what its state is; ``supervised.py`` decides when to stop.

Tensors keep the default memory format on purpose: with torch 2.13 on a CPU, channels-last training of layers with
4 channels corrupts memory (crashes, weights that differ from run to run), for a gain of 13 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.errors import TrainError
from compressor.recipe.model import TrainRecipe
from compressor.train.averaging import Average, State
from compressor.train.batches import augmentation, mixing
from compressor.train.batches.samples import Samples
from compressor.train.losses import Objective, share_of
from compressor.train.processes.world import World, answered
from compressor.train.schedules import Schedule, schedule


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Training:
    """What an epoch works with; ``generator`` shuffles and draws augmentation and mixing.

    ``objective`` is the loss as a module; with several processes it averages their gradients.
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

    def epoch(self, number: int) -> tuple[float, float]:
        """Run epoch ``number``; return mean loss and score on its augmented batches.

        Raises:
            TrainError: If the loss is not finite, or another process is lost.
        """
        self.network.train()
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
        loss = loss if share == 1 else loss * share
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update(self.network)
        score = abs(self.samples.task.training.goodness(outputs.to("cpu"), targets))
        return loss.item(), score * self.world.size / len(rows)

    def _batch(self, rows: torch.Tensor, own: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and targets of the ``own`` rows of a batch, augmented and mixed.

        Values are drawn for the whole batch: every process draws the same and takes its part.
        """
        settings, samples = self.settings, self.samples
        shape = (len(rows), *samples.x.shape[1:])
        drawn = augmentation.draw(shape, settings.augment, self.generator)
        mix = mixing.draw(shape, (settings.mixup, settings.cutmix), self.generator)
        mine = torch.arange(len(rows))[own]
        needed = mine if mix is None else torch.unique(torch.cat([mine, mix.partners[own]]))
        x, y = samples.x[rows[needed]], samples.y[rows[needed]]
        x = x if drawn is None else drawn.of(needed).applied(x)
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


def begun(network: nn.Module, loss: nn.Module, samples: Samples, settings: TrainRecipe, world: World) -> Training:
    """Return a training before its first step; with several processes it starts from rank 0's weights.

    Raises:
        TrainError: If the batch is too small for the processes, the schedule is unknown, or a process is lost.
    """
    objective: nn.Module = Objective(network, loss).to(world.device)
    if world.size > 1:
        with answered(world):
            objective = nn.parallel.DistributedDataParallel(
                objective,
                device_ids=[world.device] if world.device.type == "cuda" else None,
                find_unused_parameters=True,  # an embedding may have layers that do not contribute to the loss
            )
    optimizer = _optimizer([*network.parameters(), *loss.parameters()], settings)
    steps, _ = steps_and_batch(samples, settings, world)
    return Training(
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
    )


def _optimizer(parameters: list[nn.Parameter], settings: TrainRecipe) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
