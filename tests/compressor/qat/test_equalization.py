"""Equalization keeps the float network and evens out its channels; inexact pairs are left alone or reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import QuantizeError
from compressor.qat.equalization import absorb, equalize, extremes, pairs, spread
from compressor.qat.graph import fold
from compressor.recipe.model import TrainRecipe
from compressor.steps._base import Applied, Bench, Rows
from compressor.steps.equalize import Settings, apply

Make = Callable[[str], nn.Module]
Probe = Callable[[str], np.ndarray]


def _apply(network: nn.Module, inputs: np.ndarray, **settings: object) -> Applied:
    rows = Rows(inputs, np.zeros(len(inputs), np.int64))
    return apply(
        network, Bench(train=rows, calibration=rows, search=rows, settings=TrainRecipe()), Settings(**settings)
    )  # type: ignore[arg-type]


def _clipping() -> nn.Sequential:
    """Two convolutions around a ReLU6 that clips channel 0 and not channel 1."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU6(), nn.Conv2d(2, 1, 1)).eval()
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([10.0, 0.1]).reshape(2, 1, 1, 1))
        network[0].bias.zero_()
    return network


@pytest.mark.parametrize(("name", "relu6"), [("resnet8", "exact"), ("ds_cnn", "exact"), ("mobilenet_v2", "exact")])
def test_float_outputs_stay_for_any_input(name: str, relu6: str, uneven: Make, probe: Probe) -> None:
    """Logits move by less than 1e-4, for calibration rows and for others far outside their range."""
    network = uneven(name)
    unseen = torch.from_numpy(3 * probe(name)[::-1].copy() + 1)
    with torch.no_grad():
        before = network(unseen)[0]
        applied = _apply(network, probe(name), relu6=relu6, bias_correction=False)
        assert torch.allclose(network(unseen)[0], before, atol=1e-4)
    assert applied.notes["channel_spread"] < applied.notes["channel_spread_before"]


def test_evens_out_depthwise_layers(uneven: Make, probe: Probe) -> None:
    """In DS-CNN all nine layers make eight pairs, and their channels come near one another."""
    applied = _apply(uneven("ds_cnn"), probe("ds_cnn"), bias_correction=False)
    assert applied.notes["pairs"] == 8
    assert applied.notes["channel_spread"] < 0.7 * applied.notes["channel_spread_before"]


def test_relu6_is_left_alone_because_scaling_moves_its_clip() -> None:
    """By default a pair around ReLU6 is not scaled; scaling it as if it were ReLU would change the output."""
    network, x = _clipping(), torch.linspace(-1, 1, 12).reshape(3, 1, 2, 2)
    before = network(x)
    applied = _apply(network, x.numpy(), bias_correction=False)
    assert (applied.notes["pairs"], applied.notes["pairs_left_for_relu6"]) == (0, 1)
    assert torch.equal(network(x), before)
    equalize(network, pairs(network), largest={"_0": torch.tensor([1.0, 0.1])})  # not true: channel 0 reaches 10
    assert not torch.allclose(network(x), before, atol=1e-2)


def test_within_clip_keeps_calibration_rows(uneven: Make, probe: Probe) -> None:
    """MobileNetV2's ReLU6 pairs are scaled as far as calibration rows stay below the clip; these are unchanged."""
    network, x = uneven("mobilenet_v2"), torch.from_numpy(probe("mobilenet_v2"))
    with torch.no_grad():
        before = network(x)[0]
        applied = _apply(network, probe("mobilenet_v2"), relu6="within_clip", bias_correction=False)
        assert torch.allclose(network(x)[0], before, atol=1e-4)
    assert applied.notes["pairs"] > 30
    assert applied.notes["channel_spread"] < 0.9 * applied.notes["channel_spread_before"]


def test_within_clip_does_not_move_a_channel_that_clips() -> None:
    """Channel 0 reaches 6 and stays; channel 1 never does and is scaled."""
    network = _clipping()
    weight = network[0].weight.detach().clone()
    _apply(network, np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 1, 2, 2), relu6="within_clip")
    assert torch.equal(network[0].weight[0], weight[0])
    assert not torch.equal(network[0].weight[1], weight[1])


def test_a_layer_that_others_read_is_in_no_pair(uneven: Make) -> None:
    """ResNet8 has one pair per block; stems and outputs of additions are read twice."""
    network = uneven("resnet8")
    fold(network)
    assert [pair.first.target for pair in pairs(network)] == [f"blocks.{i}.first" for i in range(3)]


def test_absorbing_keeps_outputs_and_lowers_biases() -> None:
    """A channel that is never below 1 loses that to the next layer; padding forbids it."""
    first, x = nn.Conv2d(1, 2, 1), torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.copy_(torch.tensor([5.0, -5.0]))
    for second, moved in (
        (nn.Conv2d(2, 3, 1), 1),
        (nn.Conv2d(2, 2, 1, groups=2), 1),
        (nn.Conv2d(2, 3, 3, padding=1), 0),
    ):
        network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), second).eval()
        network[0].load_state_dict(first.state_dict())
        before, among = network(x), pairs(network)
        assert absorb(network, among, extremes(network, among, x.numpy())[0]) == moved
        assert torch.allclose(network(x), before, atol=1e-5)


def test_spread_of_no_pairs_is_even() -> None:
    """A network without pairs has nothing uneven."""
    assert spread(nn.Sequential(nn.Linear(2, 2)), ()) == 1.0


def test_no_calibration_rows_are_an_error(uneven: Make, probe: Probe) -> None:
    """Without rows there is nothing to measure by."""
    with pytest.raises(QuantizeError, match="calibration rows"):
        _apply(uneven("resnet8"), probe("resnet8")[:0])
