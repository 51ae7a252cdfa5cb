"""Constants folded: tensors that depend on no input value, or on no more than its sizes, become initializers.

A tensor is *settled* if all that it is computed from are constants and shapes. The file is run at three batch sizes:
a settled tensor that is the same in all of them is a constant, whatever operators compute it (shapes taken apart and
put together, weights behind Cast, position tables). A target of Reshape that differs in the batch alone is a constant
with -1 in its place, so that the batch stays open. onnxruntime folds neither while the batch is open, and with a fixed
one it writes the batch into the graph.

A shape is not settled if values decide it, as behind a suppression of boxes: what some rows have others need not.
"""

from __future__ import annotations

import numpy as np
import onnx

from compressor.clean import onnx_graph
from compressor.clean._answers import Unrunnable, fixed_batch, run, session_of
from compressor.clean.given import Given

_BATCHES = (1, 2, 3)
_UNSETTLED = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",
})  # fmt: skip
"""Operators whose result is drawn, or whose constants are the point of a quantized file."""
_SHAPED = frozenset({"Shape", "Size"})
_COUNTING = onnx_graph.COUNTING | {"Loop", "Scan"}
_SIZED = {"Range": 0, "ConstantOfShape": 0} | dict.fromkeys(
    ("Reshape", "Expand", "Slice", "Tile", "Pad", "Resize", "Upsample", "TopK", "OneHot", "Split", "CenterCropPad"), 1
)
"""Operators with inputs that are sizes, and the first of these."""
_SMALL_BYTES = 64 * 1024
_GROWTH = 4
"""A folded tensor may be so many times as large as what it is made of: a weight in 8 bits becomes float32."""


def inline_constants(model: onnx.ModelProto, given: Given) -> str:
    """Turn Constant nodes into initializers, and read through Identity."""
    del given
    inlined, kept = 0, []
    aliases: dict[str, str] = {}
    outputs = {value.name for value in model.graph.output}
    for node in model.graph.node:
        values = _constant(node)
        if values is not None and node.output[0] not in outputs:
            onnx_graph.set_constant(model, node.output[0], values)
            inlined += 1
        elif node.op_type == "Identity" and node.domain in onnx_graph.DOMAINS and node.output[0] not in outputs:
            aliases[node.output[0]] = aliases.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    if not inlined and not aliases:
        return ""
    onnx_graph.set_nodes(model, kept)
    onnx_graph.rename_inputs(model, aliases)
    onnx_graph.drop_unneeded(model)
    parts = [f"{inlined} Constant nodes are initializers"] if inlined else []
    parts += [f"{len(aliases)} Identity nodes are left out"] if aliases else []
    return ", ".join(parts)


def _constant(node: onnx.NodeProto) -> onnx_graph.Array | None:
    if node.op_type != "Constant" or node.domain not in onnx_graph.DOMAINS or len(node.attribute) != 1:
        return None
    item = node.attribute[0]
    if item.name == "value":
        return onnx_graph.value_of(item.t)
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if item.name not in kinds:
        return None
    return np.array(onnx.helper.get_attribute_value(item), kinds[item.name])


def fold(model: onnx.ModelProto, given: Given) -> str:
    """Replace settled tensors by their values.

    Raises:
        Unrunnable: If the file does not run at one of the batch sizes.
    """
    nodes, branches, folded = len(model.graph.node), 0, 0
    while True:
        before = len(model.graph.node)
        if _fold_once(model, given):
            folded += before - len(model.graph.node)
        elif _inline_branch(model):  # it may hold the next one
            branches += 1
        else:
            break
    parts = [f"{folded} of {nodes} nodes computed constants"] if folded else []
    parts += [f"{branches} If with a constant condition replaced by the branch that runs"] if branches else []
    return ", ".join(parts)


def _fold_once(model: onnx.ModelProto, given: Given) -> bool:
    names = _edge(model, given)
    if not names:
        return False
    values = _values(model, names, given)
    readers, sizes, changed = onnx_graph.readers(model), _input_bytes(model), False
    for i, name in enumerate(names):
        found = [one[i] for one in values]
        nodes = readers.get(name, [])
        if all(one.dtype == found[0].dtype and np.array_equal(one, found[0]) for one in found):
            if found[0].nbytes <= max(_SMALL_BYTES, _GROWTH * sizes.get(name, 0)):
                _replace(model, name, found[0])
                changed = True
            continue
        changed |= _without_zero_states(nodes, name, found)
        target = _open_target(found)
        for node in nodes:
            if target is not None and node.op_type == "Reshape" and list(node.input)[1:] == [name] and _copies(node):
                node.input[1] = onnx_graph.free_name(model, f"{name}_open")
                onnx_graph.set_constant(model, node.input[1], target)
                changed = True
    onnx_graph.drop_unneeded(model)
    return changed


def _edge(model: onnx.ModelProto, given: Given) -> list[str]:
    """Return the settled tensors that a node reads which is not settled itself."""
    settled = set(onnx_graph.constants(model))
    constant = frozenset(settled)
    counted: set[str] = set()
    for node in model.graph.node:
        if _is_counted(node, settled, counted):
            counted.update(node.output)
            continue
        if node.op_type in _UNSETTLED or node.domain not in onnx_graph.DOMAINS or onnx_graph.captured(node):
            continue
        if not given.compressed and node.op_type == "Cast":
            continue  # float16 weights of a file that stays as it is
        if node.op_type in _SHAPED or all(name in settled for name in node.input if name):
            settled.update(name for name in node.output if name)
    read = {
        name
        for node in model.graph.node
        if not settled.issuperset(filter(None, node.output))
        for name in (*node.input, *onnx_graph.captured(node))
    }
    outputs = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name]
    return [name for name in made if name in settled - constant - outputs and name in read]


