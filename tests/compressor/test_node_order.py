"""Files with nodes in any order are sorted, and others are unchanged."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from compressor.formats._onnx_files import in_order


def disordered() -> bytes:
    """Return a model whose last node is listed first."""
    nodes = [helper.make_node("Relu", ["b"], ["logits"]), helper.make_node("Neg", ["a"], ["b"])]
    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "logits"))
    graph = helper.make_graph(nodes, "g", [given], [made])
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data


def test_nodes_come_after_those_they_read_from() -> None:
    """The checker requires it; onnxruntime runs them in any order."""
    model = onnx.load_from_string(in_order(disordered()))
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Neg", "Relu"]


def test_a_file_in_order_and_what_is_no_file_keep_their_bytes() -> None:
    """The user's file is the artifact as long as it can be."""
    data = in_order(disordered())
    assert in_order(data) is data
    assert in_order(b"no model") == b"no model"
