"""Files that are no network: cut short, changed, of other makers, too large. Each is refused with a sentence."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from compressor.errors import ConversionError, OperatorError
from compressor.importing import reading
from compressor.importing.conversion import module_of

File = Callable[..., bytes]
Exported = Callable[..., bytes]


@pytest.mark.parametrize("seed", range(20))
def test_refuses_a_truncated_file(seed: int, exported: Exported) -> None:
    """A file cut anywhere is an error of ours, never a stack of protobuf's or onnxruntime's."""
    data = exported("residual")
    cut = data[: random.Random(seed).randrange(len(data))]  # noqa: S311 - a seed, no secret
    with pytest.raises(ConversionError):
        module_of(cut)


@pytest.mark.parametrize("seed", range(30))
def test_changed_attributes_give_a_network_or_an_error(seed: int, exported: Exported) -> None:
    """One attribute, input or weight changed: what onnxruntime still runs is converted exactly, the rest is refused."""
    rng = random.Random(seed)  # noqa: S311 - a seed, no secret
    model = onnx.load_from_string(exported(rng.choice(["decoder", "transformer", "gru"])))
    node = rng.choice(model.graph.node)
    if node.attribute and rng.random() < 0.7:
        changed = rng.choice(node.attribute)
        changed.i, changed.f = rng.choice([-3, 0, 1, 2, 9]), rng.choice([-1.0, 0.0, 2.0])
        if changed.ints:
            changed.ints[rng.randrange(len(changed.ints))] = rng.choice([-2, 0, 1, 3])
    else:
        node.op_type = rng.choice(["Relu", "Conv", "Gemm", "Slice", "Frobnicate"])
    try:
        network = module_of(model.SerializeToString())
    except ConversionError as error:
        assert str(error).startswith("Expected")  # noqa: PT017 - either outcome is right
    else:
        assert list(network.parameters())


def test_names_an_operator_of_a_runtime(file: File) -> None:
    """A file that a runtime optimised holds its own operators: the message asks for the one before."""
    nodes = [onnx.helper.make_node("FusedConv", ["x", "w"], ["y"], name="fused", domain="com.microsoft")]
    with pytest.raises(ConversionError, match=r"com\.microsoft\.FusedConv at 'fused'.*before a runtime optimised it"):
        module_of(file(nodes, {"w": np.ones((2, 2, 1, 1), np.float32)}))


def test_names_a_file_that_is_quantized_already(file: File) -> None:
    """Integers can't be trained: the message names the first node and what to give."""
    weights = {"s": np.float32(0.1), "z": np.uint8(3)}
    nodes = [
        onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="first"),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    with pytest.raises(OperatorError, match=r"QuantizeLinear at 'first': the file is quantized already"):
        module_of(file(nodes, weights))


def test_refuses_sizes_that_are_not_known(file: File) -> None:
    """An open height can't be traced."""
    with pytest.raises(ConversionError, match="width and height"):
        module_of(file([onnx.helper.make_node("Relu", ["x"], ["y"])], shape=("N", 1, "H", 6)))


def test_refuses_a_second_input() -> None:
    """The inputs are named, and the key that fixes the others."""
    inputs = [onnx.helper.make_tensor_value_info(name, 1, ("N", 2)) for name in ("x", "scale")]
    output = onnx.helper.make_tensor_value_info("y", 1, ("N", 2))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Mul", ["x", "scale"], ["y"])], "g", inputs, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ConversionError, match="got x, scale: fix the others"):
        module_of(model.SerializeToString())


def test_refuses_an_output_that_no_input_reaches(file: File) -> None:
    """A constant output is no network."""
    nodes = [onnx.helper.make_node("Shape", ["x"], ["s"]), onnx.helper.make_node("Cast", ["s"], ["y"], to=1)]
    with pytest.raises(ConversionError, match="depend on the input, got y"):
        module_of(file(nodes))


def test_limits_size_and_nodes(file: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a huge file nor a huge graph is opened."""
    data = file([onnx.helper.make_node("Relu", ["x"], ["a"]), onnx.helper.make_node("Relu", ["a"], ["y"])])
    monkeypatch.setattr(reading, "MAX_NODES", 1)
    with pytest.raises(ConversionError, match="at most 1 nodes, got 2"):
        module_of(data)
    monkeypatch.setattr(reading, "MAX_MODEL_BYTES", 10)
    with pytest.raises(ConversionError, match="at most 10 bytes"):
        module_of(data)
