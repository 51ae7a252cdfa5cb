"""What an export leaves over is removed, and what a file needs stays."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from compressor.export.stripping import strip


def test_an_operator_set_that_only_a_branch_uses_stays() -> None:
    """Without it the file is invalid."""
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("a", "b", "y")]
    then = helper.make_graph([helper.make_node("FastGelu", ["x"], ["a"], domain="com.microsoft")], "then", [], made[:1])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "else", [], made[1:2])
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    sets = [helper.make_opsetid(domain, version) for domain, version in (("", 17), ("com.microsoft", 1), ("unused", 1))]
    model = helper.make_model(helper.make_graph([node], "g", inputs, made[2:]), opset_imports=sets, ir_version=8)
    stripped = strip(model)
    onnx.checker.check_model(stripped)
    assert [one.domain for one in stripped.opset_import] == ["", "com.microsoft"]
