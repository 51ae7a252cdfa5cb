"""Each mend on a small file that needs it: what exporters write is mended, and the answers stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.clean.given import Given, flat_shape
from compressor.clean.mending import clean
from compressor.clean.sizes import opened_target
from compressor.errors import ModelSignatureError
from compressor.importing.heads import network_of
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

Integers = Sequence[int]


def integers(**values: Integers) -> dict[str, Any]:
    """Return int64 constants."""
    return {name: np.array(value, np.int64) for name, value in values.items()}


def shaped_by_the_batch() -> onnx.ModelProto:
    """Return a file that reshapes by Shape, Slice and Concat, as exporters write ``x.view(x.shape[0], -1)``."""
    nodes, weights = convolution()
    nodes = [
        *nodes[:3],
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "one"], ["b"]),
        helper.make_node("Concat", ["b", "four"], ["t"], axis=0),
        helper.make_node("Reshape", ["p", "t"], ["f"]),
        helper.make_node("Gemm", ["f", "fw"], ["logits"]),
    ]
    return network(nodes, {**weights, "fw": drawn(4, CLASSES), **integers(zero=[0], one=[1], four=[4])})


def test_a_target_of_reshape_that_is_computed_becomes_a_constant_with_an_open_batch() -> None:
    """Shape, Slice and Concat are gone; the file still takes any batch."""
    model = shaped_by_the_batch()
    data, notes = clean(model.SerializeToString(), given())
    assert operators(data) == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    targets = [numpy_helper.to_array(one).tolist() for one in onnx.load_from_string(data).graph.initializer]
    assert [-1, 4] in targets
    assert notes["branches and shapes"] == "3 of 8 nodes computed constants"
    rows = np.concatenate([given().rows] * 3)
    assert np.allclose(logits(data, rows), logits(model, rows), atol=1e-6)


def test_weights_behind_cast_and_constant_nodes_are_inlined() -> None:
    """A layer's weight is an initializer of float32 then, which quantizers need."""
    nodes, weights = classifier()
    half = weights["w"].astype(np.float16)
    nodes = [
        helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(half)),
        helper.make_node("Cast", ["half"], ["w"], to=TensorProto.FLOAT),
        helper.make_node("Identity", ["fb0"], ["fb"]),
        *nodes,
    ]
    kept = {"wb": weights["wb"], "fw": weights["fw"], "fb0": weights["fb"]}
    data, _ = clean(network(nodes, kept).SerializeToString(), given())
    assert operators(data) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    known = {one.name: one.data_type for one in onnx.load_from_string(data).graph.initializer}
    assert known["w"] == TensorProto.FLOAT


@pytest.mark.parametrize(("yes", "last"), [(True, "Relu"), (False, "Tanh")])
def test_a_branch_whose_condition_is_a_constant_is_inlined(last: str, *, yes: bool) -> None:
    """The nodes of the branch that runs stand in the graph, with names that do not clash."""
    nodes, weights = classifier()
    made = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    branches = [helper.make_graph([helper.make_node(name, ["c"], ["r"])], name, [], made) for name in ("Relu", "Tanh")]
    nodes[1] = helper.make_node("If", ["yes"], ["r"], then_branch=branches[0], else_branch=branches[1])
    model = network(nodes, {**weights, "yes": np.array(yes)})
    data, _ = clean(model.SerializeToString(), given())
    assert operators(data) == ["Conv", last, "GlobalAveragePool", "Flatten", "Gemm"]
    assert np.array_equal(logits(data, given().rows), logits(model, given().rows))


def test_a_condition_that_depends_on_the_input_stays() -> None:
    """Nothing that is computed from values is folded, however equal it is on three rows."""
    nodes, weights = classifier()
    made = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
    branches = [helper.make_graph([helper.make_node(name, ["c"], ["r"])], name, [], made) for name in ("Relu", "Tanh")]
    nodes[1:2] = [
        helper.make_node("ReduceMax", ["c"], ["largest"], keepdims=0),
        helper.make_node("Less", ["largest", "limit"], ["yes"]),
        helper.make_node("If", ["yes"], ["r"], then_branch=branches[0], else_branch=branches[1]),
    ]
    model = network(nodes, {**weights, "limit": np.array(1e9, np.float32)})
    data, _ = clean(model.SerializeToString(), given())
    assert operators(data) == ["Conv", "ReduceMax", "Less", "If", "GlobalAveragePool", "Flatten", "Gemm"]


