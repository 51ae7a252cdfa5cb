"""The int8 model: close to the float one, fused, repeatable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from compressor import networks
from compressor.errors import QuantizeError
from compressor.export.onnx import OUTPUT_NAMES, export_onnx
from compressor.quantize import quantize
from compressor.steps.quantize import Settings as QuantizeRecipe
from tests.compressor.networks.kinds import CLASSIFIERS

SHAPE = (3, 32, 20)


def _inputs() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((64, *SHAPE)).astype(np.float32)


def _batches() -> Iterator[np.ndarray]:
    yield from np.array_split(_inputs(), 4)


@pytest.fixture(scope="module", params=CLASSIFIERS)
def models(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    """Float and int8 of every classifier in the folder."""
    model = export_onnx(networks.build(request.param, 10, *SHAPE), *SHAPE)
    return model, quantize(model, _batches, QuantizeRecipe())


def _operators(model: bytes, path: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.slow
def test_every_convolution_runs_in_int8(models: tuple[bytes, bytes], tmp_path: Path) -> None:
    """After onnxruntime's optimiser no float Conv is left, and Q/DQ only at the ends and around hard-swish."""
    found = _operators(models[1], tmp_path / "o.onnx")
    floats = Counter(node.op_type for node in onnx.load_from_string(models[0]).graph.node)
    assert found["QLinearConv"] == floats["Conv"]
    assert found["Conv"] == found["Gemm"] == 0
    if floats["HardSigmoid"] + floats["HardSwish"]:  # no integer kernel: why MobileNetV3 is slow in int8
        assert found["QuantizeLinear"] > 1
        return
    assert found["QuantizeLinear"] == 1
    assert found["DequantizeLinear"] == len(OUTPUT_NAMES)


def test_outputs_stay_float_and_near_the_float_model(models: tuple[bytes, bytes]) -> None:
    """Logits and embedding are float32 with their names and correlate with the float model's."""
    sessions = [onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]) for model in models]
    float_outputs, int8_outputs = (session.run(list(OUTPUT_NAMES), {"input": _inputs()}) for session in sessions)
    for want, got in zip(float_outputs, int8_outputs, strict=True):
        assert got.dtype == np.float32
        assert np.corrcoef(want.ravel(), got.ravel())[0, 1] > 0.97


def test_is_smaller_and_the_same_bytes_again(models: tuple[bytes, bytes]) -> None:
    """The int8 file is well below the float file, and repeatable."""
    assert len(models[1]) < 0.6 * len(models[0])
    assert quantize(models[0], _batches, QuantizeRecipe()) == models[1]


def test_weights_are_s8_per_channel_and_seven_bits_wide_when_asked() -> None:
    """``reduce_range`` keeps weights within 64 steps; scales are one per output channel."""
    model = export_onnx(networks.build("resnet8", 10, *SHAPE), *SHAPE)
    for reduce_range, limit in ((False, 127), (True, 64)):
        quantized = onnx.load_from_string(quantize(model, _batches, QuantizeRecipe(reduce_range=reduce_range)))
        tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
        weights = [array for array in tensors.values() if array.dtype == np.int8 and array.ndim == 4]
        assert max(int(np.abs(array.astype(int)).max()) for array in weights) <= limit
        assert sum(array.ndim == 1 and array.dtype == np.float32 and len(array) > 1 for array in tensors.values()) >= 9


@pytest.mark.parametrize("model", [b"", b"not a model"])
def test_what_is_no_model_is_a_coded_error(model: bytes) -> None:
    """Foreign bytes end in a QuantizeError."""
    with pytest.raises(QuantizeError):
        quantize(model, _batches, QuantizeRecipe())


def test_what_onnxruntime_cannot_quantize_is_said_with_what_to_do() -> None:
    """A bias with an axis of one, as several exporters write it, ends its quantizer in an error about arrays."""
    model = onnx.load_from_string(export_onnx(networks.build("resnet8", 10, *SHAPE), *SHAPE))
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == gemm.input[2])
    bias.dims[:] = [1, *bias.dims]
    with pytest.raises(QuantizeError, match=r"per_channel = false, or take weight_int8 .* compress = \[\]"):
        quantize(model.SerializeToString(), _batches, QuantizeRecipe(per_channel=True))
