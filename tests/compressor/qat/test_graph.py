"""The tensors that int8 back-ends quantize, found in the traced graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from compressor.errors import QuantizeError
from compressor.qat.graph import fold, layers, points, trace
from compressor.qat.simulation import float_nodes


class _Functional(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, torch.ones(2, 4))


class _Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.t()


class _Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, x.transpose(1, 2))


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


class _Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_quantizes_after_the_relu_and_before_an_addition(uneven: Callable[[str], nn.Module]) -> None:
    """ResNet8: the input, every ReLU, norms that an addition reads, shortcuts, the mean and the logits."""
    network = uneven("resnet8")
    fold(network)
    traced = trace(network)
    found = {point.node for point in points(traced, float_nodes(traced, torch.zeros(1, 1, 12, 12).numpy()))}
    relus = {"relu", *(f"relu_{i}" for i in range(1, 7))}
    norms = {f"blocks_{i}_second_norm" for i in range(3)} | {"blocks_1_shortcut", "blocks_2_shortcut"}
    assert found == {"x", "adaptive_avg_pool2d", "head"} | relus | norms


def test_ranges_after_relu6_are_bounded_and_hardswish_is_not_fused() -> None:
    """ReLU6 makes one tensor with a ceiling; a hard swish reads a tensor that is quantized too."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU6(), nn.Conv2d(2, 2, 1), nn.Hardswish()).eval()
    traced = trace(network)
    found = points(traced, float_nodes(traced, torch.zeros(1, 1, 2, 2).numpy()))
    assert [(point.positive, point.ceiling) for point in found][1:] == [
        (True, 6.0),
        (False, float("inf")),
        (False, float("inf")),
    ]


@pytest.mark.parametrize(
    ("network", "said"),
    [(_Functional(), "weights in"), (_Product(), "weights in"), (_Twice(), "run once")],
)
def test_weights_that_can_not_be_simulated_are_refused(network: nn.Module, said: str) -> None:
    """A functional layer and a layer that runs twice are named, with the next step."""
    with pytest.raises(QuantizeError, match=said):
        layers(trace(network))


def test_a_product_of_two_activations_is_quantized_like_any_other_output() -> None:
    """Attention has no weights there: its scores have a range of their own."""
    traced = trace(_Attention())
    assert layers(traced) == ()
    assert [point.node for point in points(traced, float_nodes(traced, torch.zeros(1, 2, 3).numpy()))] == [
        "x",
        "matmul",
    ]


def test_control_flow_by_value_is_refused() -> None:
    """A network that torch.fx can't trace raises an error."""
    with pytest.raises(QuantizeError, match="can trace"):
        trace(_Branch())
