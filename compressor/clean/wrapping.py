"""Inputs and outputs of other types and layouts wrapped: a device feeds float32 in the layout (N, C, H, W)."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import TensorProto, helper

from compressor.clean import onnx_graph
from compressor.clean.given import Given, flat_shape

_TO_NHWC = (0, 2, 3, 1)
_TO_NCHW = [0, 3, 1, 2]
_AXES, _FLAT = 4, 2
_TO_PIXELS: dict[str, tuple[str, tuple[str, ...]]] = {
    "scaled": ("Mul", ("factor",)), "pixels": ("Add", ("offset",)), "rounded": ("Round", ()),
    "limited": ("Clip", ("least", "most")),
}  # fmt: skip
"""Nodes from a normalised value to a pixel: their operators and further inputs, in order."""


def feed_nchw(model: onnx.ModelProto, given: Given) -> str:
    """Transpose the input of a file that takes (N, H, W, C)."""
    inputs = onnx_graph.data_inputs(model)
    if len(inputs) != 1 or len(given.shape) != _AXES - 1:
        return ""
    value, sizes = inputs[0], onnx_graph.sizes_of(inputs[0])
    own, wanted = tuple(sizes[1:]), tuple(given.shape)
    last = (*wanted[1:], wanted[0])
    if len(sizes) != _AXES or own == wanted or not all(size in {0, want} for size, want in zip(own, last, strict=True)):
        return ""
    if all(size in {0, want} for size, want in zip(own, wanted, strict=True)):
        return ""  # open sizes fit both: taken as (N, C, H, W)
    batch = onnx.TensorShapeProto.Dimension()
    batch.CopyFrom(value.type.tensor_type.shape.dim[0])
    undone = _bypass(model, value.name)
    if not undone:
        moved = onnx_graph.free_name(model, f"{value.name}_nhwc")
        onnx_graph.rename_inputs(model, {value.name: moved})
        node = helper.make_node("Transpose", [value.name], [moved], name=moved, perm=list(_TO_NHWC))
        onnx_graph.set_nodes(model, [node, *model.graph.node])
    dims = value.type.tensor_type.shape.dim
    for dim, size in zip(dims[1:], wanted, strict=True):
        dim.Clear()
        dim.dim_value = size
    dims[0].CopyFrom(batch)
    del model.graph.value_info[:]
    how = "its first Transpose is left out" if undone else "a Transpose stands before it"
    return f"the input was (N, {', '.join(map(str, last))}): {how}"


def flatten_first(model: onnx.ModelProto, given: Given) -> str:
    """Flatten rows of one channel for a file that takes (N, values); of several the order can't be known."""
    inputs = onnx_graph.data_inputs(model)
    count = math.prod(given.shape)
    if len(inputs) != 1 or len(given.shape) != _AXES - 1 or given.shape[0] != 1:
        return ""
    value, sizes = inputs[0], onnx_graph.sizes_of(inputs[0])
    if len(sizes) != _FLAT or sizes[1] not in {0, count}:
        return ""
    onnx_graph.ensure_standard(model)
    flat = onnx_graph.free_name(model, f"{value.name}_flat")
    onnx_graph.rename_inputs(model, {value.name: flat})
    node = helper.make_node("Flatten", [value.name], [flat], name=flat, axis=1)
    onnx_graph.set_nodes(model, [node, *model.graph.node])
    dims = value.type.tensor_type.shape.dim
    del dims[1:]
    for size in given.shape:
        dims.add().dim_value = size
    del model.graph.value_info[:]
    return f"the input was (N, {count}): a Flatten stands before it"


def _bypass(model: onnx.ModelProto, name: str) -> bool:
    """Leave out the Transpose to (N, C, H, W) if nothing else reads the input ``name``."""
    nodes = onnx_graph.readers(model).get(name, [])
    outputs = {value.name for value in model.graph.output}
    if len(nodes) != 1 or nodes[0].op_type != "Transpose" or nodes[0].output[0] in outputs:
        return False
    if [list(item.ints) for item in nodes[0].attribute if item.name == "perm"] != [_TO_NCHW]:
        return False
    gone = nodes[0].output[0]
    onnx_graph.set_nodes(model, [node for node in model.graph.node if list(node.output) != [gone]])
    onnx_graph.rename_inputs(model, {gone: name})
    return True


def feed_pixels(model: onnx.ModelProto, given: Given) -> str:
    """Compute the uint8 pixels that the file takes back from the values that a device feeds."""
    if _taken(model) != TensorProto.UINT8 or not given.factor:
        return ""
    name, nodes = onnx_graph.data_inputs(model)[0].name, []
    source = name
    factor, offset = given.to_pixels
    numbers = {"factor": factor, "offset": offset, "least": 0.0, "most": 255.0}
    parts = {part: onnx_graph.free_name(model, f"{name}_{part}") for part in (*numbers, *_TO_PIXELS)}
    for part, number in numbers.items():
        onnx_graph.set_constant(model, parts[part], np.array(number, np.float32))
    for part, (operator, further) in _TO_PIXELS.items():
        taken = [source, *(parts[one] for one in further)]
        nodes.append(helper.make_node(operator, taken, [parts[part]], name=parts[part]))
        source = parts[part]
    _convert(model, nodes, source, TensorProto.UINT8)
    return "float32 inputs are converted to the uint8 pixels that it takes"


