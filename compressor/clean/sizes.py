"""Sizes: open heights and widths set to those of the data, and a fixed batch opened.

With open sizes nothing that is computed from them can be folded or counted. With a fixed batch each row is run alone:
int8 files of a transformer were 13 % larger, and calibration is slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from compressor.clean import onnx_graph
from compressor.clean._answers import Unrunnable, run, session_of
from compressor.clean.given import Given

_BATCH = "batch"
_LARGE_VALUES = 1024
_ALIKE = 1e-3
Sizes = Sequence[int | None]


def set_sizes(model: onnx.ModelProto, given: Given) -> str:
    """Set the open sizes of the input, but the batch, to those of a row."""
    inputs = onnx_graph.data_inputs(model)
    if len(inputs) != 1 or len(onnx_graph.sizes_of(inputs[0])) != len(given.shape) + 1:
        return ""
    dims = inputs[0].type.tensor_type.shape.dim[1:]
    if all(dim.dim_value for dim in dims) or any(
        dim.dim_value not in {0, size} for dim, size in zip(dims, given.shape, strict=True)
    ):
        return ""
    for dim, size in zip(dims, given.shape, strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]
    for value in model.graph.output:  # names of the sizes that were open
        for dim in value.type.tensor_type.shape.dim[1:]:
            if dim.dim_param:
                dim.Clear()
    return f"open sizes of the input set to {' x '.join(map(str, given.shape))}"


def one_row(model: onnx.ModelProto, given: Given) -> str:
    """Fix the batch of a file to one row if it answers several otherwise, as one that suppresses boxes of one picture.

    Raises:
        Unrunnable: If it does not run with one.
    """
    inputs = onnx_graph.data_inputs(model)
    counts = _counting(model)
    if not counts or len(inputs) != 1 or not onnx_graph.sizes_of(inputs[0]) or onnx_graph.sizes_of(inputs[0])[0]:
        return ""
    session = session_of(model)
    alone = [run(session, given, row[None]) for row in given.rows]
    try:
        together = run(session, given, given.rows)
        if all(_are_rows(whole, parts) for whole, parts in zip(together, zip(*alone, strict=True), strict=True)):
            return ""
    except Unrunnable:  # several rows do not run at all
        pass
    inputs[0].type.tensor_type.shape.dim[0].Clear()
    inputs[0].type.tensor_type.shape.dim[0].dim_value = 1
    return f"the open batch is fixed to 1: {counts} counts over all rows, so that several have other answers than each"


def _counting(model: onnx.ModelProto) -> str:
    """Return the first operator of ``model`` that counts over all rows, "" if there is none."""
    return next((node.op_type for node in model.graph.node if node.op_type in onnx_graph.COUNTING), "")


def _are_rows(whole: onnx_graph.Array, parts: Sequence[onnx_graph.Array]) -> bool:
    """Return whether ``parts``, the answers of single rows, make ``whole``, that of all."""
    if not whole.ndim or any(one.shape != parts[0].shape for one in parts):
        return False
    joined = np.concatenate(parts)
    if joined.shape != whole.shape:
        return False
    scale = float(np.abs(whole).max(initial=0))
    return bool(np.allclose(joined, whole, rtol=0, atol=_ALIKE * scale, equal_nan=True))


def open_batch(model: onnx.ModelProto, given: Given) -> str:
    """Let a file of a fixed batch take any: targets of Reshape that hold the batch get -1 in its place.

    Raises:
        Unrunnable: If the place of the batch in a target can't be told.
    """
    del given
    inputs = onnx_graph.data_inputs(model)
    sizes = onnx_graph.sizes_of(inputs[0]) if len(inputs) == 1 else []
    if not sizes or not sizes[0]:
        return ""
    if counts := _counting(model):
        raise Unrunnable(f"{counts} counts over all rows, so that several would have other answers than each alone")
    fixed = _shapes(_light(model))
    for value in (inputs[0], *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value in {0, sizes[0]}:
            dims[0].Clear()
            dims[0].dim_param = _BATCH
        elif dims and value is not inputs[0]:  # the rank stays: a file without any shape is no complete one
            for dim in dims:
                dim.Clear()
    del model.graph.value_info[:]
    _free_states(model)
    opened = _open_targets(model, sizes[0], fixed)
    if repeated := _repeat_tokens(model, sizes[0]):  # what follows a token is known to grow only now
        opened += _open_targets(model, sizes[0], fixed)
    into = f", {opened} Reshape with it" if opened else ""
    tokens = f", {repeated} constants beside it repeat" if repeated else ""
    return f"the fixed batch of {sizes[0]} is open{into}{tokens}"


def _repeat_tokens(model: onnx.ModelProto, batch: int) -> int:
    """Repeat the constants that a Concat joins to rows of the input, as a class token: they are one row of ``batch``.

    Raises:
        Unrunnable: If such rows differ.
    """
    known, light, nodes, made = onnx_graph.constants(model), _shapes(_light(model)), [], 0
    data = onnx_graph.data_inputs(model)[0].name
    for node in model.graph.node:
        axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
        others = [light.get(name) for name in node.input if name not in known]
        grows = node.op_type == "Concat" and axis and any(one and one[0] is None for one in others)
        for at, name in enumerate(node.input if grows else ()):
            value = onnx_graph.value_of(known[name]) if name in known else None
            if value is None or not value.ndim or value.shape[0] != batch or axis in {0, -value.ndim}:
                continue
            if any(not np.array_equal(row, value[0]) for row in value):
                raise Unrunnable(f"the rows of {name!r} in {node.name!r} differ, so that a batch has no place for more")
            nodes += _repeated(model, node, at, data, value)
            made += 1
        nodes.append(node)
    onnx_graph.set_nodes(model, nodes)
    return made


def _repeated(
    model: onnx.ModelProto, node: onnx.NodeProto, at: int, data: str, value: onnx_graph.Array
) -> list[onnx.NodeProto]:
    """Return nodes that give input ``at`` of ``node`` a row of ``value`` for each row of ``data``."""
    names = [
        onnx_graph.free_name(model, f"{node.input[at]}_{part}") for part in ("row", "shape", "rows", "sizes", "all")
    ]
    row, shape, rows, sizes, every = names
    ends = [onnx_graph.free_name(model, f"{node.input[at]}_{part}") for part in ("first", "rest")]
    onnx_graph.set_constant(model, row, value[:1])
    onnx_graph.set_constant(model, ends[0], np.array([0], np.int64))
    onnx_graph.set_constant(model, ends[1], np.array(value.shape[1:], np.int64))
    node.input[at] = every
    return [
        onnx.helper.make_node("Shape", [data], [shape], name=shape),
        onnx.helper.make_node("Gather", [shape, ends[0]], [rows], name=rows),
        onnx.helper.make_node("Concat", [rows, ends[1]], [sizes], name=sizes, axis=0),
        onnx.helper.make_node("Expand", [row, sizes], [every], name=every),
    ]


def _free_states(model: onnx.ModelProto) -> None:
    """Take zeros as initial state from recurrent layers: they have the batch among their sizes, and are the default."""
    known = onnx_graph.constants(model)
    for node in model.graph.node:
        for index in onnx_graph.states_of(node):
            tensor = known.get(node.input[index])
            if tensor is not None and not np.any(onnx_graph.value_of(tensor)):
                node.input[index] = ""
    onnx_graph.drop_unneeded(model)


def _open_targets(model: onnx.ModelProto, batch: int, fixed: Mapping[str, Sizes]) -> int:
    """Rewrite the constant targets of Reshape, one after the other: each depends on the shapes after those before.

    ``fixed``: the sizes by tensor with the fixed batch.
    """
    light, known, opened = _light(model), onnx_graph.constants(model), 0
    for at, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in known:
            continue
        taken = _shapes(light).get(node.input[0])
        if taken is None:
            raise Unrunnable(f"the shape before {node.name!r} can't be inferred with an open batch")
        grows = [i for i, size in enumerate(taken) if size is None]
        if not grows:
            continue
        target, made = onnx_graph.value_of(known[node.input[1]]), fixed.get(node.output[0]) or ()
        changed = opened_target(taken, target.tolist(), batch) if len(grows) == 1 else None
        if changed is None and len(grows) == 1 and len(made) == len(target) and None not in made:
            changed = opened_target(taken, [int(size or 0) for size in made], batch)  # with -1 as what it stands for
        if changed is None:
            raise Unrunnable(f"the place of the batch in {target.tolist()} of {node.name!r} can't be told")
        if changed == target.tolist():
            continue
        node.input[1] = onnx_graph.free_name(model, f"{node.name}_target")
        light.graph.node[at].input[1] = node.input[1]
        for one in (model, light):
            onnx_graph.set_constant(one, node.input[1], np.array(changed, np.int64))
        opened += 1
    onnx_graph.drop_unneeded(model)
    return opened


def opened_target(taken: Sizes, target: Sequence[int], batch: int) -> list[int] | None:
    """Return the ``target`` of a Reshape with -1 in place of the batch; None if its place can't be told.

    Args:
        taken: The sizes before it; None where the batch is, alone or multiplied by other sizes.
        target: The sizes after it, made for a batch of ``batch``.
        batch: The size that the file had fixed.
    """
    at = list(taken).index(None)
    ahead = math.prod(size or 1 for size in taken[:at])
    changed, before = list(target), 1
    starts = []
    for size in target:
        starts.append(before)
        if size == -1:
            break
        before *= size or 1
    exact = [i for i, start in enumerate(starts) if start == ahead]
    place = at if at in exact else exact[0] if exact else max(i for i, start in enumerate(starts) if start <= ahead)
    if -1 not in target:
        changed[place] = -1
        return changed
    if target[place] == -1 or (target[place] == 0 and place == at):  # 0: as in the input
        return changed
    if place != at or target[place] != batch:
        return None
    changed[place] = 0  # as in the input
    return changed


def _light(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with large constants as inputs: shapes are inferred many times, and don't depend on weights."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name or "graph"
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) > _LARGE_VALUES:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        else:
            light.graph.initializer.append(tensor)
    return light


def _shapes(light: onnx.ModelProto) -> Mapping[str, Sizes]:
    """Return the inferred sizes by tensor, None where one is open."""
    try:
        graph = onnx.shape_inference.infer_shapes(light, data_prop=True).graph
    except Exception as error:  # onnx raises its own classes, which derive from Exception alone
        raise Unrunnable(str(error)[:160]) from error
    found: dict[str, Sizes] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            found[value.name] = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return found
