"""Float input and outputs for a quantized TFLite graph: a QUANTIZE before it, a DEQUANTIZE after each output.

With ai-edge-quantizer's own option for float edges the file does not load if an output is also read inside the graph,
as an embedding is. Decides the edges only.
Source: TensorFlow, lite/tools/versioning/op_version.cc (versions of QUANTIZE and DEQUANTIZE by type).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from compressor.tflite.packages import required


def make_float(model: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Replace the integer inputs and outputs of the first graph of ``model``, a ``ModelT``, by float32 ones.

    The new tensors take over the names; the inner ones get the suffix ``.integers``. Changed in place.
    """
    schema = required("ai_edge_litert.schema_py_generated")
    graph = model.subgraphs[0]
    integers = {schema.TensorType.INT8, schema.TensorType.INT16}
    for index in [one for one in graph.inputs if graph.tensors[one].type in integers]:
        edge = _edge(model, graph, index, graph.inputs)
        graph.operators.insert(0, _operator(model, "QUANTIZE", graph.tensors[index].type, edge, index))
    for index in [one for one in graph.outputs if graph.tensors[one].type in integers]:
        edge = _edge(model, graph, index, graph.outputs)
        graph.operators.append(_operator(model, "DEQUANTIZE", graph.tensors[index].type, index, edge))


def _edge(model: Any, graph: Any, index: int, ends: list[int]) -> int:  # noqa: ANN401 - generated, untyped
    """Add the float tensor that replaces ``index`` as input or output, and return its index."""
    schema = required("ai_edge_litert.schema_py_generated")
    inside, edge = graph.tensors[index], copy.copy(graph.tensors[index])
    edge.type, edge.quantization, edge.buffer = schema.TensorType.FLOAT32, None, 0
    inside.name = edge.name + b".integers"
    graph.tensors.append(edge)
    new = len(graph.tensors) - 1
    ends[ends.index(index)] = new
    is_input = ends is graph.inputs
    for signature in model.signatureDefs or []:
        _repoint(signature.inputs if is_input else signature.outputs, index, new)
    return new


def _repoint(entries: Sequence[Any], old: int, new: int) -> None:
    for entry in entries:
        if entry.tensorIndex == old:
            entry.tensorIndex = new


def _operator(model: Any, kind: str, integer: int, source: int, target: int) -> Any:  # noqa: ANN401 - generated
    schema = required("ai_edge_litert.schema_py_generated")
    wide = integer == schema.TensorType.INT16
    version = (2 if wide else 1) if kind == "QUANTIZE" else (3 if wide else 2)
    operator = schema.OperatorT()
    operator.opcodeIndex = _code(model, getattr(schema.BuiltinOperator, kind), version)
    operator.inputs, operator.outputs = [source], [target]
    return operator


def _code(model: Any, builtin: int, version: int) -> int:  # noqa: ANN401 - generated, untyped
    """Return the index of the operator's code with at least this version, added if the model has none."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            code.version = max(code.version, version)
            return index
    code = required("ai_edge_litert.schema_py_generated").OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