def feed_half(model: onnx.ModelProto, given: Given) -> str:
    """Convert float32 inputs to the float16 that the file takes."""
    del given
    if _taken(model) != TensorProto.FLOAT16:
        return ""
    _convert(model, [], onnx_graph.data_inputs(model)[0].name, TensorProto.FLOAT16)
    return "float32 inputs are converted to the float16 that it takes"


def _taken(model: onnx.ModelProto) -> int:
    """Return the type of the only input, that of undefined values if there are more."""
    inputs = onnx_graph.data_inputs(model)
    return int(inputs[0].type.tensor_type.elem_type) if len(inputs) == 1 else TensorProto.UNDEFINED


def _convert(model: onnx.ModelProto, nodes: list[onnx.NodeProto], source: str, kind: int) -> None:
    """Put ``nodes`` before all others, which then read a Cast of ``source``; the input takes float32."""
    value = onnx_graph.data_inputs(model)[0]
    cast = onnx_graph.free_name(model, f"{value.name}_{TensorProto.DataType.Name(kind).lower()}")
    onnx_graph.rename_inputs(model, {value.name: cast})
    nodes.append(helper.make_node("Cast", [source], [cast], name=cast, to=kind))
    onnx_graph.set_nodes(model, [*nodes, *model.graph.node])
    value.type.tensor_type.elem_type = TensorProto.FLOAT


def _moved(model: onnx.ModelProto, name: str, tag: str) -> str:
    """Give the output ``name`` another name inside the graph, and return it: a node behind it makes ``name`` anew."""
    inside = onnx_graph.free_name(model, f"{name}_{tag}")
    for node in model.graph.node:
        node.output[:] = [inside if one == name else one for one in node.output]
    onnx_graph.rename_inputs(model, {name: inside})
    return inside


def answer_in_float(model: onnx.ModelProto, given: Given) -> str:
    """Convert float16 outputs to float32."""
    del given
    changed = []
    for value in model.graph.output:
        if value.type.tensor_type.elem_type != TensorProto.FLOAT16:
            continue
        half = _moved(model, value.name, "float16")
        node = helper.make_node("Cast", [half], [value.name], name=f"{half}_cast", to=TensorProto.FLOAT)
        model.graph.node.append(node)
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        changed.append(value.name)
    return f"float16 outputs are converted to float32: {', '.join(changed)}" if changed else ""


def flatten_answers(model: onnx.ModelProto, given: Given) -> str:
    """Flatten outputs of one row of values, (N, C, 1, 1) or (N, 1, 1, C), which a classifier of convolutions has."""
    del given
    changed = []
    for value in model.graph.output:
        sizes = [size or 0 for size in onnx_graph.sizes_of(value)]
        if flat_shape(sizes) == tuple(sizes) or value.type.tensor_type.elem_type != TensorProto.FLOAT:
            continue
        deep = _moved(model, value.name, "axes")
        model.graph.node.append(helper.make_node("Flatten", [deep], [value.name], name=f"{deep}_flat", axis=1))
        dims = value.type.tensor_type.shape.dim
        del dims[1:]
        dims.add().dim_value = flat_shape(sizes)[1]
        changed.append(f"{value.name} (N, {', '.join(map(str, sizes[1:]))})")
    if changed:
        del model.graph.value_info[:]
    return f"a Flatten stands behind {', '.join(changed)}" if changed else ""


def widen(model: onnx.ModelProto, given: Given) -> str:
    """Write a float16 file as float32: quantizers take nothing else, and processors compute float16 as float32."""
    del given
    graphs = list(onnx_graph.graphs(model.graph))
    if not any(_computes_in_half(graph) for graph in graphs):
        return ""
    wide = sum(_widened(tensor) for graph in graphs for tensor in graph.initializer)
    for graph in graphs:
        for node in graph.node:
            for item in node.attribute:
                if item.name in {"to", "dtype"} and item.i == TensorProto.FLOAT16:
                    item.i = TensorProto.FLOAT
                if item.HasField("t"):
                    _widened(item.t)
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        del graph.value_info[:]
    return f"{wide} constants of float16 are float32"


def _computes_in_half(graph: onnx.GraphProto) -> bool:
    """Return whether anything but a Cast reads a float16 constant: weights behind a Cast are folded instead."""
    half = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    return any(half.intersection(node.input) for node in graph.node if node.op_type != "Cast")


def _widened(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != TensorProto.FLOAT16:
        return False
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx_graph.value_of(tensor).astype(np.float32), tensor.name))
    return True
