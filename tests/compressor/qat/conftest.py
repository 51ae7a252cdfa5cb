"""Networks whose batch norms are not identities, and easy data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from compressor import networks
from compressor.steps._base import Rows

SIDES = {"resnet8": 12, "ds_cnn": 16, "mobilenet_v2": 32, "mobilenet_v3_small": 32}
OPTIONS = {"resnet8": {"filters": 4}, "ds_cnn": {"filters": 8}}


@pytest.fixture
def probe() -> Callable[[str], np.ndarray]:
    """Return random inputs for a network by name, float32 (16, 1, side, side)."""

    def make(name: str) -> np.ndarray:
        side = SIDES[name]
        return np.random.default_rng(1).standard_normal((16, 1, side, side)).astype(np.float32)

    return make


@pytest.fixture
def uneven(probe: Callable[[str], np.ndarray]) -> Callable[[str], nn.Module]:
    """Return a network by name whose norms have uneven scales, random biases and measured statistics."""

    def make(name: str) -> nn.Module:
        network = networks.build(name, 10, 1, SIDES[name], SIDES[name], OPTIONS.get(name))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.copy_(0.1 + 2 * torch.rand(len(module.weight), generator=generator) ** 3)
                    module.bias.copy_(torch.randn(len(module.bias), generator=generator))
            network.train()
            for _ in range(20):
                network(torch.from_numpy(probe(name)))
        return network.eval()

    return make


@pytest.fixture
def easy() -> Rows:
    """Return 96 rows of two classes that differ in where they are bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 96)
    inputs = rng.standard_normal((96, 1, 12, 12)).astype(np.float32)
    inputs[labels == 1, :, :6] += 2
    return Rows(inputs, labels)
