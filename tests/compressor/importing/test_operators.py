"""Every translator against onnxruntime, with the attributes that exporters write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compressor.errors import OperatorError
from compressor.importing.conversion import converted
from compressor.importing.operators import TRANSLATORS

File = Callable[..., bytes]
_RNG = np.random.default_rng(3)


def floats(*shape: int) -> np.ndarray:
    """Return weights of a shape."""
    return _RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    """Return indices."""
    return np.array(values, np.int64)


def node(kind: str, *inputs: str, out: str = "y", **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401 - of any operator
    """Return a node that reads ``x`` first."""
    return onnx.helper.make_node(kind, ["x", *inputs], [out], **attributes)


_PLAIN = (
    "Abs Ceil Celu Cos Dropout Elu Erf Exp Flatten Floor GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish",
    "Identity LeakyRelu LogSoftmax Neg Relu Round Selu Sigmoid Sign Sin Softmax Softplus Softsign Sqrt Tanh Transpose",
)
_REDUCTIONS = "ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceProd ReduceSumSquare ReduceLogSumExp ReduceMean"
ONE = {name: [node(name)] for line in _PLAIN for name in line.split()}
ONE |= {name: [node(name, axes=[2, 3])] for name in _REDUCTIONS.split()}
"""Operators of one input, as they are without attributes; x is (N, 2, 6, 6), from 0 to 1."""
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray]]] = {
    **{name: (nodes, {}) for name, nodes in ONE.items()},
    "Conv same upper": ([node("Conv", "w", auto_pad="SAME_UPPER", strides=[2, 2])], {"w": floats(4, 2, 3, 3)}),
    "Conv same lower": ([node("Conv", "w", auto_pad="SAME_LOWER")], {"w": floats(4, 2, 2, 2)}),
    "Conv uneven": ([node("Conv", "w", "b", pads=[0, 1, 2, 1])], {"w": floats(4, 2, 3, 3), "b": floats(4)}),
    "Conv groups": ([node("Conv", "w", group=2, dilations=[2, 2])], {"w": floats(4, 1, 3, 3)}),
    "ConvTranspose": (
        [node("ConvTranspose", "w", "b", group=2, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1])],
        {"w": floats(2, 3, 3, 3), "b": floats(6)},
    ),
    "ConvTranspose uneven": ([node("ConvTranspose", "w", pads=[0, 0, 1, 1])], {"w": floats(2, 3, 3, 3)}),
    "Pad channels": ([node("Pad", "p", "v")], {"p": ints(0, 1, 1, 0, 0, 0, 2, 1), "v": np.float32(0.5)}),
    "Pad reflect": ([node("Pad", "p", mode="reflect")], {"p": ints(0, 0, 1, 2, 0, 0, 1, 0)}),
    "Pad edge": ([node("Pad", "p", mode="edge")], {"p": ints(0, 0, 1, 2, 0, 0, 1, 0)}),
    "Pad none": ([node("Pad", "p")], {"p": ints(*[0] * 8)}),
    "DepthToSpace": (
        [node("Conv", "w", out="c"), onnx.helper.make_node("DepthToSpace", ["c"], ["y"], blocksize=2)],
        {"w": floats(8, 2, 1, 1)},
    ),
    "DepthToSpace CRD": (
        [node("Conv", "w", out="c"), onnx.helper.make_node("DepthToSpace", ["c"], ["y"], blocksize=2, mode="CRD")],
        {"w": floats(8, 2, 1, 1)},
    ),
    "SpaceToDepth": ([node("SpaceToDepth", blocksize=3)], {}),
    "Gemm factors": (
        [node("Flatten", out="f"), onnx.helper.make_node("Gemm", ["f", "w", "b"], ["y"], alpha=0.5, beta=2.0)],
        {"w": floats(72, 3), "b": floats(1, 3)},
    ),
    "Gemm one bias": (
        [node("Flatten", out="f"), onnx.helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1)],
        {"w": floats(3, 72), "b": floats(1)},
    ),
    "MatMul": ([node("MatMul", "w")], {"w": floats(6, 4)}),
    "MatMul of four axes": ([node("MatMul", "w")], {"w": floats(1, 2, 6, 4)}),
    "Einsum": ([node("Einsum", "w", equation="nchw,wk->nckh")], {"w": floats(6, 4)}),
    "MatMul from the left": ([onnx.helper.make_node("MatMul", ["w", "x"], ["y"])], {"w": floats(4, 6)}),
    "MatMul and Add": (
        [node("MatMul", "w", out="m"), onnx.helper.make_node("Add", ["b", "m"], ["y"])],
        {"w": floats(6, 4), "b": floats(4)},
    ),
    "MatMul and one bias a row": (
        [node("MatMul", "w", out="m"), onnx.helper.make_node("Add", ["m", "b"], ["y"])],
        {"w": floats(6, 4), "b": floats(6, 1)},
    ),
    "Add": ([node("Add", "w")], {"w": floats(2, 1, 1)}),
    "Add lifts": ([node("Flatten", out="f"), onnx.helper.make_node("Add", ["f", "w"], ["y"])], {"w": floats(1, 1, 1)}),
    "Sub from": ([onnx.helper.make_node("Sub", ["w", "x"], ["y"])], {"w": np.float32(2)}),
    "Sub": ([node("Sub", "w")], {"w": floats(6)}),
    "Mul": ([onnx.helper.make_node("Mul", ["w", "x"], ["y"])], {"w": floats(1)}),
    "Div of": ([onnx.helper.make_node("Div", ["w", "e"], ["y"]), node("Exp", out="e")][::-1], {"w": np.float32(2)}),
    "Div": ([node("Div", "w")], {"w": np.abs(floats(6)) + 1}),
    "Pow": ([node("Pow", "w")], {"w": np.float32(3)}),
    "Pow square": ([node("Pow", "w")], {"w": np.float32(2)}),
    "Reciprocal": ([node("Exp", out="e"), onnx.helper.make_node("Reciprocal", ["e"], ["y"])], {}),
    "Log": ([node("Exp", out="e"), onnx.helper.make_node("Log", ["e"], ["y"])], {}),
    "Min Max": (
        [node("Min", "a", out="m"), onnx.helper.make_node("Max", ["b", "m", "w"], ["y"])],
        {"a": np.float32(0.8), "b": np.float32(0.3), "w": floats(6)},
    ),
    "Sum": ([node("Sum", "w", "w")], {"w": floats(6)}),
    "Where": (
        [node("Greater", "half", out="g"), onnx.helper.make_node("Where", ["g", "x", "half"], ["y"])],
        {"half": np.float32(0.5)},
    ),
    "logic": (
        [
            node("Less", "a", out="l"), node("GreaterOrEqual", "b", out="h"), node("LessOrEqual", "a", out="e"),
            onnx.helper.make_node("Or", ["l", "h"], ["o"]), onnx.helper.make_node("Not", ["o"], ["n"]),
            onnx.helper.make_node("And", ["n", "e"], ["both"]), onnx.helper.make_node("Cast", ["both"], ["y"], to=1),
        ],
        {"a": np.float32(0.3), "b": np.float32(0.2)},
    ),
    "Clip": ([node("Clip", "a", "b")], {"a": np.float32(0.1), "b": np.float32(0.7)}),
    "Clip relu": ([node("Clip", "a")], {"a": np.float32(0)}),
    "Clip above": ([node("Clip", "", "b")], {"b": np.float32(0.5)}),
    "HardSigmoid of torch": ([node("HardSigmoid", alpha=1 / 6)], {}),
    "PRelu": ([node("Sub", "h", out="s"), onnx.helper.make_node("PRelu", ["s", "w"], ["y"])],
              {"h": np.float32(0.5), "w": floats(2, 1, 1)}),
    "PRelu one": ([node("Sub", "h", out="s"), onnx.helper.make_node("PRelu", ["s", "w"], ["y"])],
                  {"h": np.float32(0.5), "w": floats(1)}),
    "PRelu a pixel": ([node("Sub", "h", out="s"), onnx.helper.make_node("PRelu", ["s", "w"], ["y"])],
                      {"h": np.float32(0.5), "w": floats(6, 6)}),
    "BatchNormalization": (
        [node("BatchNormalization", "w", "b", "m", "v")],
        {"w": floats(2), "b": floats(2), "m": floats(2), "v": np.abs(floats(2)) + 0.1},
    ),
    "InstanceNormalization": ([node("InstanceNormalization", "w", "b")], {"w": floats(2), "b": floats(2)}),
    "LayerNormalization": ([node("LayerNormalization", "w", axis=2)], {"w": floats(6, 6)}),
    "LpNormalization": ([node("LpNormalization", axis=1)], {}),
    "LRN": ([node("LRN", size=1, alpha=0.5)], {}),
    "MaxPool": ([node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0], ceil_mode=1)], {}),
    "MaxPool same": (
        [node("Sub", "h", out="s"),
         onnx.helper.make_node("MaxPool", ["s"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER")],
        {"h": np.float32(2)},
    ),
    "MaxPool same of relu": (
        [node("Relu", out="s"),
         onnx.helper.make_node("MaxPool", ["s"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_LOWER")],
        {},
    ),
    "AveragePool": ([node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])], {}),
    "AveragePool counted": ([node("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)], {}),
    "ReduceMean of axes": ([node("ReduceMean", axes=[-1, 1], keepdims=0)], {}),
    "ReduceSum of an input": ([node("ReduceSum", "a", keepdims=0)], {"a": ints(3)}),
    "ArgMax": ([node("ArgMax", axis=1, out="a"), onnx.helper.make_node("Cast", ["a"], ["y"], to=1)], {}),
    "Reshape": ([node("Reshape", "s")], {"s": ints(-1, 4, 18)}),
    "Reshape merges the batch": ([node("Reshape", "s")], {"s": ints(-1, 36)}),
    "Reshape of five axes": ([node("Reshape", "s")], {"s": ints(0, 2, 2, 3, 6)}),
    "Reshape to fewer": (
        [node("GlobalMaxPool", out="p"), onnx.helper.make_node("Reshape", ["p", "s"], ["y"])], {"s": ints(-1, 2)},
    ),
    "Reshape to more": ([node("Reshape", "s")], {"s": ints(0, 1, 2, 6, 6, 1)}),
    "Flatten from 2": ([node("Flatten", axis=2)], {}),
    "Squeeze": ([node("ReduceMax", axes=[1, 2], out="m"), onnx.helper.make_node("Squeeze", ["m", "a"], ["y"])],
                {"a": ints(1, -2)}),
    "Squeeze all": ([node("ReduceMax", axes=[1, 2], out="m"), onnx.helper.make_node("Squeeze", ["m"], ["y"])], {}),
    "Unsqueeze": ([node("Unsqueeze", "a")], {"a": ints(1, -1)}),
    "Transpose of axes": ([node("Transpose", perm=[0, 3, 1, 2])], {}),
    "Concat": ([node("Concat", "x", axis=-1)], {}),
    "Split": (
        [onnx.helper.make_node("Split", ["x", "s"], ["a", "b"], axis=2),
         onnx.helper.make_node("Concat", ["b", "a"], ["y"], axis=2)],
        {"s": ints(2, 4)},
    ),
    "Split equal": (
        [onnx.helper.make_node("Split", ["x"], ["a", "b"], axis=1), onnx.helper.make_node("Sub", ["b", "a"], ["y"])],
        {},
    ),
    "Slice": ([node("Slice", "s", "e", "a", "t")], {"s": ints(-4, 1), "e": ints(-1, 2**62), "a": ints(2, -1),
                                                     "t": ints(1, 2)}),
    "Slice backwards": ([node("Slice", "s", "e", "a", "t")], {"s": ints(-1), "e": ints(-(2**62)), "a": ints(3),
                                                               "t": ints(-1)}),
    "Slice beyond": ([node("Slice", "s", "e")], {"s": ints(0, 0, -99), "e": ints(2**62, 99, 4)}),
    "Gather one": ([node("Gather", "i", axis=1)], {"i": np.array(-1)}),
    "Gather a run": ([node("Gather", "i", axis=2)], {"i": ints(1, 2, 3)}),
    "Gather others": ([node("Gather", "i", axis=3)], {"i": ints(5, 0, 0, -2)}),
    "Gather an embedding": (
        [node("Cast", out="c", to=7), onnx.helper.make_node("Gather", ["w", "c"], ["y"])], {"w": floats(3, 4)},
    ),
    "Expand": ([node("ReduceMean", axes=[1], out="m"), onnx.helper.make_node("Expand", ["m", "s"], ["y"])],
               {"s": ints(1, 5, 1, 1)}),
    "Tile": ([node("Tile", "r")], {"r": ints(1, 2, 1, 3)}),
    "Mish as two": ([node("Softplus", out="s"), onnx.helper.make_node("Tanh", ["s"], ["t"]), node("Mul", "t")], {}),
    "integers divide": (
        [node("Shape", out="s"), onnx.helper.make_node("Gather", ["s", "i"], ["n"]),
         onnx.helper.make_node("Div", ["n", "two"], ["half"]),
         onnx.helper.make_node("Slice", ["x", "zero", "half", "i"], ["y"])],
        {"i": ints(3), "two": ints(2), "zero": ints(0)},
    ),
    **{
        f"Resize {mode} {place} {rounding} to {size}": (
            [node("Resize", "", "", "s", mode=mode, coordinate_transformation_mode=place, nearest_mode=rounding)],
            {"s": ints(2, 2, size, size)},
        )
        for mode, place, rounding, size in (
            ("nearest", "asymmetric", "floor", 12), ("nearest", "half_pixel", "round_prefer_floor", 9),
            ("nearest", "align_corners", "round_prefer_ceil", 11), ("nearest", "asymmetric", "ceil", 4),
            ("linear", "half_pixel", "floor", 9), ("linear", "align_corners", "floor", 12),
            ("linear", "pytorch_half_pixel", "floor", 3), ("cubic", "half_pixel", "floor", 9),
        )
    },
}  # fmt: skip
LATER = {"Gelu": 20, "Mish": 18}


@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("Resize")])
def test_equals_onnxruntime(case: str, file: File) -> None:
    """The network of one operator gives onnxruntime's values for one, two and three rows."""
    nodes, weights = CASES[case]
    assert converted(file(nodes, weights)).apart <= 1e-5


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("Resize")])
def test_resizes_as_onnxruntime(case: str, file: File) -> None:
    """A resize of images gives onnxruntime's pixels; its sizes are given as scales, which leave the batch open."""
    nodes, weights = CASES[case]
    scale = np.array([1, 1, *[weights["s"][2] / 6] * 2], np.float32)
    nodes[0].input[:] = ["x", "", "s"]
    assert converted(file(nodes, {"s": scale})).apart <= 1e-5


