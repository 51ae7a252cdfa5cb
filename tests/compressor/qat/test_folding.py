"""Folding changes no output, no key and no class."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.export.onnx import export_onnx
from compressor.qat.graph import bias_of, fold, weight_of

NAMES = ["resnet8", "ds_cnn", "mobilenet_v2"]
Make = Callable[[str], nn.Module]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_keys_and_classes_stay(name: str, uneven: Make, probe: Callable[[str], np.ndarray]) -> None:
    """Logits, embedding and structure are unchanged."""
    network, x = uneven(name), torch.from_numpy(probe(name))
    keys, classes = list(network.state_dict()), [type(module) for module in network.modules()]
    with torch.no_grad():
        before = network(x)
        fold(network)
        after = network(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))
    assert list(network.state_dict()) == keys
    assert [type(module) for module in network.modules()] == classes


@pytest.mark.parametrize("name", NAMES)
def test_norms_become_identities_that_keep_the_bias(name: str, uneven: Make) -> None:
    """A folded norm adds its bias and does nothing else."""
    network = uneven(name)
    found = [layer for layer in fold(network) if layer.norm]
    norms = [network.get_submodule(layer.norm) for layer in found]
    assert len(norms) == sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    x = torch.randn(3, len(norms[0].bias), 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(norms[0](x), x + norms[0].bias.reshape(1, -1, 1, 1))


def test_folding_twice_changes_nothing(uneven: Make) -> None:
    """A network that is folded already stays bit for bit."""
    network = uneven("resnet8")
    fold(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fold(network)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_the_export_has_the_folded_weights(uneven: Make) -> None:
    """The usual export writes the network's own weights for each layer, bit for bit."""
    network = uneven("resnet8")
    found = fold(network)
    model = onnx.load_from_string(export_onnx(network, 1, 12, 12))
    exported = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    for layer in found:
        weight = weight_of(network, layer).detach().numpy()
        assert any(np.array_equal(weight, array) for array in exported), layer.target


def test_a_bias_of_the_layer_moves_into_the_norm() -> None:
    """A convolution that has both loses its own bias to the norm, which is then where the bias is."""
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).eval()
    network[1].running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    before = network(x)
    (layer,) = fold(network)
    assert torch.allclose(network(x), before, atol=1e-6)
    assert not network[0].bias.any()
    assert bias_of(network, layer) is network[1].bias


def test_a_norm_after_a_layer_that_others_read_is_left_alone() -> None:
    """Folding into a convolution whose output is used elsewhere too would change that use."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    assert [layer.norm for layer in fold(Branching())] == [""]
