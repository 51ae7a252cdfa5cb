"""Reads and writes TFLite files as the object tree of their schema, and removes what only the conversion needed.

Decides the form of a file: no metadata, no ranges beside the scales, data aligned to 16 bytes, so that equal models
give equal bytes. Does not change what a model computes.
Source: LiteRT, schema.fbs (``Buffer.data`` has ``force_align: 16``).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import CompressorError
from compressor.tflite.packages import required

_ALIGNMENT = 16
_IDENTIFIER = b"TFL3"
OUTPUT_NAMES = ("logits", "embedding")
WEIGHT_PLACE = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
BIAS_PLACE = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Where an operator with weights has them, and its bias, among its inputs."""


def read(model: bytes, error_class: type[CompressorError]) -> Any:  # noqa: ANN401 - generated, untyped
    """Return the ``ModelT`` of a TFLite file; all empty buffers become one.

    Raises:
        CompressorError: As ``error_class``, if ``model`` is not a TFLite file.
        PluginError: If the extra is not installed.
    """
    tools = required("ai_edge_litert.tools.flatbuffer_utils")
    if model[4:8] != _IDENTIFIER:
        message = f"Expected a TFLite file, got {len(model)} bytes that begin with {model[:8]!r}: export the model anew"
        raise error_class(message)
    try:
        tree = tools.read_model_from_bytearray(model)
        _check(tree)
    except (struct.error, ValueError, IndexError, TypeError, AttributeError) as error:
        message = f"Expected a whole TFLite file, got {len(model)} bytes: {str(error)[:200]}: export the model anew"
        raise error_class(message) from error
    return tree


def write(model: Any) -> bytes:  # noqa: ANN401 - generated, untyped
    """Return the file of ``model``, a ``ModelT``, without leftovers of the conversion."""
    model.description, model.metadata, model.metadataBuffer = b"", None, None
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    for affine, tensor in ((one.quantization, one) for one in tensors if one.quantization is not None):
        affine.min = affine.max = None
        if affine.details is None and (affine.scale is None or not len(affine.scale)):
            tensor.quantization = None
    # Buffer 0 is reserved for "no data"; of the others those stay that a tensor uses.
    used = sorted({0} | {int(tensor.buffer) for tensor in tensors})
    places = {old: new for new, old in enumerate(used)}
    for tensor in tensors:
        tensor.buffer = places[int(tensor.buffer)]
    model.buffers = [model.buffers[old] for old in used]
    builder = _aligning_builder()
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _aligning_builder() -> Any:  # noqa: ANN401 - untyped
    """Return a builder that aligns data: Python's own ignores ``force_align``; byte vectors hold the tensors' data."""
    base: Any = required("flatbuffers").Builder

    class _Aligning(base):  # type: ignore[misc]  # untyped
        def StartVector(self, size: int, count: int, alignment: int) -> object:  # noqa: N802 - overrides
            return super().StartVector(size, count, _ALIGNMENT if size == 1 else alignment)

    return _Aligning(1024)


def operator_name(model: Any, operator: Any) -> str:  # noqa: ANN401 - generated, untyped
    """Return the built-in operator's name in the schema, or ``CUSTOM:<its own name>``."""
    schema = required("ai_edge_litert.schema_py_generated")
    code = model.operatorCodes[operator.opcodeIndex]
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM:{(code.customCode or b'').decode(errors='replace')}"
    names: dict[int, str] = {
        value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)
    }
    return names.get(builtin, f"UNKNOWN:{builtin}")


def constant(model: Any, tensor: Any) -> npt.NDArray[np.float32] | None:  # noqa: ANN401 - generated, untyped
    """Return the values of a float32 constant in its shape; None for a tensor that is computed."""
    data = model.buffers[tensor.buffer].data
    if (
        data is None
        or not len(data)
        or tensor.type != required("ai_edge_litert.schema_py_generated").TensorType.FLOAT32
    ):
        return None
    shape = [int(size) for size in tensor.shape] if tensor.shape is not None else []
    return np.frombuffer(bytes(bytearray(data)), np.float32).reshape(shape)


def _check(model: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Raise if an index is out of range or a name is no text: other code relies on both. Missing names become empty."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = tensor.name or b""
            tensor.name.decode()
            _ = model.buffers[tensor.buffer]
        lists = [graph.inputs, graph.outputs]
        for operator in graph.operators:
            _ = model.operatorCodes[operator.opcodeIndex]
            operator.inputs, operator.outputs = operator.inputs or [], operator.outputs or []
            lists += [operator.inputs, operator.outputs]
        if any(not -1 <= index < len(graph.tensors) for indices in lists for index in indices):
            raise ValueError("an operator of a tensor that is not there")
    for signature in model.signatureDefs or []:
        for entry in [*signature.inputs, *signature.outputs]:
            entry.name.decode()
            _ = model.subgraphs[signature.subgraphIndex].tensors[entry.tensorIndex]
