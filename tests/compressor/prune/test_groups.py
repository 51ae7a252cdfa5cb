"""The dependency graph groups the channels that must be pruned together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import networks
from compressor.errors import PruneError
from compressor.prune.groups import find_groups, narrow, output_layer
from tests.compressor.networks.kinds import CLASSIFIERS

SHAPE = (1, 16, 16)


class _Joined(nn.Module):
    """Two branches, concatenated; then a flattened map, whose every channel is 4 inputs of a linear layer."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)
        self.middle, self.last, self.head = middle, nn.Conv2d(24, 16, 1), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.last(self.middle(torch.cat([self.left(x), self.right(x)], 1)))
        y = nn.functional.adaptive_avg_pool2d(y, 2).flatten(1)
        return self.head(y), y


def test_a_concatenation_narrows_by_branch() -> None:
    """Channels of one branch, and of a flattened map, go from the right inputs of the next layer."""
    network = narrow(_Joined(nn.Identity()), SHAPE, {"right": [0, 3], "last": [1]})
    assert network.get_parameter("last.weight").shape == (15, 22, 1, 1)
    assert network.get_parameter("head.weight").shape == (10, 60)
    assert network(torch.zeros(2, *SHAPE))[0].shape == (2, 10)


def test_grouped_convolutions_lose_whole_groups() -> None:
    """A grouped convolution that is not depthwise goes by groups, with what feeds it, also across a concatenation."""
    grouped = _Joined(nn.Conv2d(24, 24, 3, padding=1, groups=4))
    group = next(group for group in find_groups(grouped, SHAPE).groups if group.root == "middle")
    assert (set(group.layers), group.block) == ({"left", "right", "middle"}, 6)
    network = narrow(grouped, SHAPE, {"middle": range(12, 18)})  # the last 4 of the left branch, 2 of the right
    assert network.get_parameter("left.weight").shape[0] == 12
    assert network.get_parameter("right.weight").shape[0] == 6
    assert network.get_parameter("middle.weight").shape == (18, 6, 3, 3)
    assert network(torch.zeros(2, *SHAPE))[0].shape == (2, 10)


def test_zero_channels_leave_the_outputs_as_they_are() -> None:
    """A channel that carries nothing can go from a residual group without a trace in the logits."""
    network = networks.build("resnet8", 10, *SHAPE)
    for name in ("stem_norm", "blocks.0.second_norm"):
        nn.init.zeros_(network.get_parameter(f"{name}.weight")[:4].detach())
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    before = network(x)[0]
    after = narrow(network, SHAPE, {"stem": [0, 1, 2, 3]})(x)[0]
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classes_are_never_pruned(name: str) -> None:
    """The output layer is found by its output, and is in no group."""
    network = networks.build(name, 10, *SHAPE)
    assert output_layer(network, SHAPE) == "head"
    assert all("head" not in group.layers for group in find_groups(network, SHAPE).groups)


def test_the_last_channel_stays() -> None:
    """Taking all channels of a layer is a coded error."""
    with pytest.raises(PruneError, match="keep a channel"):
        narrow(_Joined(nn.Identity()), SHAPE, {"right": list(range(8))})


def test_protected_layers_are_in_no_group() -> None:
    """If all layers are protected, no group is left, and none is called faulty."""
    found = find_groups(_Joined(nn.Identity()), SHAPE, ("left", "right", "last"))
    assert (found.groups, found.reasons()) == ((), "")
