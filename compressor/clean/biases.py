"""Biases of shape (1, n) reshaped to (n,): onnxruntime's quantizer takes a bias for one number a channel."""

from __future__ import annotations

import onnx

from compressor.clean import _graph
from compressor.clean.given import Given

_BIAS = 2
_PRODUCTS = frozenset({"Gemm", "MatMul"})


def flatten_biases(model: onnx.ModelProto, given: Given) -> str:
    """Reshape the constant C of Gemm, and the constant that is added to a MatMul, to one axis."""
    del given
    known = _graph.constants(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    changed: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Gemm" and len(node.input) > _BIAS:
            places = [_BIAS]
        elif node.op_type == "Add":
            places = [i for i in (0, 1) if (made := makers.get(node.input[1 - i])) and made.op_type in _PRODUCTS]
        else:
            continue
        for place in places:
            tensor = known.get(node.input[place])
            if tensor is None or len(tensor.dims) < 2 or any(size != 1 for size in tensor.dims[:-1]):  # noqa: PLR2004
                continue
            if node.op_type == "Add" and len(tensor.dims) > 2:  # noqa: PLR2004 - it may add axes
                continue
            if tensor.name not in changed:
                changed[tensor.name] = _graph.free_name(model, f"{tensor.name}_flat")
                _graph.set_constant(model, changed[tensor.name], _graph.value_of(tensor).reshape(-1))
            node.input[place] = changed[tensor.name]
    _graph.drop_unneeded(model)
    return f"{', '.join(map(repr, changed))} reshaped to one axis" if changed else ""
