"""A step without any effect on its subject is an error unless the recipe allows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor import networks, steps
from compressor.errors import PruneError, QuantizeError, StepDidNothingError
from compressor.measurement import left_float
from compressor.prune.settings import PruneSettings, SparsifySettings
from compressor.recipe.model import TrainRecipe
from compressor.steps import distill, equalize, qat
from compressor.steps._base import Bench, Rows
from compressor.steps._settings import Settings as StepSettings
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
    return Bench(
        train=ROWS,
        calibration=ROWS,
        search=ROWS,
        settings=TrainRecipe(epochs=1, batch=16, augment=0.0),
        teacher=Tiny().eval(),
    )


def zeroed() -> Tiny:
    """Return a network whose weights are three quarters zeros already."""
    network = Tiny()
    with torch.no_grad():
        network.head.weight[:, 16:] = 0
    return network


NOTHING = [
    (distill.Settings(epochs=1, weight=0.0, feature_weight=0.0), Tiny, "the teacher counts for nothing"),
    (equalize.Settings(), Tiny, "no pairs"),
    (SparsifySettings(sparsity=0.25, rounds=1, fine_tune_epochs=0), zeroed, "no weight became zero"),
]


@pytest.mark.parametrize(("settings", "network", "why"), NOTHING, ids=lambda value: getattr(value, "step", ""))
def test_a_step_that_did_nothing_is_an_error_unless_allowed(
    settings: StepSettings, network: type[Tiny], why: str
) -> None:
    """The line gives the reason; with ``allow_unchanged`` it passes."""
    with pytest.raises(StepDidNothingError, match=f"{why}.*allow_unchanged = true"):
        steps.apply(network(), bench(), settings)
    steps.apply(network(), bench(), replace(settings, allow_unchanged=True))  # type: ignore[type-var]


def conv() -> nn.Module:
    """Return a network whose channels are so few that a multiple of 1,024 keeps them all."""
    return networks.build("resnet8", 3, 1, 8, 8, {"filters": 4, "stem_stride": 2}).eval()


def test_a_pruning_that_removed_no_channel_is_an_error_unless_allowed() -> None:
    """By a latency that can't be reached; a share of MACs out of reach is an error of its own."""
    settings = PruneSettings(rounds=1, fine_tune_epochs=0, round_to=1024, latency_ratio=0.9)
    at = replace(bench(), teacher=conv())
    with pytest.raises(StepDidNothingError, match=r"'prune'.*no channel was removed.*allow_unchanged = true"):
        steps.apply(conv(), at, settings)
    allowed = steps.apply(conv(), at, replace(settings, allow_unchanged=True))
    assert allowed.notes["macs_ratio"] == 1
    with pytest.raises(PruneError, match="at the narrowest allowed"):
        steps.apply(conv(), at, replace(settings, latency_ratio=0.0))


def test_a_qat_that_keeps_its_start_is_an_error_unless_allowed() -> None:
    """The training contradicts the evaluation, so that every step makes it worse."""
    settings = qat.Settings(epochs=1, learning_rate=0.1, distill=0.0)
    with pytest.raises(StepDidNothingError, match=r"'qat'.*scored better on search rows than the start.*allow_unch"):
        steps.apply(learnt(), easy(), settings)
    kept = steps.apply(learnt(), easy(), replace(settings, allow_unchanged=True))
    assert kept.notes["best_epoch"] == 0


def easy() -> Bench:
    """Return a bench that teaches other labels than those by which ``learnt`` has no fault."""
    labels = np.arange(64) % 3
    inputs = np.zeros((64, 1, 8, 8), np.float32)
    inputs[np.arange(64), 0, labels, 0] = 1
    rows = Rows(inputs, labels)
    settings = TrainRecipe(epochs=1, batch=16, augment=0.0, label_smoothing=0.0)
    return Bench(
        train=Rows(inputs, (labels + 1) % 3), calibration=rows, search=rows, settings=settings, teacher=Tiny().eval()
    )


def learnt() -> Tiny:
    """Return a network that reads the class off the pixel that is lit."""
    network = Tiny()
    with torch.no_grad():
        network.head.weight.zero_()
        for label in range(3):
            network.head.weight[label, 8 * label] = 16
    return network.eval()


def test_a_step_that_did_something_passes() -> None:
    """One weight more is zero."""
    steps.apply(zeroed(), bench(), SparsifySettings(sparsity=0.8, rounds=1, fine_tune_epochs=0))
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
    """More than half fails unless allowed; half is reported."""
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
    """The scheme ``none`` promises nothing and is not checked."""
    assert left_float.left_float(model(0, 0), "onnx").ratio == 1.0
    assert left_float.check(model(0, 0), "onnx", Settings(scheme="none")) == ""
    with pytest.raises(QuantizeError, match="Expected an ONNX model"):
        left_float.left_float(b"no model", "onnx")
    assert onnx.load_from_string(model(4, 4)).graph.node[0].op_type == "LSTM"
