"""Preparation of a float model: the forms of other exporters keep their meaning."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.quantize._model import layers, prepare


def modern() -> bytes:
    """Return a small opset 18 model as torch's dynamo exporter writes it: the axes of its mean are an initializer."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "axes": np.array([2, 3], dtype=np.int64),
        "head": rng.normal(size=(4, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["seen"]),
        helper.make_node("ReduceMean", ["seen", "axes"], ["mean"], keepdims=0),
        helper.make_node("Gemm", ["mean", "head"], ["logits"]),
    ]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])
    made = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "modern", [given], [made], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_axes_that_are_initializers_survive_preparation() -> None:
    """Without them no shape behind a mean is known, and nothing could be quantized."""
    prepared = prepare(modern())
    assert isinstance(prepared, onnx.ModelProto)
    assert [layer.macs for layer in layers(prepared)] == [4 * 6 * 6 * 9, 4 * 2]
