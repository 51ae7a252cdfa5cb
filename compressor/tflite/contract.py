"""Input and output tensors of a TFLite file for the manifest, read from the file itself.

Decides nothing: shapes, types, scales and zero points are those of the file.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from compressor.clean.given import flat_shape
from compressor.errors import ModelFileError
from compressor.tflite import flatbuffer
from compressor.tflite.packages import required
from wire.manifest import TensorSpec

_DTYPES = {"FLOAT32": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "uint8", "INT16": "int16",
           "INT32": "int32", "INT64": "int64", "BOOL": "bool"}  # fmt: skip
_IMAGE_RANK = 4


def contract(model: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return (inputs, outputs) of a TFLite file, in the order of its graph.

    Names are those of the signature, or else of the tensors. Shapes begin with -1, the batch; an input of four
    dimensions has layout ``NHWC``; an output of one row of values with further axes of size 1 is (N, values), as the
    runtime returns it; scale and zero point are 0 for float tensors.

    Raises:
        ModelFileError: If the file can't be read, or a tensor has a type that manifests don't support.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tree = flatbuffer.read(model, ModelFileError)
    graph = tree.subgraphs[0]
    names: dict[int, bytes] = {}
    for signature in tree.signatureDefs or []:
        if signature.subgraphIndex == 0:
            names |= {entry.tensorIndex: entry.name for entry in [*signature.inputs, *signature.outputs]}
    inputs = tuple(_spec(graph.tensors[index], names.get(index), "NHWC") for index in graph.inputs)
    outputs = (_spec(graph.tensors[index], names.get(index), "") for index in graph.outputs)
    return inputs, tuple(replace(one, shape=flat_shape(one.shape), layout="") for one in outputs)


def _spec(tensor: Any, name: bytes | None, image_layout: str) -> TensorSpec:  # noqa: ANN401 - generated, untyped
    label = (name or tensor.name or b"").decode(errors="replace")
    shape = (-1, *(int(size) for size in tensor.shape[1:]))
    layout = image_layout if len(shape) == _IMAGE_RANK else ""
    kinds = vars(required("ai_edge_litert.schema_py_generated").TensorType)
    dtype = next((_DTYPES.get(kind, "") for kind, value in kinds.items() if value == tensor.type), "")
    if not dtype:
        message = f"Expected {label!r} of type {', '.join(_DTYPES.values())}, got type {tensor.type}: convert it"
        raise ModelFileError(message)
    affine, scale, zero_point = tensor.quantization, 0.0, 0
    if affine is not None and affine.scale is not None and len(affine.scale):
        scale, zero_point = float(affine.scale[0]), int(affine.zeroPoint[0])
    return TensorSpec(name=label, shape=shape, dtype=dtype, layout=layout, scale=scale, zero_point=zero_point)