@pytest.mark.parametrize(("name", "opset"), LATER.items())
def test_knows_operators_of_later_opsets(name: str, opset: int, file: File) -> None:
    """Gelu and Mish as their own operators."""
    assert converted(file([node(name)], opset=opset)).apart <= 1e-5


def test_pads_named_axes(file: File) -> None:
    """Pads of one axis, counted from the end, as opset 18 has them."""
    nodes = [node("Pad", "p", "", "axes")]
    assert converted(file(nodes, {"p": ints(1, 2), "axes": ints(-1)}, opset=18)).apart <= 1e-5


def test_translates_gelu_by_tanh(file: File) -> None:
    """The approximation is kept as it is."""
    assert converted(file([node("Gelu", approximate="tanh")], opset=20)).apart <= 1e-5


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_knows_earlier_forms(opset: int, file: File) -> None:
    """Attributes that later opsets made inputs: pads, clips, slices, squeezes, upsampling."""
    nodes = [
        node("Pad", out="p", pads=[0, 0, 1, 1, 0, 0, 0, 0], value=0.0),
        onnx.helper.make_node("Clip", ["p"], ["c"], min=0.1, max=0.8),
        onnx.helper.make_node("Slice", ["c"], ["s"], axes=[3], starts=[1], ends=[4]) if opset < 10
        else onnx.helper.make_node("Identity", ["c"], ["s"]),
        onnx.helper.make_node("Unsqueeze", ["s"], ["u"], axes=[1]),
        onnx.helper.make_node("Squeeze", ["u"], ["q"], axes=[1]),
        onnx.helper.make_node("ReduceSum", ["q"], ["r"], axes=[1], keepdims=1),
        onnx.helper.make_node("Upsample", ["r"], ["y"], scales=[1.0, 1.0, 2.0, 2.0]) if opset < 9
        else onnx.helper.make_node("Upsample" if opset == 9 else "Resize", ["r", "scales"], ["y"]),
    ]  # fmt: skip
    weights = {} if opset < 9 else {"scales": np.array([1, 1, 2, 2], np.float32)}
    assert converted(file(nodes, weights, opset=opset)).apart <= 1e-5