def test_scales_of_a_quantized_file_are_not_folded() -> None:
    """Weights behind DequantizeLinear are what such a file is for."""
    nodes, weights = classifier()
    nodes.insert(0, helper.make_node("DequantizeLinear", ["wq", "scale"], ["w"]))
    kept = {name: value for name, value in weights.items() if name != "w"}
    kept |= {"wq": np.ones((4, CHANNELS, 3, 3), np.int8), "scale": np.array(0.1, np.float32)}
    data, _ = clean(network(nodes, kept).SerializeToString(), given())
    assert operators(data)[0] == "DequantizeLinear"


def test_random_numbers_are_not_folded() -> None:
    """What is drawn anew for each input is no constant."""
    nodes, weights = classifier()
    nodes[-1].output[0] = "l"
    nodes += [
        helper.make_node("RandomNormal", [], ["noise"], shape=[1, CLASSES], scale=1e-9),
        helper.make_node("Add", ["l", "noise"], ["logits"]),
    ]
    data, _ = clean(network(nodes, weights).SerializeToString(), given())
    assert "RandomNormal" in operators(data)


@pytest.mark.parametrize(("opset", "after"), [(9, 17), (11, 17), (12, 17), (13, 13), (18, 18), (21, 21)])
def test_the_opset_is_raised_only_below_13(opset: int, after: int) -> None:
    """It is never lowered."""
    data, _ = clean(network(*classifier(), opset=opset).SerializeToString(), given())
    assert onnx.load_from_string(data).opset_import[0].version == after


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_fixed_batch_is_opened_with_the_targets_that_hold_it(batch: int) -> None:
    """A Reshape to (batch, 4) becomes one to (-1, 4)."""
    nodes, weights = convolution()
    nodes[3] = helper.make_node("Reshape", ["p", "t"], ["f"])
    nodes.append(helper.make_node("Gemm", ["f", "fw"], ["logits"]))
    model = network(nodes, {**weights, "fw": drawn(4, CLASSES), **integers(t=[batch, 4])}, batch=batch)
    data, notes = clean(model.SerializeToString(), given())
    assert notes["batch"] == f"the fixed batch of {batch} is open, 1 Reshape with it"
    rows = np.random.default_rng(1).standard_normal((5, CHANNELS, SIDE, SIDE)).astype(np.float32)
    want = np.concatenate([logits(model, np.repeat(row[None], batch, 0))[:1] for row in rows])
    assert np.allclose(logits(data, rows), want, atol=1e-6)


def test_a_batch_that_the_graph_computes_with_stays_fixed() -> None:
    """A weight of the batch's size can't be fed with three rows: the line says so."""
    nodes, weights = classifier()
    nodes.insert(0, helper.make_node("Concat", ["x", "one"], ["y"], axis=0))
    nodes.insert(1, helper.make_node("Slice", ["y", "zero", "end"], ["z"]))
    nodes[2].input[0] = "z"
    kept = {**weights, "one": drawn(1, CHANNELS, SIDE, SIDE), **integers(zero=[0], end=[1])}
    data, notes = clean(network(nodes, kept, batch=1).SerializeToString(), given())
    assert notes["batch"].startswith("left as it is: ")
    assert onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


@pytest.mark.parametrize("batch", [1, 2])
def test_a_token_beside_rows_repeats_with_the_batch(batch: int) -> None:
    """A class token, as a vision transformer exported without dynamic axes has it; a Reshape behind it opens too."""
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["r"]),
        helper.make_node("Concat", ["token", "r"], ["joined"], axis=1, name="joins"),
        helper.make_node("Reshape", ["joined", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "fw"], ["logits"]),
    ]
    size, columns = SIDE * SIDE, CHANNELS + 1
    token = np.repeat(drawn(1, 1, size), batch, axis=0)
    weights = {"token": token, "fw": drawn(columns * size, CLASSES, seed=2)}
    targets = integers(rows=[batch, CHANNELS, size], flat=[batch, columns * size])
    model = network(nodes, {**weights, **targets}, batch=batch)
    data, notes = clean(model.SerializeToString(), given())
    assert notes["batch"] == f"the fixed batch of {batch} is open, 2 Reshape with it, 1 constants beside it repeat"
    rows = np.random.default_rng(1).standard_normal((5, CHANNELS, SIDE, SIDE)).astype(np.float32)
    want = np.concatenate([logits(model, np.repeat(row[None], batch, 0))[:1] for row in rows])
    assert np.allclose(logits(data, rows), want, atol=1e-5)
    network_of(data, "logits")


