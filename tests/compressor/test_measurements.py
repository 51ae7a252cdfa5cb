"""Graph, parity, predictions and drifted samples on small things whose answer is known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.data._split import part, repeats
from compressor.data._table import Table, make_table
from compressor.errors import MeasureError, SplitError
from compressor.measurement.onnx_graph import GraphFigures, inspect
from compressor.measurement.parity import find, matrix
from compressor.measurement.predictions import Candidate, calibration_error, latency, peak_memory_bytes, predict
from wire.codec import encode
from wire.manifest import Manifest, TensorSpec


def _conv() -> bytes:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 3, 3, 3], np.ones(108, np.float32) / 108)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["logits"], "flat"),
    ]
    shapes = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "g", shapes, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def _candidate() -> Candidate:
    manifest = Manifest(
        inputs=(TensorSpec(name="input", shape=(-1, 3, 8, 8)),), outputs=(TensorSpec(name="logits", shape=(-1, 4)),)
    )
    return Candidate(manifest, _conv())


def test_a_float_convolution_counts_as_float() -> None:
    """6 x 6 outputs, 4 channels, 27 products each; none in int8."""
    figures = inspect(_conv(), {})
    assert (figures.macs, figures.int8_macs_ratio) == (6 * 6 * 4 * 27, 0.0)


def test_a_model_of_open_sizes_has_no_count_and_says_why() -> None:
    """Fixed sizes are counted; an open height and width can't be, but the operators are known."""
    model = onnx.load_from_string(_conv())
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    figures = inspect(model.SerializeToString(), {})
    assert (figures.macs, figures.int8_macs_ratio) == (None, None)
    assert figures.unknown.startswith("Expected known shapes at node")
    assert figures.operators.keys() & {"Conv", "FusedConv"}


def test_weights_that_are_inputs_too_keep_their_size() -> None:
    """Older exporters list initializers among the inputs: only the true input becomes one row."""
    model = onnx.load_from_string(_conv())
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3, 3, 3]))
    assert inspect(model.SerializeToString(), {}).macs == 6 * 6 * 4 * 27


def _dynamic() -> bytes:
    """A product of dynamically quantized inputs with s8 weights, as onnxruntime's ``quantize_dynamic`` writes it."""
    weight = numpy_helper.from_array(np.arange(-6, 6, dtype=np.int8).reshape(4, 3), "w")
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["input"], ["q", "scale", "zero"], "quantize"),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["sums"], "product"),
        helper.make_node("Cast", ["sums"], ["cast"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["logits"], "rescale"),
    ]
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 4])]
    made = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])]
    graph = helper.make_graph(nodes, "g", given, made, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def test_integer_operators_in_the_file_count_as_int8() -> None:
    """A dynamically quantized model has no float operator that could be traced."""
    figures = inspect(_dynamic(), {})
    assert (figures.macs, figures.int8_macs_ratio) == (12, 1.0)


def test_dynamic_ranges_are_those_of_one_row_as_on_the_device() -> None:
    """A large neighbour in the batch would coarsen the grid of the small row."""
    manifest = Manifest(
        inputs=(TensorSpec(name="input", shape=(-1, 4)),), outputs=(TensorSpec(name="logits", shape=(-1, 3)),)
    )
    rows = np.array([[0.1, 0.2, 0.3, 0.4], [100, 200, 300, 400]], np.float32)
    together = predict(Candidate(manifest, _dynamic()), rows).logits
    assert np.allclose(together[0], rows[0] @ np.arange(-6, 6).reshape(4, 3), atol=0.02)


def _recurrent() -> bytes:
    """An LSTM of 5 units over 7 steps of 3 numbers, and a head of 2 outputs."""
    weights = [
        numpy_helper.from_array(np.zeros(shape, np.float32), name)
        for name, shape in {"w": (1, 20, 3), "r": (1, 20, 5), "h": (5, 2)}.items()
    ]
    nodes = [
        helper.make_node("Transpose", ["input"], ["steps"], "steps first", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["", "last"], "lstm", hidden_size=5),
        helper.make_node("Squeeze", ["last", "axis"], ["flat"], "squeeze"),
        helper.make_node("MatMul", ["flat", "h"], ["logits"], "head"),
    ]
    weights.append(numpy_helper.from_array(np.array([0]), "axis"))
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 7, 3])]
    made = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", given, made, weights), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    data: bytes = model.SerializeToString()
    return data


def test_a_recurrent_layer_multiplies_at_every_step() -> None:
    """Left out, an LSTM in float would let the little that is behind it be all that counts as int8."""
    assert inspect(_recurrent(), {}).macs == 7 * 20 * (3 + 5) + 5 * 2


