"""Bias correction takes the mean error of rounded weights out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from compressor.errors import QuantizeError
from compressor.qat.correction import correct_biases
from compressor.qat.fake_quantize import Grid, on_grid
from compressor.qat.graph import fold, layers, trace, weight_of

COARSE = Grid(per_channel=False)


def _rounded(network: nn.Module) -> nn.Module:
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for layer in layers(trace(rounded)):
            weight_of(rounded, layer).copy_(on_grid(weight_of(rounded, layer), COARSE))
    return rounded


@pytest.mark.parametrize("name", ["ds_cnn", "mobilenet_v2"])
def test_rounded_weights_give_the_float_mean_again(
    name: str, uneven: Callable[[str], nn.Module], probe: Callable[[str], np.ndarray]
) -> None:
    """Per-tensor weights shift the mean logits; after correction they have the float network's mean."""
    network, x = uneven(name), torch.from_numpy(probe(name))
    fold(network)
    with torch.no_grad():
        wanted, plain = network(x)[0], _rounded(network)(x)[0]
        correct_biases(network, probe(name), COARSE)
        corrected = _rounded(network)(x)[0]
    assert (plain - wanted).mean(0).abs().max() > 1e-3
    assert torch.allclose(corrected.mean(0), wanted.mean(0), atol=1e-4)


def test_weights_stay_and_layers_without_bias_are_passed_by(probe: Callable[[str], np.ndarray]) -> None:
    """Only biases change; a convolution that has none is not counted."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    count, largest = correct_biases(network, probe("resnet8"), Grid())
    assert (count, largest > 0) == (1, True)
    changed = [key for key, value in network.state_dict().items() if not torch.equal(before[key], value)]
    assert changed == ["2.bias"]


def test_no_rows_are_an_error() -> None:
    """Without rows there is no mean."""
    with pytest.raises(QuantizeError, match="calibration rows"):
        correct_biases(nn.Sequential(nn.Linear(2, 2)), np.zeros((0, 2), np.float32), Grid())
