"""Batch norms that see the rows of all processes, against torch's own; on two processes in ``test_distributed``."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn

from compressor.train.processes.batch_norm import synchronized
from compressor.train.processes.world import World


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone: its collectives run and change nothing."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (6, 3)),
        (nn.BatchNorm2d(3, momentum=None), (4, 3, 5, 5)),
        (nn.BatchNorm2d(3, affine=False, track_running_stats=False), (4, 3, 5, 5)),
        (nn.BatchNorm3d(3, momentum=0.3), (4, 3, 2, 3, 4)),
    ],
)
def test_equals_a_batch_norm_of_torch(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Outputs, gradients and running statistics, over two steps and in evaluation."""
    torch.manual_seed(0)
    own = synchronized(nn.Sequential(copy.deepcopy(layer)), World(0, 2))
    for step in range(3):
        x, towards = 2 * torch.randn(shape) + 1, torch.randn(shape)
        pairs = [(module.train(step < 2), x.clone().requires_grad_()) for module in (nn.Sequential(layer), own)]
        for module, values in pairs:
            (module(values) * towards).sum().backward()
        assert torch.allclose(pairs[0][1].grad, pairs[1][1].grad, atol=1e-5)  # type: ignore[arg-type]
        for wanted, got in zip(layer.parameters(), own.parameters(), strict=True):
            assert torch.allclose(wanted.grad, got.grad, atol=1e-4)  # type: ignore[arg-type]
        for wanted, got in zip(layer.buffers(), own.buffers(), strict=True):
            assert torch.allclose(wanted, got, atol=1e-6)


def test_names_stay_and_one_process_has_torchs_own() -> None:
    """A state dict fits before and after; in a world of one nothing is replaced."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    names = list(network.state_dict())
    assert type(synchronized(network, World())[1]) is nn.BatchNorm2d  # type: ignore[index]
    assert type(synchronized(network, World(0, 2))[1]) is not nn.BatchNorm2d  # type: ignore[index]
    assert list(network.state_dict()) == names
