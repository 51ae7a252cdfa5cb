"""Names: every node has one of its own, nodes stand in order, and weights are not listed among the inputs.

onnxruntime refuses a file with one node name twice, and a layer without a name can be named neither in a recipe nor in
a report. No computation is changed.
"""

from __future__ import annotations

import onnx

from compressor.clean import onnx_graph
from compressor.clean.given import Given

_IR_WITHOUT_WEIGHTS = 4


def name_nodes(model: onnx.ModelProto, given: Given | None = None) -> str:
    """Name each node that has no name, or another node's, after its first output."""
    del given
    seen: set[str] = set()
    missing = twice = 0
    for node in model.graph.node:
        if not node.name or node.name in seen:
            missing, twice = missing + (not node.name), twice + bool(node.name)
            first = next(filter(None, node.output), node.op_type)
            node.name = first if first not in seen else f"{first}_{len(seen)}"
        seen.add(node.name)
    parts = [f"{missing} nodes without a name"] if missing else []
    parts += [f"{twice} with the name of another"] if twice else []
    return f"{' and '.join(parts)} are named after their output" if parts else ""


def sort_nodes(model: onnx.ModelProto, given: Given) -> str:
    """Sort the nodes: each after those whose outputs it reads."""
    del given
    graph = model.graph
    known = {"", *(item.name for item in [*graph.initializer, *graph.sparse_initializer, *graph.input])}
    made = {name for node in graph.node for name in node.output}
    waiting, ordered = list(graph.node), []
    while waiting:
        later = []
        for node in waiting:
            needed = {*node.input, *(onnx_graph.captured(node) & made)}
            if known.issuperset(needed):
                ordered.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            return ""  # a cycle, or an input that no node computes: the checker names it
        waiting = later
    moved = sum(one is not other for one, other in zip(ordered, graph.node, strict=True))
    if not moved:
        return ""
    onnx_graph.set_nodes(model, ordered)
    return f"{moved} nodes stood before those whose outputs they read"


def list_inputs(model: onnx.ModelProto, given: Given) -> str:
    """Take initializers from the graph's inputs.

    Before IR version 4 every weight had to be an input too. Nothing feeds them, and quantizers add theirs beside them.
    Source: ONNX, IR.md, "Graphs": from IR version 4 on an initializer need not be a graph input.
    """
    del given
    inputs = onnx_graph.data_inputs(model)
    gone = len(model.graph.input) - len(inputs)
    if not gone and model.ir_version >= _IR_WITHOUT_WEIGHTS:
        return ""
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _IR_WITHOUT_WEIGHTS)
    return f"{gone} weights were listed among the inputs" if gone else "written as IR version 4"