def test_conversions_count_by_both_names() -> None:
    """ONNX and TFLite write the same operator differently."""
    operators = {"QuantizeLinear": 1, "DequantizeLinear": 2, "QUANTIZE": 4, "DEQUANTIZE": 8, "Conv": 16}
    assert GraphFigures(macs=1, int8_macs_ratio=1.0, operators=operators).converting == 15


@pytest.mark.parametrize("artifact", [b"", b"no model", onnx.ModelProto().SerializeToString()])
def test_what_is_no_model_can_not_be_measured(artifact: bytes) -> None:
    """A coded error, no traceback."""
    with pytest.raises(MeasureError):
        inspect(artifact, {})


def test_predictions_come_from_the_devices_runtime() -> None:
    """Constant images result in their mean; a model without embedding has one of width 0."""
    inputs = np.full((300, 3, 8, 8), 0.5, np.float32)
    said = predict(_candidate(), inputs)
    assert np.allclose(said.logits, 0.125)
    assert said.embedding.shape == (300, 0)


def test_an_input_of_another_shape_is_a_measure_error() -> None:
    """The message has the expected shape."""
    with pytest.raises(MeasureError, match="Expected input"):
        predict(_candidate(), np.zeros((1, 3, 9, 9), np.float32))


def test_latency_and_memory_are_taken() -> None:
    """Both are positive and p95 is not below p50."""
    inputs = np.zeros((4, 3, 8, 8), np.float32)
    taken = latency({"it": _candidate()}, inputs)["it"]
    assert 0 < taken.p50_ms <= taken.p95_ms
    assert peak_memory_bytes(_candidate(), inputs) > 10_000_000


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from compressor.measurement.predictions import Candidate, peak_memory_bytes
from wire.codec import decode
from wire.manifest import Manifest
print("ran")
manifest = decode(Manifest, Path(sys.argv[1]).read_bytes())
heavy = np.ones(100_000_000, np.uint8)
print(peak_memory_bytes(Candidate(manifest, Path(sys.argv[2]).read_bytes()), np.zeros((4, 3, 8, 8), np.float32)))
"""


def test_a_script_is_not_run_again_to_measure_memory(tmp_path: Path) -> None:
    """A script without a main guard runs once, and its own memory is not in the figure."""
    given = {"manifest.json": encode(_candidate().manifest), "model": _conv(), "script.py": SCRIPT.encode()}
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "script.py", "manifest.json", "model"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=100)
    ran, peak = done.stdout.split()
    assert (ran, done.returncode) == ("ran", 0)
    assert 10_000_000 < int(peak) < 100_000_000


def test_a_memory_measurement_that_fails_says_why() -> None:
    """The error has the last output of a model that the runtime refuses."""
    broken = Candidate(_candidate().manifest, b"no model")
    with pytest.raises(MeasureError, match=r"ended early: .*RuntimeLoadError"):
        peak_memory_bytes(broken, np.zeros((4, 3, 8, 8), np.float32))


def test_parity_finds_differences_and_flips() -> None:
    """One of two rows flips."""
    one = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    other = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    pair = find(matrix({"a": one, "b": other}), "b", "a")
    assert pair is not None
    assert (pair.max_abs, pair.cosine, pair.flip_ratio) == (1.0, 0.0, 0.5)


def test_calibration_error_of_certainty_that_is_half_right_is_a_half() -> None:
    """Confidence 1, accuracy 0.5."""
    logits = np.tile(np.array([[100.0, 0.0]], np.float32), (10, 1))
    assert calibration_error(logits, np.array([0, 1] * 5)) == pytest.approx(0.5)


def _table(values: range, size: int = 2) -> Table:
    images = [np.full((size, size, 3), value, np.uint8) for value in values]
    return make_table(images, ["a", "b"] * (len(images) // 2), slices=["s"] * len(images))


def test_drifted_samples_keep_their_part_when_more_arrive() -> None:
    """Held-out samples stay held out."""
    few, more = part(_table(range(100)), _table(range(200, 210))), part(_table(range(200)), _table(range(200, 210)))
    assert set(few.held.hashes) <= set(more.held.hashes)
    assert 50 < len(few.train) < 90


def test_samples_that_the_base_was_built_on_are_left_out() -> None:
    """Nothing is learnt from or judged on a row of the base's splits."""
    with pytest.raises(SplitError, match="label more"):
        part(_table(range(100)), _table(range(100)))


def test_repeats_make_drifted_samples_a_third() -> None:
    """At most 16 times, at least once."""
    assert (repeats(3000, 100), repeats(100, 3000), repeats(10**6, 10)) == (15, 1, 16)
