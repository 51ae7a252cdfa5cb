"""Share of the weights that a quantizer left in float32: a step that did nothing must not report success.

Counts the elements of constant tensors with at least two axes (biases and scales have one) and a weight's type: sizes
and paddings are integers of 32 or 64 bits. Does not decide what a scheme can quantize.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from compressor.errors import QuantizeError
from compressor.steps.quantize import Settings

MOST_LEFT = 0.5
"""Share of the weights that may stay float32 without being requested; above it the file is mainly a float file."""
_NAMED = 3
_AXES = 2


@dataclass(frozen=True, slots=True)
class Left:
    """``ratio`` (0..1): the share of the weights in float32; ``names``: the largest such tensors."""

    ratio: float
    names: tuple[str, ...]

    def __str__(self) -> str:
        """Describe it in a clause."""
        return f"{100 * self.ratio:.0f} % of its weights left float32 ({', '.join(self.names)})"


def left_float(model: bytes, runtime: str) -> Left:
    """Return the share of float32 weights in ``model``, an ONNX or TFLite file; 1.0 if there are no weights.

    Raises:
        QuantizeError: If the file can't be read.
    """
    found = list(_tflite(model) if runtime == "litert" else _onnx(model))
    total = sum(size for _, size, _ in found)
    plain = sorted(((size, name) for name, size, is_float in found if is_float), reverse=True)
    if not total:
        return Left(1.0, ("there are no weights",))
    return Left(sum(size for size, _ in plain) / total, tuple(name for _, name in plain[:_NAMED]))


def check(model: bytes, runtime: str, step: Settings) -> str:
    """Return a remark on the weights that ``step`` left float in ``model``; empty if there are none.

    Raises:
        QuantizeError: If more than half of the weights are float, and the recipe neither allows nor requests it.
    """
    if step.scheme == "none":
        return ""
    left = left_float(model, runtime)
    asked = step.allow_unquantized or step.float_layers or step.float_layers_auto
    if left.ratio > MOST_LEFT and not asked:
        message = f"Expected step 'quantize' ({step.scheme}) to quantize the weights, got {left}"
        advice = "choose another scheme or network, or set allow_unquantized = true"
        raise QuantizeError(f"{message}: no kernel or rule for them here; {advice}")
    return f"quantize ({step.scheme}): {left}" if left.ratio > 0 else ""


def _onnx(model: bytes) -> Iterator[tuple[str, int, bool]]:
    import onnx  # noqa: PLC0415 - only for ONNX files

    try:
        graph = onnx.load_from_string(model).graph
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        message = f"Expected an ONNX model from a quantizer, got {len(model)} bytes: {error}"
        raise QuantizeError(message) from error
    constants = [
        (node.output[0], item.t) for node in graph.node if node.op_type == "Constant" for item in node.attribute
    ]
    indices = {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL}
    readers = {name: node.op_type for node in reversed(graph.node) for name in node.input}
    for name, tensor in [*((one.name, one) for one in graph.initializer), *constants]:
        if len(tensor.dims) >= _AXES and tensor.data_type not in indices:
            yield (
                f"{name!r} of {readers.get(name, 'no node')}",
                math.prod(tensor.dims),
                tensor.data_type == onnx.TensorProto.FLOAT,
            )


def _tflite(model: bytes) -> Iterator[tuple[str, int, bool]]:
    from compressor.tflite import flatbuffer  # noqa: PLC0415 - LiteRT only for its targets
    from compressor.tflite.packages import required  # noqa: PLC0415 - likewise

    types = required("ai_edge_litert.schema_py_generated").TensorType
    indices = {types.INT32, types.INT64, types.BOOL}
    tree = flatbuffer.read(model, QuantizeError)
    for tensor in (tensor for graph in tree.subgraphs for tensor in graph.tensors):
        data = tree.buffers[tensor.buffer].data
        shape = tensor.shape if tensor.shape is not None else ()
        if data is not None and len(data) and len(shape) >= _AXES and tensor.type not in indices:
            yield _text(tensor.name), math.prod(int(size) for size in shape), tensor.type == types.FLOAT32


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
