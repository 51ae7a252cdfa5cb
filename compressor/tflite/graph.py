"""Multiplications of a TFLite file in LiteRT, and the share of them that runs in integer arithmetic.

LiteRT runs the operators of the file as they are, so the types of their tensors determine the kernel. Does not decide
how large the share must be.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compressor.errors import MeasureError
from compressor.measurement.onnx_graph import GraphFigures
from compressor.tflite import flatbuffer
from compressor.tflite.packages import required

Shapes = Sequence[tuple[int, ...]]

# (inputs, output) -> multiply-accumulates; weights: (out, height, width, in), (1, height, width, out) or (out, in)
_MACS: Mapping[str, Callable[[Shapes, tuple[int, ...]], int]] = {
    "CONV_2D": lambda inputs, output: math.prod(output) * math.prod(inputs[1][1:]),
    "DEPTHWISE_CONV_2D": lambda inputs, output: math.prod(output) * math.prod(inputs[1][1:3]),
    "FULLY_CONNECTED": lambda inputs, output: math.prod(output) * inputs[1][-1],
    "TRANSPOSE_CONV": lambda inputs, _: math.prod(inputs[2]) * math.prod(inputs[1][:3]),
}
_IN_LITERT = frozenset({"TFLite_Detection_PostProcess"})
"""Custom operators that every LiteRT has. Source: TensorFlow, lite/core/kernels/register.cc."""
_DATA_PLACE = {"TRANSPOSE_CONV": 2}


def inspect(artifact: bytes) -> GraphFigures:
    """Return the figures of the TFLite model in ``artifact``.

    A multiplication counts as int8 if its weights are int8 in the file and its kernel computes in integers: on int8 or
    int16 activations, or on float32 ones that the kernel quantizes at run time (dynamic quantization).

    Raises:
        MeasureError: If the model can't be read or has custom operators.
        PluginError: If the extra ``tflite`` is not installed.
    """
    model = flatbuffer.read(artifact, MeasureError)
    operators = [(flatbuffer.operator_name(model, one), one) for one in model.subgraphs[0].operators]
    if custom := sorted({name.partition(":")[2] for name, _ in operators if ":" in name} - _IN_LITERT):
        message = f"Expected built-in TFLite operators only, got {', '.join(custom)}"
        raise MeasureError(f"{message}: devices lack them; rebuild the model from built-in layers, or export to ONNX")
    tensors = model.subgraphs[0].tensors
    counted = dict(sorted(Counter(name for name, _ in operators).items()))
    try:
        macs = [(_macs(name, one, tensors), _in_integers(name, one, tensors)) for name, one in operators]
    except MeasureError as error:
        return GraphFigures(macs=None, int8_macs_ratio=None, operators=counted, unknown=str(error))
    total = sum(count for count, _ in macs)
    if not total:
        return GraphFigures(
            macs=None,
            int8_macs_ratio=None,
            operators=counted,
            unknown="Expected a model with convolutions or matrix products, got none",
        )
    share = sum(count for count, integer in macs if integer) / total
    return GraphFigures(macs=total, int8_macs_ratio=share, operators=counted)


def _macs(name: str, operator: Any, tensors: Sequence[Any]) -> int:  # noqa: ANN401 - generated, untyped
    inputs = [_shape(tensors[index]) if index >= 0 else () for index in operator.inputs]
    output = _shape(tensors[operator.outputs[0]]) if len(operator.outputs) else ()
    if not _multiplies(name):
        return 0
    if not output or any(size < 1 for shape in (output, *inputs) for size in shape):
        message = f"Expected known shapes at a {name}, got {inputs} to {output}: export with fixed shapes"
        raise MeasureError(message)
    if name == "BATCH_MATMUL":
        return math.prod(output) * inputs[0][-2 if operator.builtinOptions.adjX else -1]
    return _MACS[name](inputs, output)


def _multiplies(name: str) -> bool:
    return name == "BATCH_MATMUL" or name in _MACS


def _in_integers(name: str, operator: Any, tensors: Sequence[Any]) -> bool:  # noqa: ANN401 - generated, untyped
    if not _multiplies(name):
        return False
    types = required("ai_edge_litert.schema_py_generated").TensorType
    data = tensors[operator.inputs[_DATA_PLACE.get(name, 0)]].type
    weights = tensors[operator.inputs[1]].type
    return weights == types.INT8 and data in {types.INT8, types.INT16, types.FLOAT32}


def _shape(tensor: Any) -> tuple[int, ...]:  # noqa: ANN401 - generated, untyped
    return tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