def test_rows_of_a_constant_that_differ_are_no_token() -> None:
    """A batch of two whose rows get other values has no place for a third."""
    nodes, weights = classifier("z")
    nodes = [helper.make_node("Concat", ["x", "two"], ["z"], axis=1), *nodes]
    kept = {**weights, "w": drawn(4, CHANNELS + 1, 3, 3), "two": drawn(2, 1, SIDE, SIDE)}
    _, notes = clean(network(nodes, kept, batch=2).SerializeToString(), given())
    assert notes["batch"].startswith("left as it is: the rows of 'two'")


def test_a_target_with_an_open_size_elsewhere_gets_its_number() -> None:
    """Windows of a picture: (4 * batch, 16, rest of 2) becomes (-1, 16, 2)."""
    nodes = [
        helper.make_node("Reshape", ["x", "windows"], ["r"]),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("Reshape", ["s", "back"], ["f"]),
        helper.make_node("Gemm", ["f", "fw"], ["logits"]),
    ]
    size = CHANNELS * SIDE * SIDE
    targets = integers(windows=[4, 16, -1], back=[1, size])
    model = network(nodes, {"fw": drawn(size, CLASSES), **targets}, batch=1)
    data, notes = clean(model.SerializeToString(), given())
    assert notes["batch"] == "the fixed batch of 1 is open, 2 Reshape with it"
    held = {one.name: numpy_helper.to_array(one).tolist() for one in onnx.load_from_string(data).graph.initializer}
    assert [-1, 16, 2] in held.values()


def test_an_output_of_another_first_axis_keeps_its_rank() -> None:
    """A file without the shape of an output is no complete one for a checker."""
    model = network(*classifier(), batch=1)
    model.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "rows_of_gemm"
    data, _ = clean(model.SerializeToString(), given())
    onnx.checker.check_model(onnx.load_from_string(data))
    assert [dim.dim_value for dim in onnx.load_from_string(data).graph.output[0].type.tensor_type.shape.dim] == [0, 3]


@pytest.mark.parametrize(
    ("taken", "target", "batch", "after"),
    [
        ([None, 64, 48], [1, 64, 4, 12], 1, [-1, 64, 4, 12]),
        ([None, 64, 48], [64, 48], 1, [-1, 48]),
        ([None, 4, 64, 12], [8, 64, 12], 2, [-1, 64, 12]),
        ([64, None, 48], [64, 4, 12], 1, [64, -1, 12]),
        ([64, None, 12], [64, 1, 48], 1, [64, -1, 48]),
        ([1, None, 48], [1, 1, 48], 1, [1, -1, 48]),
        ([None, 64, 48], [2, -1], 2, [0, -1]),
        ([None, 64, 48], [-1, 48], 1, [-1, 48]),
        ([None, 64, 48], [4, -1, 48], 2, None),
        ([None, 64, 48], [0, 1, -1], 1, [0, 1, -1]),
    ],
)
def test_the_place_of_the_batch_in_a_target(
    taken: list[int | None], target: list[int], batch: int, after: list[int] | None
) -> None:
    """It is where as many values stand before it as in the input; with another -1 it is copied, or not known."""
    assert opened_target(taken, target, batch) == after


def test_open_sizes_are_those_of_the_rows() -> None:
    """The batch stays open; sizes that contradict the rows stay, and the contract names them."""
    model = network(*classifier(), sizes=(CHANNELS, "height", "width"))
    data, notes = clean(model.SerializeToString(), given())
    dims = onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in dims] == [0, CHANNELS, SIDE, SIDE]
    assert notes["sizes"] == "open sizes of the input set to 2 x 8 x 8"
    other = network(*classifier(), sizes=(CHANNELS, "height", 4))
    assert "sizes" not in clean(other.SerializeToString(), given())[1]


@pytest.mark.parametrize("product", ["Gemm", "MatMul"])
def test_a_bias_of_two_axes_gets_one(product: str) -> None:
    """(1, n) becomes (n,), as C of Gemm and as what is added to a MatMul."""
    nodes, weights = classifier(bias=(1, CLASSES))
    if product == "MatMul":
        nodes[-1:] = [
            helper.make_node("MatMul", ["f", "fw"], ["m"]),
            helper.make_node("Add", ["fb", "m"], ["logits"]),
        ]
    model = network(nodes, weights)
    data, notes = clean(model.SerializeToString(), given())
    assert notes["biases"] == "'fb' reshaped to one axis"
    assert [CLASSES] in [list(one.dims) for one in onnx.load_from_string(data).graph.initializer]
    assert np.array_equal(logits(data, given().rows), logits(model, given().rows))