def test_tests_every_translator() -> None:
    """No translator is without a case here, or in the whole networks."""
    seen = {one.op_type for nodes, _ in CASES.values() for one in nodes}
    whole = {"LSTM", "GRU", "RNN", "GroupNormalization", "Upsample", "Equal", "Gelu", "Mish"}
    assert sorted(set(TRANSLATORS) - seen - whole) == []


@pytest.mark.parametrize(
    ("nodes", "weights", "said"),
    [
        ([node("NonZero")], {}, "NonZero"),
        ([node("Conv", "x")], {}, "weights 'x'"),
        ([node("BatchNormalization", "w", "w", "w", "w")], {"w": np.array([1, np.inf], np.float32)}, "infinity"),
        ([node("AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1])], {}, "don't count"),
        ([node("Resize", "", "s", mode="linear", coordinate_transformation_mode="asymmetric")],
         {"s": np.array([1, 1, 2, 2], np.float32)}, "asymmetric"),
        ([node("Slice", "s", "e", "a", "t")], {"s": ints(4), "e": ints(0), "a": ints(3), "t": ints(-1)}, "step -1"),
        ([node("Gather", "i", axis=2)], {"i": ints(1, 2).reshape(1, 2)}, "2 axes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_names_what_it_can_not_express(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], said: str, file: File
) -> None:
    """The error has node and operator, and says what remains to be done."""
    nodes[0].name = "the_node"
    with pytest.raises(OperatorError, match=said) as caught:
        converted(file(nodes, weights))
    assert f"{nodes[0].op_type} at 'the_node'" in str(caught.value)
    assert "leave the network steps out" in str(caught.value)


def test_refuses_a_gru_that_torch_has_not(file: File) -> None:
    """A GRU that resets before its product is another one."""
    nodes = [
        node("Flatten", out="f"), onnx.helper.make_node("Unsqueeze", ["f", "zero"], ["u"]),
        onnx.helper.make_node("GRU", ["u", "w", "r"], ["g"], hidden_size=3, name="the_gru"),
        onnx.helper.make_node("Squeeze", ["g", "two"], ["y"]),
    ]  # fmt: skip
    weights = {"w": floats(1, 9, 72), "r": floats(1, 9, 3), "zero": ints(0), "two": ints(0, 1)}
    with pytest.raises(OperatorError, match="GRU at 'the_gru' with linear_before_reset = 0"):
        converted(file(nodes, weights))


def test_makes_relu_of_clip(file: File) -> None:
    """Clips at 0, and at 0 and 6, are the activations that runtimes fuse."""
    nodes = [node("Clip", "zero", out="a"), onnx.helper.make_node("Clip", ["a", "zero", "six"], ["y"])]
    network = converted(file(nodes, {"zero": np.float32(0), "six": np.float32(6)})).network
    assert [type(module) for module in network.children()] == [torch.nn.ReLU, torch.nn.ReLU6]
