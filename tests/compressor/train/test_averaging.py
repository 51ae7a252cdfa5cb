"""The average of weights, against a hand-made one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from compressor import tasks
from compressor.recipe.model import TrainRecipe
from compressor.tasks.classification.training import CrossEntropy
from compressor.train.loop import Average, begun
from compressor.train.processes.world import World
from compressor.train.samples import Samples


def test_equals_the_average_by_hand() -> None:
    """Three updates from 0 to 1, 2 and 3: the ramp gives 2/11, 3/12 and 4/13, buffers alike, counters copied."""
    network = nn.BatchNorm1d(1)
    nn.init.zeros_(network.weight)
    average, expected = Average(network, 0.99), 0.0
    for n, decay in ((1, 2 / 11), (2, 3 / 12), (3, 4 / 13)):
        nn.init.constant_(network.weight, n)
        network.running_mean.fill_(n)  # type: ignore[union-attr]
        network.num_batches_tracked.fill_(n)  # type: ignore[union-attr]
        average.update(network)
        expected = decay * expected + (1 - decay) * n
    assert float(average.state["weight"]) == pytest.approx(expected) == float(average.state["running_mean"])
    assert int(average.state["num_batches_tracked"]) == 3


def test_the_decay_is_reached() -> None:
    """After the ramp, the decay is the configured one."""
    network = nn.Linear(1, 1, bias=False)
    average = Average(network, 0.5)
    average.updates = 1000
    before = float(average.state["weight"])
    nn.init.constant_(network.weight, 3)
    average.update(network)
    assert float(average.state["weight"]) == pytest.approx(0.5 * before + 1.5)


class _Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and embedding."""
        embedding = self.norm(x.flatten(1))
        return self.head(embedding), embedding


def test_a_training_with_ema_comes_to_its_average() -> None:
    """The result of a training is the average, buffers included, and differs from the raw weights."""
    torch.manual_seed(0)
    samples = Samples(
        x=torch.randn(32, 1, 2, 2) + 3, y=torch.arange(32) % 2, outputs=2, task=tasks.named("classification")
    )
    settings = TrainRecipe(epochs=1, batch=8, ema=0.9, augment=0)
    training = begun(_Toy(), CrossEntropy(0.0, None), samples, settings, World())
    training.epoch(1)
    raw, averaged = training.network.state_dict(), training.weights()
    assert all(not torch.equal(raw[name], averaged[name]) for name in ("head.weight", "norm.running_mean"))
    assert np.isfinite(averaged["norm.running_var"].numpy()).all()
