"""Quantizing what exporters write: each of these stopped with an error, lost its accuracy, or stayed float."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.clean.mending import clean
from compressor.errors import AlreadyQuantizedError, QuantizeError
from compressor.formats import named
from compressor.measurement import left_float
from compressor.quantize import quantize
from compressor.steps.quantize import Settings
from tests.compressor.clean.files import (
    CHANNELS,
    CLASSES,
    SIDE,
    classifier,
    convolution,
    drawn,
    given,
    logits,
    network,
    operators,
)

Floats = npt.NDArray[np.float32]


def rows(count: int = 64) -> Floats:
    """Return noise of the small files' shape."""
    return np.random.default_rng(5).standard_normal((count, CHANNELS, SIDE, SIDE)).astype(np.float32)


def small(model: onnx.ModelProto, **settings: object) -> bytes:
    """Return ``model`` cleaned and quantized."""
    data, _ = clean(model.SerializeToString(), given())
    return quantize(data, lambda: iter([rows()]), Settings(**settings))  # type: ignore[arg-type]  # of a test


def error_of(data: bytes, model: onnx.ModelProto) -> float:
    """Return the largest difference of the logits, as a share of their spread."""
    want = logits(model, rows())
    return float(np.abs(logits(data, rows()) - want).max() / np.ptp(want))