def attention(mask: float, *, all_masked: bool = False, other: bool = False) -> onnx.ModelProto:
    """Return rows that attend to earlier ones alone, by a mask of ``mask``; ``other``: another node reads it too."""
    hidden = np.triu(np.full((SIDE, SIDE), mask, np.float32), 0 if all_masked else 1)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["e"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["e", "q"], ["eq"]),
        helper.make_node("Transpose", ["e"], ["et"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["eq", "et"], ["scores"]),
        helper.make_node("Add", ["scores", "mask"], ["masked"]),
        helper.make_node("Softmax", ["masked"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "e"], ["seen"]),
        helper.make_node("ReduceMean", ["seen"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "fw"], ["l" if other else "logits"]),
    ]
    if other:
        nodes += [
            helper.make_node("ReduceMax", ["masked"], ["top"], axes=[1, 2], keepdims=1),
            helper.make_node("Squeeze", ["top", "last"], ["largest"]),
            helper.make_node("Add", ["l", "largest"], ["logits"]),
        ]
    weights = {"q": drawn(SIDE, SIDE), "fw": drawn(SIDE, CLASSES), "mask": hidden, **integers(last=[2])}
    return network(nodes, weights)


@pytest.mark.parametrize("mask", [-3.4028234663852886e38, -np.inf, -1e9])
def test_a_mask_is_cut_to_what_softmax_can_tell_apart(mask: float) -> None:
    """-60 gives the same answers as minus infinity."""
    model = attention(mask)
    data, notes = clean(model.SerializeToString(), given())
    values = next(one for one in onnx.load_from_string(data).graph.initializer if one.name == "mask")
    assert numpy_helper.to_array(values).min() == -60
    assert notes["masks"] == f"'mask' from {mask:.3g} to -60"
    assert np.allclose(logits(data, given().rows), logits(model, given().rows), atol=1e-6)


def test_a_row_that_is_masked_completely_keeps_its_mask() -> None:
    """There every score is lost beside -3.4e38, so that a softmax of -60 plus the score answers otherwise."""
    data, notes = clean(attention(-3.4e38, all_masked=True).SerializeToString(), given())
    values = next(one for one in onnx.load_from_string(data).graph.initializer if one.name == "mask")
    assert numpy_helper.to_array(values).min() < -1e30
    assert "the answers would differ" in notes["masks"]


def test_a_mask_that_does_not_lead_to_a_softmax_alone_is_left() -> None:
    """What is added to it is read by others too, for which -60 may be something else."""
    _, notes = clean(attention(-1e9, other=True).SerializeToString(), given())
    assert "masks" not in notes


