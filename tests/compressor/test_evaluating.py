"""Evaluating a network leaves its modes and the statistics of its batch norms unchanged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from compressor.evaluating import evaluating
from compressor.export.onnx import export_onnx
from compressor.prune.groups import find_groups
from compressor.prune.importance import channel_scores
from compressor.prune.judging import score as pruning_score
from compressor.prune.plan import count_macs
from compressor.prune.structured import latency_ratio
from compressor.qat import equalization, training
from compressor.quantize._learned_ranges import activations
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Bench, Rows
from compressor.train import distillation, scoring
from compressor.train.samples import checked

SHAPE = (1, 8, 8)
ROWS = Rows(np.random.default_rng(0).standard_normal((32, *SHAPE)).astype(np.float32), np.arange(32) % 3)


class Inner(nn.Module):
    """A convolution, two norms of which one is frozen, dropout, a linear layer."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.a, self.n = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.b, self.frozen = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding)."""
        x = torch.relu(self.frozen(self.b(torch.relu(self.n(self.a(x))))))
        embedding = self.drop(x.mean((2, 3)))
        return self.head(embedding), embedding


class Wrapper(nn.Module):
    """Contains a network: its own mode is not that of the network inside."""

    def __init__(self, inner: nn.Module) -> None:
        """Store ``inner``."""
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output of the inner network."""
        said: tuple[torch.Tensor, torch.Tensor] = self.inner(x)
        return said


def networks() -> list[nn.Module]:
    """Return a network in training with one frozen norm, one in evaluation, and a wrapper in training around such."""
    training, looked_at, inside = Inner().train(), Inner().eval(), Inner().eval()
    training.frozen.eval()
    wrapper = Wrapper(inside)
    wrapper.training = True
    return [training, looked_at, wrapper]


def trace_extremes(network: nn.Module) -> object:
    """Run the watcher of channel extremes."""
    return equalization.extremes(network, equalization.pairs(network), ROWS.inputs)


def student(network: nn.Module) -> object:
    """Train a student on the answers of ``network``."""
    bench = Bench(
        train=ROWS,
        calibration=ROWS,
        search=ROWS,
        settings=TrainRecipe(epochs=1, batch=16, augment=0.0),
        teacher=network,
    )
    return distillation.distil(Inner(), bench, bench.settings, distillation.Mixture(4.0, 0.5, 0.0))


def scored(network: nn.Module) -> scoring.Score:
    """Score by the weights given, as early stopping does."""
    rows = checked(Inner(), ROWS)
    return scoring.score(network, rows.x, rows.y, rows.task, dict(network.state_dict()))


LOOKS: dict[str, Callable[[nn.Module], object]] = {
    "export": lambda network: export_onnx(network, *SHAPE),
    "macs": lambda network: count_macs(network, *SHAPE),
    "groups": lambda network: find_groups(network, SHAPE),
    "importance": lambda network: channel_scores(network, find_groups(network, SHAPE).groups, "taylor", ROWS),
    "points": lambda network: pruning_score(network, ROWS),
    "latency": lambda network: latency_ratio(network, network, ROWS.inputs[:2]),
    "activations": lambda network: activations(network, ROWS.inputs[:4]),
    "extremes": trace_extremes,
    "agreement": lambda network: distillation.agreement(network, Inner(), ROWS, "now"),
    "teacher": student,
    "qat score": lambda network: training.score(network, ROWS),
    "scoring": scored,
    "samples": lambda network: checked(network, ROWS),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("which", range(3))
def test_looking_changes_neither_modes_nor_statistics(look: str, which: int) -> None:
    """In training with a frozen part, in evaluation, and inside a wrapper of another mode."""
    network = networks()[which]
    modes = {name: module.training for name, module in network.named_modules()}
    state = {name: value.clone() for name, value in network.state_dict().items()}
    LOOKS[look](network)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("which", range(3))
def test_an_export_to_tflite_changes_neither_modes_nor_statistics(which: int) -> None:
    """The converter wraps the network to turn its axes."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - an optional extra

    LOOKS["tflite"] = lambda network: export_tflite(network, *SHAPE)
    test_looking_changes_neither_modes_nor_statistics("tflite", which)
    del LOOKS["tflite"]


def test_modes_come_back_after_an_error() -> None:
    """After a forward pass that fails, the network is unchanged."""
    network = networks()[0]

    def failing() -> None:
        with evaluating(network):
            raise ZeroDivisionError(str(any(module.training for module in network.modules())))

    with pytest.raises(ZeroDivisionError, match="False"):
        failing()
    assert network.training
    assert not network.get_submodule("frozen").training
