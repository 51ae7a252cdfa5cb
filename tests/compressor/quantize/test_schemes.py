"""Every scheme in the folder: same inputs and outputs, same bytes again, coded errors."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from compressor import networks
from compressor.errors import QuantizeError
from compressor.export.onnx import OUTPUT_NAMES, export_onnx
from compressor.quantize import quantize, schemes
from compressor.steps.quantize import Settings

SHAPE = (1, 12, 12)
REFUSING = {"dynamic_int8", "static_int8_16"}


@functools.cache
def _network() -> bytes:
    return export_onnx(networks.build("ds_cnn", 5, *SHAPE, {"filters": 32}), *SHAPE)


def _perceptron(largest: float = 1.0) -> bytes:
    """Return two dense layers of 64 as ONNX, whose largest weight is ``largest``."""
    first, second = np.random.default_rng(0).standard_normal((2, 64, 64)).astype(np.float32) / 8
    first[0, 0] = largest
    nodes = [
        onnx.helper.make_node("Gemm", ["input", "w1", "b1"], ["h"], name="first", transB=1),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("MatMul", ["r", "w2"], ["logits"]),
    ]
    given, made = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 64]) for name in ("input", "logits")
    )
    constants = {"w1": first, "b1": np.ones(64, np.float32), "w2": second}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "g", [given], [made], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]).SerializeToString()


def _inputs(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((32, *shape)).astype(np.float32)


def _batches() -> Iterator[np.ndarray]:
    yield from np.array_split(_inputs(), 2)


def _run(model: bytes, inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"input": inputs})


@pytest.mark.parametrize("scheme", sorted(set(schemes()) - REFUSING))
def test_a_scheme_keeps_outputs_near_and_repeats_its_bytes(scheme: str) -> None:
    """Whatever the scheme, the outputs keep names, type and meaning, and the bytes are the same again."""
    settings = Settings(scheme=scheme)
    artifact = quantize(_network(), _batches, settings)
    assert quantize(_network(), _batches, settings) == artifact
    assert [info.name for info in onnx.load_from_string(artifact).graph.output] == list(OUTPUT_NAMES)
    for want, got in zip(_run(_network(), _inputs()), _run(artifact, _inputs()), strict=True):
        assert got.dtype == np.float32
        assert np.corrcoef(want.ravel(), got.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("scheme", schemes())
@pytest.mark.parametrize("model", [b"", b"not a model"])
def test_what_is_no_model_is_a_coded_error(scheme: str, model: bytes) -> None:
    """Foreign bytes end in a QuantizeError in every scheme."""
    with pytest.raises(QuantizeError):
        quantize(model, _batches, Settings(scheme=scheme))


def test_parts_are_no_schemes() -> None:
    """The helpers of schemes are not offered as schemes."""
    assert set(schemes()) >= {"static_int8", "weight_int8", "float16", "dynamic_int8", "static_int8_16", "none"}
    assert not [name for name in schemes() if name.startswith("_")]


def test_none_is_the_float_model_itself() -> None:
    """The float candidate equals the exported file, byte for byte."""
    assert quantize(_network(), _batches, Settings(scheme="none")) == _network()


@pytest.mark.parametrize(("scheme", "share"), [("float16", 0.55), ("weight_int8", 0.4)])
def test_stored_weights_are_smaller_and_widened_at_load(scheme: str, share: float, tmp_path: object) -> None:
    """The file shrinks, and after onnxruntime's optimiser nothing is left that widens weights at each inference."""
    artifact = quantize(_perceptron(), _batches, Settings(scheme=scheme))
    assert len(artifact) < share * len(_perceptron())
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/o.onnx"
    onnxruntime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(f"{tmp_path}/o.onnx").graph.node}
    assert not left & {"Cast", "Mul", "DequantizeLinear"}


def test_weight_int8_is_exact_to_half_a_step_of_each_channel() -> None:
    """Each weight is within half of its channel's step, and one scale for all is coarser than one for each."""
    inputs = np.eye(64, dtype=np.float32)
    want = _run(_perceptron(9.0), inputs)[0]
    settings = Settings(scheme="weight_int8")
    errors = [
        float(np.abs(_run(quantize(_perceptron(9.0), _batches, asked), inputs)[0] - want).mean())
        for asked in (settings, replace(settings, per_channel=False))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_weight_int8_leaves_a_named_layer_float() -> None:
    """The weights of a float layer stay float32."""
    artifact = quantize(_perceptron(), _batches, Settings(scheme="weight_int8", float_layers=("first",)))
    kinds = [tensor.data_type for tensor in onnx.load_from_string(artifact).graph.initializer if len(tensor.dims) == 2]
    assert sorted(kinds) == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT, onnx.TensorProto.INT8]


def test_float16_refuses_what_overflows() -> None:
    """A weight beyond 65504 would become infinite."""
    with pytest.raises(QuantizeError, match="w1"):
        quantize(_perceptron(1e5), _batches, Settings(scheme="float16"))


def test_dynamic_is_for_products_and_runs_in_integers() -> None:
    """Dense layers become integer products near the float ones."""
    artifact = quantize(_perceptron(), _batches, Settings(scheme="dynamic_int8"))
    assert "MatMulInteger" in {node.op_type for node in onnx.load_from_string(artifact).graph.node}
    want, got = _run(_perceptron(), _inputs((64,)))[0], _run(artifact, _inputs((64,)))[0]
    assert np.corrcoef(want.ravel(), got.ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("scheme", "said"), [("dynamic_int8", "convolutions"), ("static_int8_16", "litert")])
def test_schemes_that_would_harm_a_convolutional_onnx_refuse_it(scheme: str, said: str) -> None:
    """The refusal has the reason and an alternative."""
    with pytest.raises(QuantizeError, match=said):
        quantize(_network(), _batches, Settings(scheme=scheme))


def test_schemes_import_without_torch() -> None:
    """Quantizing needs no torch in the process: 200 MB less."""
    names = [f"compressor.quantize.{name}" for name in (*schemes(), "_remedies", "_qdq")]
    code = f"import sys, {', '.join(names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
