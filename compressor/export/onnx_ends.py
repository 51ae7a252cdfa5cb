"""Other ends of an ONNX file: an output as a matrix, the layer before the last, a linear layer behind an output.

What a new end does not need is left out. The computation up to there is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compressor.clean import onnx_graph
from compressor.errors import ModelSignatureError
from compressor.export import EMBEDDING

PICTURE, DEVIATIONS = "picture", "deviations"
"""Names of the outputs that are made here."""
_OWN = "tinyfleet_"
_WEIGHTED = frozenset({"Gemm", "MatMul", "Conv"})
_IMAGE, _MATRIX = 4, 2


def with_outputs(data: bytes, names: Sequence[str]) -> bytes:
    """Return the file with these of its outputs alone."""
    model = onnx.load_from_string(data)
    kept = {one.name: one for one in model.graph.output}
    return _ended(model, [kept[name] for name in names])


def as_matrix(data: bytes, output: str, sizes: Sequence[int], *, channels_last: bool) -> tuple[bytes, str]:
    """Return the file with ``output`` alone as (N, D), a picture in the order of channels, rows and columns; its name.

    ``sizes``: of one input's ``output``, (rows, columns, channels) with ``channels_last``; it may be flat.
    """
    model = onnx.load_from_string(data)
    nodes, last, own = [], output, _prefix(model)
    flat = ("Reshape", (-1, math.prod(sizes)))
    reordered = [("Reshape", (-1, *sizes)), ("Transpose", (0, 3, 1, 2))] if channels_last else []
    for place, (operator, shape) in enumerate([*reordered, flat]):
        made = f"{own}end_{place}"
        if operator == "Reshape":
            model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), f"{own}shape_{place}"))
            nodes.append(helper.make_node(operator, [last, f"{own}shape_{place}"], [made], made))
        else:
            nodes.append(helper.make_node(operator, [last], [made], made, perm=shape))
        last = made
    name = _free(model, PICTURE)
    nodes[-1].output[0] = name
    model.graph.node.extend(nodes)
    return _ended(model, [_matrix(name, math.prod(sizes))]), name


def before_last(data: bytes, output: str) -> tuple[bytes, str]:
    """Return the file with the input of the last layer with weights before ``output`` alone, (N, D), and its name.

    Of an image, (N, C, H, W), it is the mean over the image.

    Raises:
        ModelSignatureError: If there is no such layer, or its input is not (N, D) or an image.
    """
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(data))
    own, weights = _prefix(model), {tensor.name for tensor in model.graph.initializer}
    for maker in model.graph.node:  # constants, and weights behind a Transpose or a Cast
        weights.update(maker.output if weights.issuperset(filter(None, maker.input)) else ())
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and not (node.op_type in _WEIGHTED and weights & set(node.input)):
        node = next((makers[name] for name in node.input if name in makers and name not in weights), None)
    found = "" if node is None else next(name for name in node.input if name not in weights)
    sizes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in model.graph.value_info}
    shape = sizes.get(found, [])
    if len(shape) not in {_MATRIX, _IMAGE}:
        message = f"Expected a last layer with weights before {output!r} whose input is (N, D), got {shape or 'none'}"
        raise ModelSignatureError(f"{message}: export the embedding as an output, and set outputs = 'embedding'")
    if len(shape) == _IMAGE:
        model.graph.node.extend([
            helper.make_node("GlobalAveragePool", [found], [f"{own}pooled"], f"{own}pool"),
            helper.make_node("Flatten", [f"{own}pooled"], [f"{own}features"], f"{own}flatten", axis=1),
        ])  # fmt: skip
        found = f"{own}features"
    return _ended(model, [_matrix(found, shape[1] if len(shape) == _MATRIX else 0)]), found


def with_linear(
    data: bytes, output: str, weights: NDArray[np.float32], offsets: NDArray[np.float32]
) -> tuple[bytes, tuple[str, str]]:
    """Return the file with ``output @ weights + offsets`` and ``output`` itself as its outputs, and their names.

    ``output`` is (N, D), ``weights`` (D, K), ``offsets`` (K,).
    """
    model = onnx.load_from_string(data)
    own = _prefix(model)
    tensors = {f"{own}weights": weights, f"{own}offsets": offsets}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(values), name) for name, values in tensors.items()
    )
    made = _free(model, DEVIATIONS)
    model.graph.node.append(helper.make_node("Gemm", [output, *tensors], [made], f"{own}deviations"))
    name = output
    if output != EMBEDDING:
        name = _free(model, EMBEDDING)
        model.graph.node.append(helper.make_node("Identity", [output], [name], f"{own}embedding"))
    return _ended(model, [_matrix(made, weights.shape[1]), _matrix(name, weights.shape[0])]), (made, name)


def _matrix(name: str, width: int) -> onnx.ValueInfoProto:
    """Return the description of an output (N, ``width``); 0: open."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width or None])


def _free(model: onnx.ModelProto, name: str) -> str:
    """Return ``name``, or one like it that no tensor has."""
    taken = onnx_graph.tensor_names(model)
    while name in taken:
        name += "_"
    return name


def _prefix(model: onnx.ModelProto) -> str:
    """Return a prefix that no tensor and no node has."""
    prefix, taken = _OWN, tuple(onnx_graph.tensor_names(model) | {node.name for node in model.graph.node})
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix


def _ended(model: onnx.ModelProto, outputs: Sequence[onnx.ValueInfoProto]) -> bytes:
    """Return the bytes of ``model`` with these ``outputs``, without what they don't need."""
    wanted = [onnx.ValueInfoProto.FromString(one.SerializeToString()) for one in outputs]  # they may be its own
    del model.graph.output[:]
    model.graph.output.extend(wanted)
    onnx_graph.drop_unneeded(model)
    del model.graph.value_info[:]
    made: bytes = model.SerializeToString()
    return made