@pytest.mark.parametrize("product", ["Gemm", "MatMul"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_bias_of_two_axes_is_quantized(product: str, *, per_channel: bool) -> None:
    """Onnxruntime's quantizer takes a bias for one number a channel."""
    nodes, weights = classifier(bias=(1, CLASSES))
    if product == "MatMul":
        nodes[-1:] = [helper.make_node("MatMul", ["f", "fw"], ["m"]), helper.make_node("Add", ["m", "fb"], ["logits"])]
    model = network(nodes, weights)
    data = small(model, per_channel=per_channel)
    assert "QuantizeLinear" in operators(data)
    assert error_of(data, model) < 0.05


@pytest.mark.parametrize(("groups", "scales"), [(1, 4), (2, 1)])
def test_a_transposed_convolution_of_groups_has_one_scale_and_others_one_a_channel(groups: int, scales: int) -> None:
    """Its axis of output channels has those of one group alone."""
    nodes, weights = classifier("y")
    moved = helper.make_node("ConvTranspose", ["x", "tw", "tb"], ["y"], kernel_shape=[2, 2], group=groups, name="up")
    kept = {**weights, "tw": drawn(CHANNELS, 4 // groups, 2, 2), "tb": drawn(4), "w": drawn(4, 4, 3, 3)}
    model = network([moved, *nodes], kept)
    data = small(model)
    read = onnx.load_from_string(data)
    up = next(node for node in read.graph.node if node.op_type == "ConvTranspose")
    scale = next(node.input[1] for node in read.graph.node if up.input[1] in node.output)
    sizes = {one.name: int(np.prod(one.dims)) for one in read.graph.initializer}
    assert sizes[scale] == scales
    assert error_of(data, model) < 0.05


@pytest.mark.parametrize(("low", "high", "kept"), [(0.1, 2.0, True), (0.0, 2.0, False), (-3.0, -0.05, True)])
def test_a_clip_whose_limits_leave_zero_out_is_kept(low: float, high: float, *, kept: bool) -> None:
    """A range of 8 bits includes zero, so that it can't stand for such limits."""
    nodes, weights = classifier()
    nodes[1] = helper.make_node("Clip", ["c", "low", "high"], ["r"])
    limits = {"low": np.array(low, np.float32), "high": np.array(high, np.float32)}
    model = network(nodes, {**weights, **limits})
    data = small(model)
    assert ("Clip" in operators(data)) is kept
    assert error_of(data, model) < 0.08


def recurrent(operator: str, gates: int) -> onnx.ModelProto:
    """Return a recurrent layer over the rows of the first channel, and a Gemm on its last state."""
    hidden = 16
    outputs = ["all", "last", *(["cell"] if operator == "LSTM" else [])]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Transpose", ["m"], ["steps"], perm=[1, 0, 2]),
        helper.make_node(operator, ["steps", "rw", "rr", "rb"], outputs, hidden_size=hidden, name="layer"),
        helper.make_node("Squeeze", ["last", "axis"], ["f"]),
        helper.make_node("Gemm", ["f", "fw"], ["logits"]),
    ]
    weights = {
        "rw": drawn(1, gates * hidden, SIDE), "rr": drawn(1, gates * hidden, hidden), "fw": drawn(hidden, CLASSES),
        "rb": drawn(1, 2 * gates * hidden), "axis": np.array([0], np.int64),
    }  # fmt: skip
    return network(nodes, weights)


@pytest.mark.parametrize("scheme", ["static_int8", "dynamic_int8"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_a_recurrent_layer_gets_weights_of_int8(operator: str, gates: int, scheme: str, *, per_channel: bool) -> None:
    """LSTM runs in int8, the others compute in float from int8 weights; no weight is left."""
    model = recurrent(operator, gates)
    data = small(model, scheme=scheme, per_channel=per_channel)
    assert ("DynamicQuantizeLSTM" in operators(data)) is (operator == "LSTM")
    assert left_float.left_float(data, "onnx").ratio < 0.2  # a bias of two axes, and the scales
    assert error_of(data, model) < 0.05


def test_a_recurrent_layer_in_float_layers_stays_float() -> None:
    """As any other layer that a recipe names."""
    data = small(recurrent("LSTM", 4), float_layers=("layer",))
    assert "LSTM" in operators(data)


def test_the_work_of_a_dynamic_lstm_counts_as_int8() -> None:
    """Its multiplications are those of the float layer, over all steps."""
    model = recurrent("LSTM", 4)
    onnx_format = named("onnx")
    before = onnx_format.figures(model.SerializeToString(), {}, 1)
    after = onnx_format.figures(small(model), {}, 1)
    assert before.macs == after.macs == SIDE * 64 * (SIDE + 16) + 16 * CLASSES
    assert after.int8_macs_ratio is not None
    assert after.int8_macs_ratio > 0.9


@pytest.mark.parametrize("scheme", ["static_int8", "dynamic_int8", "weight_int8", "float16"])
def test_a_file_that_is_int8_already_is_named_as_such(scheme: str) -> None:
    """Quantizing it twice was an error about single static assignment."""
    data = small(network(*classifier()))
    with pytest.raises(AlreadyQuantizedError, match=r"int8 already \(\d+ DequantizeLinear, .*write compress = \[\]"):
        quantize(data, lambda: iter([rows()]), Settings(scheme=scheme))


def masked() -> onnx.ModelProto:
    """Return rows that attend to earlier ones, by a mask of the lowest float32."""
    mask = np.triu(np.full((SIDE, SIDE), np.finfo(np.float32).min), 1)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["e"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["e", "q"], ["eq"], name="query"),
        helper.make_node("Transpose", ["e"], ["et"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["eq", "et"], ["scores"], name="product"),
        helper.make_node("Add", ["scores", "mask"], ["hidden"], name="hide"),
        helper.make_node("Softmax", ["hidden"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "e"], ["seen"], name="value"),
        helper.make_node("ReduceMean", ["seen"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "fw"], ["logits"], name="last"),
    ]
    return network(nodes, {"q": 5 * drawn(SIDE, SIDE), "fw": drawn(SIDE, CLASSES), "mask": mask})


def test_a_mask_of_the_lowest_float_does_not_set_the_range_of_the_scores() -> None:
    """The file ends with the accuracy of its float form, and the multiplications are counted."""
    model = masked()
    data = small(model)
    assert error_of(data, model) < 0.05
    assert named("onnx").figures(data, {}, 1).int8_macs_ratio == 1


@pytest.mark.parametrize(
    ("name", "rounded"), [("hide", True), ("hidden", True), ("hidden (rounded)", False), ("query", True)]
)
def test_a_layer_that_the_report_names_can_stay_float(name: str, *, rounded: bool) -> None:
    """The report names tensors, of any node; a recipe may name the node too, and what was measured after rounding."""
    data = small(masked(), float_layers=(name,))
    read = onnx.load_from_string(data)
    converted = {made for node in read.graph.node if node.op_type == "DequantizeLinear" for made in node.output}
    named_node = next(node for node in read.graph.node if node.name == ("query" if name == "query" else "hide"))
    assert named_node.input[1] not in converted
    quantized = {taken for node in read.graph.node if node.op_type == "QuantizeLinear" for taken in node.input}
    assert ("hidden" in quantized) is rounded


def test_a_prefix_names_layers_alone() -> None:
    """A beginning that fits no layer is refused, though other nodes begin so."""
    with pytest.raises(QuantizeError, match="Expected in float_layers a layer of the model, got 'hid'"):
        small(masked(), float_layers=("hid",))


def test_an_old_file_with_an_empty_roi_is_quantized() -> None:
    """Opset 11, open sizes, a Resize with an empty tensor and a computed target: figures are counted, too."""
    nodes, weights = convolution()
    empty = numpy_helper.from_array(np.zeros(0, np.float32))
    nodes[2:] = [
        helper.make_node("Constant", [], ["roi"], value=empty),
        helper.make_node("Resize", ["r", "roi", "scales"], ["h"], mode="nearest"),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["b"]),
        helper.make_node("Concat", ["b", "four"], ["t"], axis=0),
        helper.make_node("Reshape", ["p", "t"], ["f"]),
        helper.make_node("MatMul", ["f", "fw"], ["m"]),
        helper.make_node("Softmax", ["m"], ["logits"], axis=1),
    ]
    sizes = {name: np.array([value], np.int64) for name, value in (("zero", 0), ("one", 1), ("four", 4))}
    scales = {"scales": np.array([1, 1, 0.5, 0.5], np.float32)}
    model = network(
        nodes, {**weights, **sizes, **scales, "fw": drawn(4, CLASSES)}, opset=11, sizes=(CHANNELS, "h", "w")
    )
    data = small(model)
    figures = named("onnx").figures(data, {}, 1)
    assert figures.macs == SIDE * SIDE * 4 * CHANNELS * 9 + 4 * CLASSES
    assert figures.int8_macs_ratio == 1
    assert error_of(data, model) < 0.1


def padded() -> onnx.ModelProto:
    """Return a convolution after a Pad whose amounts are computed, as ``F.pad`` is exported."""
    nodes, weights = classifier("y")
    nodes[0] = helper.make_node("Conv", ["y", "w", "wb"], ["c"], kernel_shape=[3, 3])
    pads = numpy_helper.from_array(np.array([1, 1, 1, 1], np.int64))
    head = [
        helper.make_node("Constant", [], ["some"], value=pads),
        helper.make_node(
            "ConstantOfShape", ["four"], ["none"], value=helper.make_tensor("v", TensorProto.INT64, [1], [0])
        ),
        helper.make_node("Concat", ["some", "none"], ["all"], axis=0),
        helper.make_node("Reshape", ["all", "pairs"], ["by"]),
        helper.make_node("Slice", ["by", "last", "lowest", "zero", "back"], ["turned"]),
        helper.make_node("Transpose", ["turned"], ["across"], perm=[1, 0]),
        helper.make_node("Reshape", ["across", "flat"], ["amounts"]),
        helper.make_node("Pad", ["x", "amounts"], ["y"]),
    ]
    values = {"four": [4], "pairs": [-1, 2], "last": [-1], "lowest": [-9223372036854775807], "zero": [0], "back": [-1],
              "flat": [-1]}  # fmt: skip
    return network([*head, *nodes], {**weights, **{name: np.array(v, np.int64) for name, v in values.items()}})


def test_a_padded_file_is_quantized_and_its_work_is_counted() -> None:
    """The amounts are constants then, so that every shape is known."""
    model = padded()
    data = small(model)
    assert named("onnx").figures(data, {}, 1).int8_macs_ratio == 1
    assert error_of(data, model) < 0.05


def branched() -> onnx.ModelProto:
    """Return a classifier with an If on its pixels, whose branches read a weight of the graph around them."""
    nodes, weights = classifier("y")
    branches = {}
    for name, operator in (("then_branch", "Add"), ("else_branch", "Mul")):
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([helper.make_node(operator, ["x", "offset"], [name])], name, [], [made])
    head = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["bright"]),
        helper.make_node("If", ["bright"], ["y"], **branches),
    ]
    return network([*head, *nodes], {**weights, "offset": drawn(1, CHANNELS, 1, 1), "zero": np.float32(0)})


def test_a_weight_that_only_branches_read_stays_in_the_file() -> None:
    """A constant that no node of the graph itself reads was dropped, and onnxruntime refused the int8 file."""
    model = branched()
    data = small(model)
    assert "QuantizeLinear" in operators(data)
    assert error_of(data, model) < 0.05
