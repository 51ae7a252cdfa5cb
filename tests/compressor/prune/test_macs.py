"""MACs are counted layer by layer."""

from __future__ import annotations

import torch
from torch import nn

from compressor.prune.plan import count_macs, count_parameters, layer_macs


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.depthwise(self.conv(x)).mean((2, 3))
        return self.head(y), y


def test_counts_as_by_hand() -> None:
    """Convolution, depthwise convolution and linear layer agree with the formula."""
    expected = {"conv": 8 * 8 * 4 * 3 * 9, "depthwise": 8 * 8 * 4 * 9, "head": 80}
    assert layer_macs(_Net(), 3, 16, 8) == expected
    assert count_macs(_Net(), 3, 16, 8) == sum(expected.values())
    assert count_parameters(_Net()) == 8 * 27 + 8 + 72 + 8 + 80 + 10


def test_counting_leaves_no_trace() -> None:
    """The network stays in training mode and keeps no hooks."""
    network = _Net().train()
    count_macs(network, 3, 16, 8)
    assert network.training
    assert not network.conv._forward_hooks
