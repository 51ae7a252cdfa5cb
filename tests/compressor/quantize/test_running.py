"""What a file says on calibration data: its logits, wherever they stand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.quantize.running import logits


def two_outputs(names: list[str]) -> onnx.ModelProto:
    """Return a model that gives its input and its negative, under these names."""
    nodes = [helper.make_node(kind, ["x"], [name]) for kind, name in zip(("Identity", "Neg"), names, strict=True)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", *names)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("names", "sign"), [(["logits", "embedding"], 1), (["embedding", "logits"], -1), (["scores", "features"], 1)]
)
def test_logits_are_the_output_of_that_name_else_the_first(names: list[str], sign: int) -> None:
    """Corrections and sensitivities compare answers, not embeddings."""
    batch = np.array([[1, 2], [3, 4]], np.float32)
    assert np.array_equal(logits(two_outputs(names), lambda: [batch]), sign * batch)