def last_channels(kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a file that takes (N, H, W, C)."""
    nodes, weights = classifier("y")
    taken = "x"
    if kind != TensorProto.FLOAT:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["xf"], to=TensorProto.FLOAT))
        taken = "xf"
    nodes.insert(len(nodes) - 5, helper.make_node("Transpose", [taken], ["y"], perm=[0, 3, 1, 2]))
    return network(nodes, weights, sizes=(SIDE, SIDE, CHANNELS), kind=kind)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_of_channels_last_takes_what_a_device_feeds(*, compressed: bool) -> None:
    """Its own Transpose goes, because the device feeds (N, C, H, W)."""
    model = last_channels()
    data, notes = clean(model.SerializeToString(), given(compressed=compressed))
    assert notes["layout"] == "the input was (N, 8, 8, 2): its first Transpose is left out"
    assert operators(data) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]
    moved = np.ascontiguousarray(given().rows.transpose(0, 2, 3, 1))
    assert np.allclose(logits(data, given().rows), logits(model, moved), atol=1e-6)


@pytest.mark.parametrize("values", [SIDE * SIDE, "V"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_of_flat_rows_takes_pictures_of_one_channel(values: int | str, *, compressed: bool) -> None:
    """Models of scikit-learn take (N, values); the device feeds (N, 1, H, W), whose order is the same."""
    weights = {"w": drawn(SIDE * SIDE, CLASSES), "b": drawn(CLASSES, seed=1)}
    model = network([helper.make_node("Gemm", ["x", "w", "b"], ["logits"])], weights, sizes=(values,))
    rows = drawn(3, 1, SIDE, SIDE, seed=4)
    data, notes = clean(model.SerializeToString(), Given(rows=rows, compressed=compressed))
    assert notes["flat input"] == "the input was (N, 64): a Flatten stands before it"
    assert notes["parity"].startswith("largest difference 0 ")
    assert np.array_equal(logits(data, rows), logits(model, rows.reshape(3, -1)))


@pytest.mark.parametrize(("channels", "values"), [(2, 2 * SIDE * SIDE), (1, SIDE)])
def test_flat_rows_of_several_channels_or_another_size_are_left_alone(channels: int, values: int) -> None:
    """Whether the values of a pixel or of a channel follow each other is unknown."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    model = network(nodes, {"w": drawn(values, CLASSES)}, sizes=(values,))
    _, notes = clean(model.SerializeToString(), Given(rows=drawn(3, channels, SIDE, SIDE)))
    assert "flat input" not in notes


@pytest.mark.parametrize("shape", [(CLASSES, 1, 1), (1, 1, CLASSES), (1, CLASSES)])
def test_answers_with_axes_of_one_are_flattened(shape: tuple[int, ...]) -> None:
    """A classifier that ends in a convolution gives (N, C, 1, 1); nothing is computed otherwise."""
    nodes, weights = classifier()
    nodes[-1].output[0] = "deep"
    nodes = [*nodes, helper.make_node("Reshape", ["deep", "shape"], ["logits"])]
    model = network(nodes, {**weights, "shape": np.array([-1, *shape], np.int64)})
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", *shape]))
    rows = drawn(3, CHANNELS, SIDE, SIDE)
    data, notes = clean(model.SerializeToString(), given(compressed=False))
    assert notes["flat outputs"] == f"a Flatten stands behind logits (N, {', '.join(map(str, shape))})"
    assert notes["parity"].startswith("largest difference 0 ")
    assert np.array_equal(logits(data, rows), logits(model, rows).reshape(3, CLASSES))


def test_only_a_row_of_values_is_flat() -> None:
    """A map of two axes, and one of a size that is not known, stay as they are."""
    for shape in ((0, 2, 5), (0, 7), (0,), (0, 1, 0), (0, 8, 4, 4)):
        assert flat_shape(shape) == shape
    assert (flat_shape((0, 1, 1)), flat_shape((4, 1, 9, 1))) == ((0, 1), (4, 9))


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_of_bytes_and_channels_last_takes_normalised_floats(*, compressed: bool) -> None:
    """The pixels are computed back from the device's values, rounded and limited as bytes are."""
    model = last_channels(TensorProto.UINT8)
    pixels = np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, CHANNELS)).astype(np.uint8)
    rows = ((pixels / 255 - 0.5) / 0.25).astype(np.float32).transpose(0, 3, 1, 2)
    known = given(compressed=compressed, factor=(0.25 * 255,), offset=(0.5 * 255,))
    data, notes = clean(model.SerializeToString(), known)
    assert {"layout", "pixels"} <= notes.keys()
    assert np.array_equal(logits(data, np.ascontiguousarray(rows)), logits(model, pixels))


