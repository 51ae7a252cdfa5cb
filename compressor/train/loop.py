"""One training in the making: network, optimizer, schedule and randomness, moved on epoch by epoch.

Decides how an epoch goes and what its state is; when to stop is ``supervised.py``'s.

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
from compressor.recipe import TrainRecipe
from compressor.train.augmentation import augment
from compressor.train.averaging import Average, State
from compressor.train.crew import Crew
from compressor.train.mixing import mixed
from compressor.train.samples import Samples
from compressor.train.schedules import Schedule, schedule


@dataclass(frozen=True, slots=True, eq=False)
class Training:
    """What an epoch works with; ``generator`` shuffles, and in a crew of one draws the augmentation too."""

    network: nn.Module
    loss: nn.Module
    samples: Samples
    settings: TrainRecipe
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    generator: torch.Generator
    average: Average | None
    crew: Crew

    def epoch(self, number: int) -> tuple[float, float]:
        """Run epoch ``number``; return mean loss and accuracy (or error) on its augmented batches.

        Raises:
            TrainError: If the loss is not finite.
        """
        self.network.train()
        steps, batch = steps_and_batch(self.samples, self.settings, self.crew)
        rows = torch.randperm(len(self.samples), generator=self.generator)[: steps * batch].reshape(steps, batch)
        draws = self.crew.draws(self.generator, self.settings.seed, number)
        figures = [self._step(own, draws) for own in self.crew.part(rows)]
        loss, accuracy = self.crew.mean(np.asarray(figures))
        self.crew.average_buffers(self.network)
        if not np.isfinite(loss):
            rate = self.settings.learning_rate
            message = f"Expected a finite loss, got {loss}: lower learning_rate ({rate:g}) in [train]"
            raise TrainError(message)
        return loss, accuracy

    def _step(self, rows: torch.Tensor, draws: torch.Generator) -> tuple[float, float]:
        """Take one step of the optimizer; return loss and accuracy of the batch, of a regression the mean error."""
        settings = self.settings
        x, y = augment(self.samples.x[rows], settings.augment, draws), self.samples.y[rows]
        x, targets = mixed(x, y, self.samples.classes, (settings.mixup, settings.cutmix), draws)
        outputs = self.network(x)
        loss = self.loss(x, outputs, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.crew.average_gradients([*self.network.parameters(), *self.loss.parameters()])
        self.optimizer.step()
        self.schedule.step()
        if self.average:
            self.average.update(self.network)
        if self.samples.numeric:
            return loss.item(), float((outputs[0].detach() - targets).abs().mean())
        wanted = targets.argmax(1) if targets.ndim > 1 else targets
        return loss.item(), float((outputs[0].argmax(1) == wanted).float().mean())

    def weights(self) -> State:
        """Return what the training has come to: the averaged weights if it averages, else the network's own."""
        return self.average.state if self.average else self.network.state_dict()

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on: tensors and plain values."""
        return {
            "network": self.network.state_dict(), "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            "average": self.average.state if self.average else {},
            "updates": self.average.updates if self.average else 0,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.network.load_state_dict(state["network"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if self.average:
            self.average.state, self.average.updates = state["average"], state["updates"]


def steps_and_batch(samples: Samples, settings: TrainRecipe, crew: Crew) -> tuple[int, int]:
    """Return the steps of an epoch and the rows of a step, a multiple of the crew's size.

    Raises:
        TrainError: If a process would get fewer than two rows.
    """
    batch = min(settings.batch, len(samples)) // crew.size * crew.size
    if batch < 2 * crew.size:
        message = (
            f"Expected at least 2 rows of each batch for each of {crew.size} processes, got a batch of "
            f"{min(settings.batch, len(samples))}: raise batch or lower processes in [train]"
        )
        raise TrainError(message)
    return len(samples) // batch, batch


def begun(network: nn.Module, loss: nn.Module, samples: Samples, settings: TrainRecipe, crew: Crew) -> Training:
    """Return a training that has not taken a step.

    Raises:
        TrainError: If the batch is too small for the crew, or there is no such schedule.
    """
    optimizer = _optimizer([*network.parameters(), *loss.parameters()], settings)
    steps, _ = steps_and_batch(samples, settings, crew)
    return Training(
        network=network,
        loss=loss,
        samples=samples,
        settings=settings,
        optimizer=optimizer,
        schedule=schedule(optimizer, settings, steps),
        generator=torch.Generator().manual_seed(settings.seed),
        average=Average(network, settings.ema) if settings.ema > 0 else None,
        crew=crew,
    )


def _optimizer(parameters: list[nn.Parameter], settings: TrainRecipe) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, settings.learning_rate, momentum=0.9, nesterov=True, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
