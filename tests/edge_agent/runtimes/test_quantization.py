"""The integer contract of runtimes: formulas, then onnxruntime and the memory runtime under it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent import runtimes
from edge_agent.errors import InputShapeError, RuntimeLoadError
from edge_agent.runtimes import memory
from edge_agent.runtimes._base import check_contract, dequantize, is_decoded, is_quantized, quantize, real_output
from wire.manifest import Manifest, TensorSpec

INT8 = TensorSpec(name="x", shape=(-1, 3), dtype="int8", scale=0.5, zero_point=-1)
UINT8 = TensorSpec(name="logits", shape=(-1, 3), dtype="uint8", scale=0.25, zero_point=128)
MANIFEST = Manifest(model="m", version=1, runtime="onnx", inputs=(INT8,), outputs=(UINT8,))


def _int8_onnx() -> bytes:
    """Return a model with input ``INT8`` and output ``UINT8`` that negates."""
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s", "z"], ["real"]), helper.make_node("Neg", ["real"], ["minus"]),
        helper.make_node("QuantizeLinear", ["minus", "t", "u"], ["logits"]),
    ]  # fmt: skip
    values = {"s": np.float32(0.5), "z": np.int8(-1), "t": np.float32(0.25), "u": np.uint8(128)}
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    source = helper.make_tensor_value_info("x", TensorProto.INT8, ["N", 3])
    target = helper.make_tensor_value_info("logits", TensorProto.UINT8, ["N", 3])
    graph = helper.make_graph(nodes, "g", [source], [target], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def test_halves_go_to_the_even_integer_and_the_rest_saturates() -> None:
    """0.25 / 0.5 is a half and rounds to 0, 0.75 / 0.5 to 2; values out of range are clipped to the limit."""
    values = np.array([0.25, 0.75, -0.25, 0.0, 63.5, 64.5, 1e9, -1e9, np.inf, -np.inf], np.float32)
    got = quantize(values, INT8)
    assert got.dtype == np.int8
    assert got.tolist() == [-1, 1, -1, -1, 126, 127, 127, -128, 127, -128]


def test_nan_is_refused_because_no_integer_stands_for_it() -> None:
    """A broken sensor must not look like a number."""
    with pytest.raises(InputShapeError, match="got NaN: check the sensor"):
        quantize(np.array([np.nan], np.float32), INT8)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_every_integer_survives_the_way_to_real_numbers_and_back(dtype: str) -> None:
    """``quantize`` undoes ``dequantize`` for each value of the type; the reals are float32."""
    limits = np.iinfo(dtype)
    spec = TensorSpec(name="x", shape=(-1,), dtype=dtype, scale=0.0123, zero_point=limits.min + 7)
    values = np.arange(limits.min, limits.max + 1).astype(dtype)
    real = dequantize(values, spec)
    assert real.dtype == np.float32
    assert np.array_equal(quantize(real, spec), values)


def test_an_integer_without_a_scale_is_only_an_integer() -> None:
    """A class number or a raw picture is not turned into reals."""
    assert is_quantized(INT8)
    assert not is_quantized(replace(INT8, scale=0.0))
    assert not is_quantized(replace(INT8, dtype="float32"))
    assert not is_quantized(replace(INT8, dtype="int64"))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_probabilities_come_out_as_logits_whose_softmax_they_are(dtype: str) -> None:
    """A model that ends in a softmax is recognised; a probability of 0 gives a finite logit."""
    spec = TensorSpec(name="p", shape=(-1, 3), dtype=dtype, meaning="probability")
    spec = replace(spec, scale=1 / 256, zero_point=-128) if dtype == "int8" else spec
    shares = np.array([[0.75, 0.25, 0.0]], np.float32)
    logits = real_output(quantize(shares, spec) if dtype == "int8" else shares, spec)
    assert np.isfinite(logits).all()
    assert np.exp(logits) == pytest.approx(shares, abs=2e-6)
    assert is_decoded(spec)


@pytest.mark.parametrize("runtime", ["onnx", "memory"])
def test_real_numbers_go_in_and_come_out_of_an_integer_model(runtime: str) -> None:
    """float32 inputs and the integers for them give the same float32 outputs."""
    name = memory.register("negate", lambda x: (quantize(-dequantize(x, INT8), UINT8),))
    loaded = runtimes.load(replace(MANIFEST, runtime=runtime), _int8_onnx() if runtime == "onnx" else name)
    real = np.array([[0.5, -1.5, 3.0], [100.0, 0.26, 0.0]], np.float32)
    (got,) = loaded.run(real)
    assert got.dtype == np.float32
    assert np.array_equal(got, [[-0.5, 1.5, -3.0], [-32.0, -0.5, 0.0]])
    assert np.array_equal(loaded.run(quantize(real, INT8))[0], got)


@pytest.mark.parametrize("batch", [np.zeros((1, 3)), np.zeros((1, 3), np.uint8), np.zeros((1, 2), np.float32)])
def test_an_integer_model_refuses_other_types_and_shapes(batch: np.ndarray) -> None:
    """Its own type and float32 are named."""
    with pytest.raises(InputShapeError, match=r"Expected input 'x' as int8 or float32 \(-1, 3\), got"):
        runtimes.load(MANIFEST, _int8_onnx()).run(batch)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (replace(INT8, scale=-1.0),)}, {"inputs": (replace(INT8, scale=float("nan")),)},
        {"inputs": (replace(INT8, zero_point=128),)}, {"outputs": (replace(UINT8, zero_point=-1),)},
        {"outputs": (replace(UINT8, scale=float("inf")),)}, {"outputs": (replace(UINT8, dtype="float32"),)},
    ],
)  # fmt: skip
def test_a_scale_that_cannot_be_meant_is_refused(change: dict) -> None:
    """Negative, infinite, no number, a zero point outside of the type, or another output type."""
    with pytest.raises(RuntimeLoadError, match="Expected"):
        runtimes.load(replace(MANIFEST, **change), _int8_onnx())


def test_onnx_opens_the_ort_format(tmp_path: Path) -> None:
    """The same model saved as an ORT flatbuffer has the same outputs; truncated, it is refused."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(_int8_onnx(), options, providers=["CPUExecutionProvider"])
    artifact = (tmp_path / "model.ort").read_bytes()
    assert artifact[4:8] == b"ORTM"
    real = np.array([[0.5, -1.5, 3.0]], np.float32)
    got = runtimes.load(MANIFEST, artifact).run(real)[0]
    assert np.array_equal(got, runtimes.load(MANIFEST, _int8_onnx()).run(real)[0])
    with pytest.raises(RuntimeLoadError, match="Expected an ONNX model"):
        runtimes.load(MANIFEST, artifact[: len(artifact) // 2])


UNIT = TensorSpec(
    name="logits", shape=(-1, 2), dtype="int8", scale=0.1, zero_point=-3, mean=(300.0, -5.0), spread=(10.0, 0.5)
)


def test_values_come_back_in_the_unit_of_the_world() -> None:
    """Scale and zero point first, then spread and mean, column by column."""
    real = real_output(np.array([[-3, -3], [7, -13]], np.int8), UNIT)
    assert real.dtype == np.float32
    assert np.allclose(real, [[300, -5], [310, -5.5]])


def test_float_values_with_a_unit_are_turned_back_too() -> None:
    """A float file of a regression also outputs standardised values."""
    spec = replace(UNIT, dtype="float32", scale=0.0, zero_point=0)
    assert np.allclose(real_output(np.array([[1, 2]], np.float32), spec), [[310, -4]])
    assert is_decoded(spec)
    assert not is_decoded(replace(spec, mean=(), spread=()))


def test_a_runtime_gives_values_in_their_unit() -> None:
    """Through onnxruntime: integers of the file, degrees for the caller."""
    unit = {"mean": (100.0,) * 3, "spread": (2.0,) * 3}
    manifest = replace(MANIFEST, outputs=(replace(UINT8, **unit),))
    runtime = runtimes.load(manifest, _int8_onnx())
    (real,) = runtime.run(np.array([[1.0, -2.0, 0.0]], np.float32))
    assert np.allclose(real, [[98, 104, 100]])


@pytest.mark.parametrize(
    ("mean", "spread"),
    [
        ((1.0,), (1.0,)),
        ((1.0, 2.0), ()),
        ((), (1.0, 2.0)),
        ((1.0, 2.0), (1.0, 0.0)),
        ((1.0, 2.0), (1.0, -1.0)),
        ((1.0, float("nan")), (1.0, 1.0)),
    ],
)
def test_a_unit_that_can_not_be_meant_is_refused(mean: tuple[float, ...], spread: tuple[float, ...]) -> None:
    """One finite mean and one spread above 0 for every value, or no model."""
    with pytest.raises(RuntimeLoadError, match="a spread above 0 for each of 2 values"):
        check_contract(replace(UNIT, mean=mean, spread=spread))
