"""Recurrent layers in int8: LSTM as onnxruntime runs it dynamically, GRU and RNN with weights in int8 alone.

onnxruntime has no static kernel for them, so that Q/DQ pairs around one would only convert. ``DynamicQuantizeLSTM``
computes the ranges of its inputs for each call. The others get their weights by Cast and Mul, which onnxruntime folds
at load. Weights are symmetric, with one scale per output channel or per direction.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from compressor.clean.onnx_graph import graphs
from compressor.steps.quantize import Settings

RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_MS = "com.microsoft"
_LARGEST, _LARGEST_REDUCED = 127, 63
_WEIGHTS = (1, 2)  # indices of the inputs W and R, each (directions, gates x hidden, ...)
_INPUTS = 8
_LEAST_VALUES = 64  # below it, the nodes that convert take more bytes than they save


def in_int8(model: onnx.ModelProto, settings: Settings, *, but: Collection[str] = ()) -> onnx.ModelProto:
    """Return a copy of ``model`` whose recurrent layers have int8 weights; those named in ``but`` stay float."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    largest = _LARGEST_REDUCED if settings.reduce_range else _LARGEST
    constants = {tensor.name: tensor for tensor in changed.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        layer = node.op_type in RECURRENT and node.name not in but
        weights = [constants.get(node.input[i]) for i in _WEIGHTS] if layer else []
        if not weights or any(one is None or one.data_type != onnx.TensorProto.FLOAT for one in weights):
            nodes.append(node)
        elif node.op_type == "LSTM" and not _batch_first(node):
            nodes.append(_dynamic(changed, node, settings.per_channel, largest))
        else:
            nodes += [*_widening(changed, node, settings.per_channel), node]
    copied = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del changed.graph.node[:]
    changed.graph.node.extend(copied)
    _drop_unread(changed)
    return changed


def _batch_first(node: onnx.NodeProto) -> bool:
    return any(item.name == "layout" and item.i for item in node.attribute)


def rounded(
    values: npt.NDArray[np.float32], *, per_channel: bool, largest: int = _LARGEST
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return weights (directions, channels, ...) as int8, and their scales, (directions, channels or 1, 1)."""
    most = np.abs(values).max(axis=2 if per_channel else (1, 2), keepdims=True)
    scale = np.where(most > 0, most / largest, 1).astype(np.float32)
    return np.clip(np.round(values / scale), -largest, largest).astype(np.int8), scale


def _dynamic(model: onnx.ModelProto, node: onnx.NodeProto, per_channel: bool, largest: int) -> onnx.NodeProto:  # noqa: FBT001 - a setting
    """Return the DynamicQuantizeLSTM that replaces ``node``.

    Source: onnxruntime, ContribOperators.md, com.microsoft.DynamicQuantizeLSTM.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [*node.input, *[""] * (_INPUTS - len(node.input))]
    scales = []
    for index in _WEIGHTS:
        name = f"{node.name}_{'WR'[index - 1]}"
        integers, scale = rounded(
            onnx.numpy_helper.to_array(constants[node.input[index]]), per_channel=per_channel, largest=largest
        )
        shape = scale.shape[:2] if per_channel else scale.shape[:1]
        made: dict[str, npt.NDArray[Any]] = {
            f"{name}_int8": np.ascontiguousarray(integers.transpose(0, 2, 1)),
            f"{name}_scale": scale.reshape(shape),
            f"{name}_zero": np.zeros(shape, np.int8),
        }
        model.graph.initializer.extend(onnx.numpy_helper.from_array(value, key) for key, value in made.items())
        inputs[index] = f"{name}_int8"
        scales += [f"{name}_scale", f"{name}_zero"]
    replaced = onnx.helper.make_node(
        "DynamicQuantizeLSTM", [*inputs, *scales], list(node.output), name=node.name, domain=_MS
    )
    replaced.attribute.extend(item for item in node.attribute if item.name != "layout")
    if all(entry.domain != _MS for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(_MS, 1))
    return replaced


def _widening(model: onnx.ModelProto, node: onnx.NodeProto, per_channel: bool) -> list[onnx.NodeProto]:  # noqa: FBT001 - a setting
    """Store the weights of ``node`` as int8, and return the nodes that make them float32 again."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for index in _WEIGHTS:
        values = onnx.numpy_helper.to_array(constants[node.input[index]])
        if values.size < _LEAST_VALUES:
            continue
        name = f"{node.name}_{'WR'[index - 1]}"
        integers, scale = rounded(values, per_channel=per_channel)
        stored, factor, cast = (f"{name}_{part}" for part in ("int8", "scale", "cast"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(integers, stored))
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale, factor))
        nodes += [
            onnx.helper.make_node("Cast", [stored], [cast], name=cast, to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [cast, factor], [name], name=name),
        ]
        node.input[index] = name
    return nodes


def _drop_unread(model: onnx.ModelProto) -> None:
    """Drop the constants that nothing reads, neither the graph nor a branch or loop inside it."""
    within = list(graphs(model.graph))
    read = {name for graph in within for node in graph.node for name in node.input}
    read |= {value.name for graph in within for value in graph.output}
    kept = [onnx.TensorProto.FromString(one.SerializeToString()) for one in model.graph.initializer if one.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
