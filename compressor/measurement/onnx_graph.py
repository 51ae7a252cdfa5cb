"""The share of multiplications that the runtime executes in int8, read from the optimised graph.

The same int8 recipe can run at three speeds, so a quantized file proves nothing: the graph is read after the runtime's
own optimiser, with the session options of the manifest. Does not decide how large the share must be.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from compressor.errors import MeasureError

_WEIGHT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "ConvInteger": 1, "MatMulInteger": 1,
           "QLinearConv": 3, "QLinearMatMul": 3}  # fmt: skip
"""Index of the input that holds the weight, for each multiplying operator."""
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_DYNAMIC_LSTM, _LSTM_INPUTS = "DynamicQuantizeLSTM", 8
_INTEGER = frozenset({"QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat",
                      "DynamicQuantizeMatMul"})  # fmt: skip
_CONVERTING = ("QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE")
_RENAMED = re.compile(r"(_token_\d+|_nchwc|_nhwc)+$")
_ERROR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFigures:
    """``macs``: multiply-accumulates of one inference; ``int8_macs_ratio`` (0..1): the share in integer arithmetic.

    ``operators``: how often each operator occurs after optimisation. If multiplications can't be counted, both figures
    are None and ``unknown`` gives the reason.
    """

    macs: int | None
    int8_macs_ratio: float | None
    operators: Mapping[str, int]
    unknown: str = ""

    @property
    def converting(self) -> int:
        """The number of Quantize and Dequantize nodes left, under ONNX's or TFLite's names."""
        return sum(self.operators.get(name, 0) for name in _CONVERTING)


def inspect(artifact: bytes, session_options: Mapping[str, str], threads: int = 1) -> GraphFigures:
    """Return the figures of the ONNX model in ``artifact`` after onnxruntime's optimiser.

    A multiplication counts as int8 if it is an integer operator in the file itself, or if the optimised graph has an
    integer operator of the same name; one that can't be traced, for example because it has no name, counts as float. A
    model whose shapes can't be inferred has no counts.

    Raises:
        MeasureError: If the model can't be read, or onnxruntime refuses it.
    """
    optimised = _optimised(artifact, session_options, threads)
    operators = dict(sorted(Counter(node.op_type for node in optimised.graph.node).items()))
    try:
        already, macs = _macs(artifact)
    except MeasureError as error:
        return GraphFigures(macs=None, int8_macs_ratio=None, operators=operators, unknown=str(error))
    integer = {_RENAMED.sub("", node.name) for node in optimised.graph.node if node.op_type in _INTEGER}
    total = already + sum(count for _, count in macs)
    named = Counter(name for name, _ in macs)
    if not total:
        return GraphFigures(
            macs=None,
            int8_macs_ratio=None,
            operators=operators,
            unknown="Expected a model with convolutions or matrix products, got none",
        )
    share = (already + sum(count for name, count in macs if name in integer and named[name] == 1)) / total
    return GraphFigures(macs=total, int8_macs_ratio=share, operators=operators)


def _macs(artifact: bytes) -> tuple[int, list[tuple[str, int]]]:
    """Return the multiply-accumulates of integer operators, and name and count of every other multiplying node."""
    try:
        model = onnx.load_model_from_string(artifact)
        weights = {tensor.name for tensor in model.graph.initializer}
        for value in model.graph.input:
            if value.name not in weights:  # older exporters list weights as inputs too
                value.type.tensor_type.shape.dim[0].dim_value = 1
        for value in model.graph.output:  # inferred from the input instead of declared
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        dynamic = _as_lstm(model)
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except Exception as error:
        message = f"Expected an ONNX model with inferable shapes, got: {str(error)[:200]}"
        raise MeasureError(message) from error
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.input, *graph.output]
    }
    shapes |= {initializer.name: list(initializer.dims) for initializer in graph.initializer}
    multiplying = [
        node
        for node in graph.node
        if node.op_type in _RECURRENT
        or (node.op_type in _WEIGHT and (node.op_type != "MatMul" or len(shapes.get(node.input[1], [])) > 1))
    ]
    integer = [node for node in multiplying if node.op_type in _INTEGER or node.output[0] in dynamic]
    already = sum(_node_macs(node, shapes) for node in integer)
    others = [node for node in multiplying if node not in integer]
    return already, [(node.name or node.output[0], _node_macs(node, shapes)) for node in others]


def _as_lstm(model: onnx.ModelProto) -> set[str]:
    """Turn each DynamicQuantizeLSTM into the LSTM that it stands for, whose shapes onnx infers; return their outputs.

    Its weights are transposed, which changes no product of their sizes.
    """
    found = {name for node in model.graph.node if node.op_type == _DYNAMIC_LSTM for name in node.output if name}
    for node in model.graph.node:
        if node.op_type == _DYNAMIC_LSTM:
            node.op_type, node.domain = "LSTM", ""
            del node.input[_LSTM_INPUTS:]
    return found


def _recurrent_macs(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    """Return the multiplications of a recurrent layer over all steps of one sequence: input and recurrent weights."""
    taken, *weights = (shapes.get(name, []) for name in node.input[:3])
    batch_first = any(attribute.name == "layout" and attribute.i for attribute in node.attribute)
    known = len(taken) == len(weights[0]) == len(weights[1]) == 3  # noqa: PLR2004 - (steps, batch, in), (directions, ...)
    if not known or min([*taken, *weights[0], *weights[1]]) < 1:
        message = f"Expected known shapes at node {node.name or node.output[0]!r}, got {taken} and {weights}"
        raise MeasureError(message)
    return taken[1 if batch_first else 0] * sum(math.prod(shape) for shape in weights)


def _node_macs(node: onnx.NodeProto, shapes: Mapping[str, list[int]]) -> int:
    if node.op_type in _RECURRENT:
        return _recurrent_macs(node, shapes)
    output, weight = shapes.get(node.output[0], []), shapes.get(node.input[_WEIGHT[node.op_type]], [])
    if not output or not weight or min(output) < 1:
        message = f"Expected known shapes at node {node.name or node.output[0]!r}, got {output} and {weight}"
        raise MeasureError(message)
    if node.op_type in {"Conv", "ConvInteger", "QLinearConv"}:  # weight (out, in / groups, kernel...)
        return math.prod(output) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shapes[node.input[0]]) * math.prod(weight[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return math.prod(output) * weight[-1 if transposed else -2]


def _optimised(artifact: bytes, session_options: Mapping[str, str], threads: int) -> onnx.ModelProto:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort  # noqa: PLC0415 - only after telemetry is off

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _ERROR
        for key, value in session_options.items():
            options.add_session_config_entry(key, value)
        try:
            ort.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
            return onnx.load_model(str(path))
        except Exception as error:
            message = f"Expected a model that onnxruntime optimises, got: {str(error)[:200]}"
            raise MeasureError(message) from error
