"""Input and output signature of an ONNX file, and the fix-ups made to an imported one.

Decides which files are accepted: complete, of a supported opset, with operators of known domains and text names. The
computation of a file is never changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from compressor.errors import MeasureError
from wire.manifest import TensorSpec

_IR_WITHOUT_WEIGHTS = 4
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


def contract(data: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return (inputs, outputs) of an ONNX file, in the order of its graph; shapes begin with -1, the batch.

    Raises:
        MeasureError: If it is not an ONNX file, has an unsupported opset, external weights, foreign operators or
            garbled names.
    """
    model = _opened(data)
    _check_operators(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in weights)
    return inputs, tuple(_spec(value) for value in model.graph.output)


def opset(data: bytes) -> int:
    """Return the opset of an ONNX file, 0 if it states none."""
    entries = onnx.load_from_string(data).opset_import
    return max((entry.version for entry in entries if entry.domain in {"", "ai.onnx"}), default=0)


def without_weights_as_inputs(data: bytes) -> bytes:
    """Return an ONNX file whose weights are not listed as graph inputs; unchanged if they are not, or if it is invalid.

    Before IR version 4 every weight had to be a graph input too, so old exporters list them; nothing feeds them here,
    and quantizers add their own weights beside them.
    Source: ONNX, IR.md, "Graphs": from IR version 4 on an initializer need not be a graph input.
    """
    try:
        model = onnx.load_from_string(data)
    except Exception:  # noqa: BLE001 - protobuf raises unrelated classes; the next reader reports the error
        return data
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) == len(model.graph.input) and model.ir_version >= _IR_WITHOUT_WEIGHTS:
        return data
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _IR_WITHOUT_WEIGHTS)
    changed: bytes = model.SerializeToString()
    return changed


def of_known_sizes(data: bytes, spec: TensorSpec) -> bytes:
    """Return an ONNX file whose open input sizes are set to those of ``spec``: operations are counted with them."""
    model = onnx.load_from_string(data)
    value = next(value for value in model.graph.input if value.name == spec.name)
    sizes = list(zip(value.type.tensor_type.shape.dim[1:], spec.shape[1:], strict=True))
    if all(dim.dim_value for dim, _ in sizes):
        return data
    for dim, size in sizes:
        dim.dim_value = size
    changed: bytes = model.SerializeToString()
    return changed


def logits_first(data: bytes, name: str) -> bytes:
    """Return an ONNX file with its output ``name`` first: quantizers compare the first output."""
    model = onnx.load_from_string(data)
    outputs = sorted(model.graph.output, key=lambda output: output.name != name)
    if outputs[0].name == model.graph.output[0].name:
        return data
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    changed: bytes = model.SerializeToString()
    return changed


def _opened(data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_from_string(data)
        _check_names(model)
        _check_whole(model)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)
    except MeasureError:
        raise
    except Exception as error:  # protobuf and the checker raise unrelated classes
        message = f"Expected an ONNX file, got: {str(error)[:300]}: export the model again"
        raise MeasureError(message) from error


def _check_names(model: onnx.ModelProto) -> None:
    """Reject names that are not text (protobuf returns them as bytes), and an unsupported opset."""
    for graph in _graphs(model.graph):
        names = [item.name for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info)]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        garbled = [name for name in names if isinstance(name, bytes)]
        if garbled:
            message = f"Expected names in UTF-8 in the ONNX file, got {garbled[0][:80]!r}: export the model again"
            raise MeasureError(message)
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and entry.version > newest:
            message = f"Expected an ONNX file of opset {newest} or lower, got {entry.version}"
            raise MeasureError(f"{message}: export with opset_version=17, or update onnx and onnxruntime")


def _check_whole(model: onnx.ModelProto) -> None:
    """Reject weights in external files: a bundle has one artifact."""
    external = onnx.TensorProto.EXTERNAL
    beside = [
        tensor.name
        for graph in _graphs(model.graph)
        for tensor in [*graph.initializer, *(item.t for node in graph.node for item in node.attribute)]
        if tensor.data_location == external
    ]
    if beside:
        message = f"Expected an ONNX file with its weights inside, got {len(beside)} tensors in other files"
        raise MeasureError(f"{message} ({beside[0]!r}): save it with onnx.save(onnx.load(path), path)")


def _check_operators(model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    nodes = [node for graph in _graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    foreign = sorted(
        {
            f"{node.domain}.{node.op_type}"
            for node in nodes
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own
        }
    )
    if foreign:
        message = f"Expected operators of {', '.join(sorted(DOMAINS - {''}))}, got {', '.join(foreign)}"
        raise MeasureError(f"{message}: replace them by standard operators before the export; devices lack their code")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield ``graph`` and every graph inside its nodes (branches and loops)."""
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in [item.g, *item.graphs] if item.HasField("g") else item.graphs:
                yield from _graphs(inner)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    sizes = [dim.dim_value or -1 for dim in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else ""
    return TensorSpec(name=value.name, shape=(-1, *sizes[1:]), dtype=dtype)


def in_order(data: bytes) -> bytes:
    """Return ONNX ``data`` with its nodes in topological order; unchanged if they are, or if the file is invalid.

    onnxruntime runs files in any order, and its float16 converter keeps the order.
    """
    try:
        model = onnx.load_from_string(data)
    except Exception:  # noqa: BLE001 - protobuf raises unrelated classes; the next reader reports the error
        return data
    graph = model.graph
    known = {"", *(item.name for item in [*graph.initializer, *graph.input])}
    ordered, waiting = [], list(graph.node)
    while waiting:
        ready = next((i for i, node in enumerate(waiting) if known.issuperset(node.input)), None)
        if ready is None:
            return data  # a cycle, or an input that no node computes
        ordered.append(waiting.pop(ready))
        known.update(ordered[-1].output)
    if all(one is other for one, other in zip(ordered, graph.node, strict=True)):
        return data
    del graph.node[:]
    graph.node.extend(ordered)
    sorted_data: bytes = model.SerializeToString()
    return sorted_data


def fixed_batch(model: bytes) -> int:
    """Return the fixed batch size of an ONNX file, 0 if it accepts any.

    Raises:
        MeasureError: If it can't be read, or has no input.
    """
    try:
        graph = onnx.load_from_string(model).graph
    except Exception as error:  # protobuf raises its own classes
        message = f"Expected an ONNX file, got: {str(error)[:300]}: export the model again"
        raise MeasureError(message) from error
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in weights:
            return int(next((dim.dim_value for dim in value.type.tensor_type.shape.dim), 0))
    message = "Expected an ONNX file with an input, got none: export the model again"
    raise MeasureError(message)
