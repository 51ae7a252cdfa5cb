"""Parts of an ONNX graph for all that reads or changes one: constants, readers, inputs, nodes that nothing needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[np.generic]
DOMAINS = frozenset({"", "ai.onnx"})
"""The two names of ONNX's own operators."""
COUNTING = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})
"""Operators whose values decide how many they give."""
_OPSET = 17
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_STATES = (5, 6)
"""Indices of the initial states of a recurrent layer. Source: ONNX, LSTM: without them they are zero."""


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of ``model``."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators, 0 if the file states none."""
    return max((entry.version for entry in model.opset_import if entry.domain in DOMAINS), default=0)


def ensure_standard(model: onnx.ModelProto) -> None:
    """State a version of ONNX's own operators once, for a file that has none of them, or says it twice."""
    version = opset(model) or _OPSET
    others = [entry for entry in model.opset_import if entry.domain not in DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend([*others, onnx.helper.make_opsetid("", version)])


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Return the initializers by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def value_of(tensor: onnx.TensorProto) -> Array:
    """Return the values of ``tensor``."""
    values: Array = onnx.numpy_helper.to_array(tensor)
    return values


def data_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are fed: those that no initializer gives."""
    known = constants(model)
    return [value for value in model.graph.input if value.name not in known]


def sizes_of(value: onnx.ValueInfoProto) -> list[int]:
    """Return the sizes of ``value``, 0 for an open one; empty if its rank is not known."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def readers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Return the nodes of the main graph that read each tensor."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and every graph inside its nodes (branches and loops)."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in [item.g, *item.graphs] if item.HasField("g") else item.graphs:
                yield from graphs(inner)


def captured(node: onnx.NodeProto) -> set[str]:
    """Return every name that the graphs inside ``node`` read: some are tensors of the graph around it."""
    inner = [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else item.graphs)]
    deep = [graph for one in inner for graph in graphs(one)]
    read = {name for graph in deep for one in graph.node for name in one.input}
    return read | {value.name for graph in deep for value in graph.output}  # a branch may return a tensor as it is


def set_constant(model: onnx.ModelProto, name: str, values: Array) -> None:
    """Set or add the initializer ``name``."""
    known = constants(model)
    if name in known:
        known[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    else:
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))


def tensor_names(model: onnx.ModelProto) -> set[str]:
    """Return the names of the tensors of ``model`` and of the graphs inside its nodes."""
    given = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    return given | {
        name for graph in graphs(model.graph) for node in graph.node for name in (*node.output, *node.input)
    }


def free_name(model: onnx.ModelProto, wanted: str) -> str:
    """Return ``wanted``, with a number if a tensor of ``model`` has that name."""
    taken = tensor_names(model)
    made, number = wanted, 0
    while made in taken:
        number += 1
        made = f"{wanted}_{number}"
    return made


def states_of(node: onnx.NodeProto) -> list[int]:
    """Return the indices of the inputs of ``node`` that are initial states, empty if it is no recurrent layer."""
    return [i for i in _STATES if i < len(node.input)] if node.op_type in _RECURRENT else []


def set_nodes(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Replace all nodes of the main graph."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def rename_inputs(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Make every node, in graphs inside nodes too, read other tensors: ``names`` is old to new."""
    for graph in graphs(model.graph):
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]


def drop_unneeded(model: onnx.ModelProto) -> int:
    """Remove nodes and initializers that no output needs, and return the number of removed nodes.

    Old files list initializers as inputs, too: such an input goes with its initializer, or it would have to be fed.
    """
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            needed |= captured(node)
            kept.append(node)
    gone = len(graph.node) - len(kept)
    set_nodes(model, kept[::-1])
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    if len(initializers) < len(graph.initializer):
        unneeded = {tensor.name for tensor in graph.initializer} - needed
        inputs = [value for value in graph.input if value.name not in unneeded]
        if len(inputs) < len(graph.input):
            del graph.input[:]
            graph.input.extend(inputs)
        copied = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
        del graph.initializer[:]
        graph.initializer.extend(copied)
    return gone
