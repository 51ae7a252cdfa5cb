"""A step that changed nothing of what it is for is an error unless the recipe allows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor import left_float, steps
from compressor.errors import QuantizeError, StepDidNothingError
from compressor.recipe import TrainRecipe
from compressor.steps import distill, equalize, sparsify
from compressor.steps.base import Bench, Rows
from compressor.steps.quantize import Settings

ROWS = Rows(np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32), np.arange(64) % 3)


class Tiny(nn.Module):
    """One linear layer without bias: nothing to equalize or to correct."""

    def __init__(self) -> None:
        """Make the layer."""
        super().__init__()
        self.head = nn.Linear(64, 3, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, embedding)."""
        flat = x.flatten(1)
        return self.head(flat), flat


def bench() -> Bench:
    """Return a bench with a teacher of other weights."""
    return Bench(ROWS, ROWS, ROWS, TrainRecipe(epochs=1, batch=16, augment=0.0), Tiny().eval())


def zeroed() -> Tiny:
    """Return a network whose weights are three quarters zeros already."""
    network = Tiny()
    with torch.no_grad():
        network.head.weight[:, 16:] = 0
    return network


NOTHING = [
    (distill.Settings(epochs=1, weight=0.0, feature_weight=0.0), Tiny, "the teacher counts for nothing"),
    (equalize.Settings(), Tiny, "no pairs"),
    (sparsify.Settings(sparsity=0.25, rounds=1, fine_tune_epochs=0), zeroed, "no weight became zero"),
]


@pytest.mark.parametrize(("settings", "network", "why"), NOTHING, ids=lambda value: getattr(value, "step", ""))
def test_a_step_that_did_nothing_is_an_error_unless_allowed(
    settings: steps.Settings, network: type[Tiny], why: str
) -> None:
    """The line says why; ``allow_unchanged`` lets it pass."""
    with pytest.raises(StepDidNothingError, match=f"{why}.*allow_unchanged = true"):
        steps.apply(network(), bench(), settings)
    steps.apply(network(), bench(), replace(settings, allow_unchanged=True))  # type: ignore[type-var]


def test_a_step_that_did_something_passes() -> None:
    """One weight more is zero."""
    steps.apply(zeroed(), bench(), sparsify.Settings(sparsity=0.8, rounds=1, fine_tune_epochs=0))
    steps.apply(Tiny(), bench(), distill.Settings(epochs=1, weight=0.1))


def model(floats: int, integers: int) -> bytes:
    """Return a file with so many float32 weights, and int8 ones, and a bias that does not count."""
    weights = [
        numpy_helper.from_array(np.zeros((2, floats // 2), np.float32), "plain"),
        numpy_helper.from_array(np.zeros((2, integers // 2), np.int8), "whole"),
        numpy_helper.from_array(np.zeros(1000, np.float32), "bias"),
    ]
    nodes = [helper.make_node("LSTM", ["x", "plain", "whole"], ["y"])]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], [one for one in weights if min(one.dims)])
    made: bytes = helper.make_model(graph).SerializeToString()
    return made


@pytest.mark.parametrize(("floats", "integers", "ratio"), [(0, 8, 0.0), (4, 4, 0.5), (6, 4, 0.6), (8, 0, 1.0)])
def test_the_share_left_float_is_of_weights_alone(floats: int, integers: int, ratio: float) -> None:
    """More than half fails unless asked for; half is said."""
    made = model(floats, integers)
    assert left_float.left_float(made, "onnx").ratio == pytest.approx(ratio)
    if ratio > left_float.MOST_LEFT:
        with pytest.raises(QuantizeError, match=r"'plain' of LSTM.*allow_unquantized = true"):
            left_float.check(made, "onnx", Settings())
        for asked in (Settings(allow_unquantized=True), Settings(float_layers=("a",)), Settings(float_layers_auto=1)):
            assert "left float32" in left_float.check(made, "onnx", asked)
    else:
        assert bool(left_float.check(made, "onnx", Settings())) == (ratio > 0)


def test_a_file_without_weights_has_nothing_quantized() -> None:
    """The scheme ``none`` promises nothing and is not asked."""
    assert left_float.left_float(model(0, 0), "onnx").ratio == 1.0
    assert left_float.check(model(0, 0), "onnx", Settings(scheme="none")) == ""
    with pytest.raises(QuantizeError, match="Expected an ONNX model"):
        left_float.left_float(b"no model", "onnx")
    assert onnx.load_from_string(model(4, 4)).graph.node[0].op_type == "LSTM"