def _is_counted(node: onnx.NodeProto, settled: set[str], counted: set[str]) -> bool:
    """Return whether values may decide the shape of what ``node`` gives, ``counted`` being the tensors so far."""
    sizes = list(node.input)[_SIZED[node.op_type] :] if node.op_type in _SIZED else []
    unknown_branch = node.op_type == "If" and node.input[0] not in settled
    return (
        node.op_type in _COUNTING
        or unknown_branch
        or not counted.isdisjoint((*node.input, *onnx_graph.captured(node)))
        or any(name not in settled for name in sizes if name)
    )


def _values(model: onnx.ModelProto, names: list[str], given: Given) -> list[list[onnx_graph.Array]]:
    """Return the tensors ``names`` at each batch size."""
    probe = onnx_graph.copy_of(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = session_of(probe, plain=True)
    fixed = fixed_batch(session)
    sizes = (fixed,) if fixed else _BATCHES
    found = [run(session, given, np.resize(given.rows, (size, *given.shape)), names) for size in sizes]
    if any(not isinstance(value, np.ndarray) for one in found for value in one):
        raise Unrunnable("a constant of it is no tensor")
    return found


def _input_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the bytes of the constants that each tensor is computed from."""
    sizes = {tensor.name: onnx_graph.value_of(tensor).nbytes for tensor in model.graph.initializer}
    for node in model.graph.node:
        total = sum(sizes.get(name, 0) for name in node.input)
        sizes |= dict.fromkeys(node.output, total)
    return sizes


def _replace(model: onnx.ModelProto, name: str, values: onnx_graph.Array) -> None:
    for node in model.graph.node:
        node.output[:] = ["" if one == name and len(node.output) > 1 else one for one in node.output]
    onnx_graph.set_nodes(model, [node for node in model.graph.node if list(node.output) != [name]])
    onnx_graph.set_constant(model, name, values)


def _without_zero_states(nodes: list[onnx.NodeProto], name: str, found: list[onnx_graph.Array]) -> bool:
    """Take zeros as initial state from recurrent layers: they are the default, whatever the batch."""
    if any(one.size and np.any(one) for one in found):
        return False
    changed = False
    for node in nodes:
        for index in onnx_graph.states_of(node):
            if node.input[index] == name:
                node.input[index] = ""
                changed = True
    return changed


def _open_target(found: list[onnx_graph.Array]) -> onnx_graph.Array | None:
    """Return a target of Reshape with -1 where it grows with the batch; None if there is not one such place."""
    first = found[0]
    if (
        first.dtype != np.int64
        or first.ndim != 1
        or any(one.shape != first.shape for one in found)
        or min(first.tolist(), default=0) < 0
    ):
        return None
    grows = [i for i in range(first.size) if any(one[i] != first[i] for one in found)]
    if len(grows) != 1 or any(
        one[grows[0]] != size * first[grows[0]] for size, one in zip(_BATCHES, found, strict=True)
    ):
        return None
    target = np.array(first, np.int64)
    target[grows[0]] = -1
    return target


def _copies(node: onnx.NodeProto) -> bool:
    """Return whether 0 in a target means "as in the input", as it does by default."""
    return not any(item.name == "allowzero" and item.i for item in node.attribute)


def _inline_branch(model: onnx.ModelProto) -> bool:
    """Replace the first If whose condition is a constant by the nodes of the branch that runs."""
    known = onnx_graph.constants(model)
    for at, node in enumerate(model.graph.node):
        if node.op_type != "If" or node.input[0] not in known:
            continue
        wanted = "then_branch" if bool(onnx_graph.value_of(known[node.input[0]]).reshape(-1)[0]) else "else_branch"
        branch = next(item.g for item in node.attribute if item.name == wanted)
        body = _renamed(model, branch, list(node.output))
        nodes = list(model.graph.node)
        model.graph.initializer.extend(body.initializer)
        onnx_graph.set_nodes(model, [*nodes[:at], *body.node, *nodes[at + 1 :]])
        onnx_graph.drop_unneeded(model)
        return True
    return False


def _renamed(model: onnx.ModelProto, branch: onnx.GraphProto, outputs: list[str]) -> onnx.GraphProto:
    """Return ``branch`` with names that the graph around it does not have, and its outputs under ``outputs``."""
    body = onnx.GraphProto()
    body.CopyFrom(branch)
    own = [tensor.name for tensor in body.initializer] + [name for node in body.node for name in node.output if name]
    names: dict[str, str] = {}
    for name in own:
        names[name] = onnx_graph.free_name(model, f"{outputs[0]}_{name}")
    passed = []
    for value, output in zip(body.output, outputs, strict=True):
        if value.name in names and names[value.name] not in outputs:
            names[value.name] = output
        else:  # a tensor of the graph around it, or one output twice
            passed.append(onnx.helper.make_node("Identity", [names.get(value.name, value.name)], [output]))
    for graph in onnx_graph.graphs(body):
        for node in graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            if graph is body:
                node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in body.initializer:
        tensor.name = names[tensor.name]
    body.node.extend(passed)
    return body