@pytest.mark.parametrize("last", [True, False])
def test_pixels_are_computed_back_by_the_numbers_of_their_channel(*, last: bool) -> None:
    """Mean and deviation per channel, whatever layout the file takes."""
    model = last_channels(TensorProto.UINT8)
    if not last:
        model = network(*classifier("real"), kind=TensorProto.UINT8)
        nodes = [helper.make_node("Cast", ["x"], ["real"], to=TensorProto.FLOAT), *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    pixels = np.random.default_rng(3).integers(0, 256, (3, SIDE, SIDE, CHANNELS)).astype(np.uint8)
    mean, std = np.linspace(0.3, 0.5, CHANNELS), np.linspace(0.2, 0.3, CHANNELS)
    rows = np.ascontiguousarray(((pixels / 255 - mean) / std).astype(np.float32).transpose(0, 3, 1, 2))
    factor, offset = tuple((std * 255).tolist()), tuple((mean * 255).tolist())
    data, notes = clean(model.SerializeToString(), Given(rows=rows, factor=factor, offset=offset))
    assert "pixels" in notes
    wanted = pixels if last else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    assert np.array_equal(logits(data, rows), logits(model, wanted))


def counting(batch: int | str) -> bytes:
    """Return a file whose logits are multiplied by the number of values above 0.5, as a suppression counts boxes."""
    nodes, weights = classifier()
    nodes[-1].output[0] = "l"
    nodes += [
        helper.make_node("Greater", ["x", "half"], ["above"]),
        helper.make_node("NonZero", ["above"], ["places"]),
        helper.make_node("Shape", ["places"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "last"], ["count"]),
        helper.make_node("Cast", ["count"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["l", "factor"], ["logits"]),
    ]
    known = {**weights, "half": np.array(0.5, np.float32), "last": np.array(1)}
    return network(nodes, known, batch=batch).SerializeToString()


def test_a_number_that_values_decide_is_no_constant() -> None:
    """Three equal rows have equal counts; the next one has another, and would be answered with theirs."""
    alike = given(rows=1).rows.repeat(3, axis=0)
    data, _ = clean(counting(1), Given(rows=alike))
    other = 2 * given(rows=2).rows[1:]
    assert "NonZero" in operators(data)
    assert np.array_equal(logits(data, other), logits(counting(1), other))


def test_a_file_that_counts_over_all_rows_takes_one() -> None:
    """Ultralytics' suppression with an open batch is right for one picture alone; a device feeds one."""
    data, notes = clean(counting("N"), given())
    assert notes["one row"].startswith("the open batch is fixed to 1: NonZero counts over all rows")
    assert onnx.load_from_string(data).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert "NonZero counts over all rows" in notes["batch"]
    row = given(rows=1).rows
    assert np.allclose(logits(data, row), logits(counting("N"), row), rtol=1e-5)


@pytest.mark.parametrize(("compressed", "kind"), [(True, TensorProto.FLOAT), (False, TensorProto.FLOAT16)])
def test_a_file_of_float16_takes_and_gives_float32(kind: int, *, compressed: bool) -> None:
    """Before quantizing it is written as float32; without steps its weights stay as they are."""
    nodes, weights = classifier()
    halves = {name: np.asarray(value, np.float16) for name, value in weights.items()}
    model = network(nodes, halves, kind=TensorProto.FLOAT16)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    data, _ = clean(model.SerializeToString(), given(compressed=compressed))
    read = onnx.load_from_string(data)
    types = {value.type.tensor_type.elem_type for value in (*read.graph.input, *read.graph.output)}
    assert types == {TensorProto.FLOAT}
    assert {one.data_type for one in read.graph.initializer} == {kind}
    wide = network(nodes, {name: value.astype(np.float32) for name, value in halves.items()})
    assert np.allclose(logits(data, given().rows), logits(wide, given().rows), atol=2e-2)


def with_mask(shape: Integers = (1, CLASSES), kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Return a file with a second input ``gain`` that the logits are multiplied by."""
    nodes, weights = classifier()
    nodes[-1].output[0] = "l"
    nodes += [
        helper.make_node("Cast", ["gain"], ["g"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["l", "g"], ["logits"]),
    ]
    model = network(nodes, weights)
    model.graph.input.append(helper.make_tensor_value_info("gain", kind, list(shape)))
    return model


@pytest.mark.parametrize(
    ("value", "kind", "factors"),
    [(2.0, TensorProto.FLOAT, [2, 2, 2]), ((1, 2, 3), TensorProto.INT64, [1, 2, 3]), (1, TensorProto.BOOL, [1, 1, 1])],
)
def test_another_input_is_set_to_its_constant(value: Any, kind: int, factors: Integers) -> None:  # noqa: ANN401 - a number or several
    """One number fills it, a list has one a value; its type is the file's."""
    data, notes = clean(with_mask(kind=kind).SerializeToString(), given(constants={"gain": value}))
    assert [one.name for one in onnx.load_from_string(data).graph.input] == ["x"]
    want = logits(network(*classifier()), given().rows) * np.array(factors)
    assert np.allclose(logits(data, given().rows), want, atol=1e-6)
    assert notes["constants"].startswith("inputs set: gain = ")


@pytest.mark.parametrize(
    ("constants", "said"),
    [
        ({"gian": 1.0}, "an input of the file (x, gain), got 'gian': did you mean 'gain'?"),
        ({"gain": (1.0, 2.0)}, "gain 3 numbers for its shape [1, 3], got 2"),
        ({"gain": 1.0, "x": 0.0}, "Expected an input left for the data"),
    ],
)
def test_constants_that_do_not_fit_the_inputs_are_named(constants: dict[str, Any], said: str) -> None:
    """The error has the names of all inputs, or the sizes."""
    with pytest.raises(ModelSignatureError) as error:
        clean(with_mask().SerializeToString(), given(constants=constants))
    assert said in str(error.value)
