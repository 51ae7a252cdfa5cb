"""Input and output signature of an ONNX file, and the fix-ups made to an imported one.

Decides which files are accepted: complete, of a supported opset, with operators of known domains and text names. The
computation of a file is never changed.
"""

from __future__ import annotations

import ast

import onnx

from compressor.clean.onnx_graph import graphs
from compressor.errors import ModelFileError, ModelOperatorsError
from compressor.formats._base import FileWords
from wire.manifest import TensorSpec

_NAMES = "names"
"""Under this key exporters note the classes, as Python writes a dictionary of them by number, or a list."""
_MAX_NAMES_CHARS = 1_000_000
_STRIDE, _MAX_STRIDE_CHARS = "stride", 4
_TASK, _MAX_TASK_CHARS = "task", 40
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


def contract(data: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return (inputs, outputs) of an ONNX file, in the order of its graph; shapes begin with -1, the batch.

    Raises:
        ModelFileError: If it is not an ONNX file, has an unsupported opset, external weights, foreign operators or
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


def words(data: bytes) -> FileWords:
    """Return the classes, stride and task in the metadata of an ONNX file, as exporters note them."""
    props = onnx.load_from_string(data).metadata_props
    noted = {entry.key: entry.value for entry in reversed(props)}  # of a key that comes twice the first counts
    stride = noted.get(_STRIDE, "").strip()
    is_number = stride.isascii() and stride.isdecimal() and len(stride) <= _MAX_STRIDE_CHARS
    return FileWords(
        labels=_labels(noted.get(_NAMES, "")),
        stride=int(stride) if is_number else 0,
        task=noted.get(_TASK, "")[:_MAX_TASK_CHARS],
    )


def _labels(text: str) -> tuple[str, ...]:
    """Return the names of the classes in a note of them, by number; () if none is readable."""
    if len(text) > _MAX_NAMES_CHARS:
        return ()
    try:
        found = ast.literal_eval(text)  # literals alone: nothing is called
        named = [found[number] for number in range(len(found))]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        return ()
    return tuple(str(name) for name in named) if not isinstance(found, str) else ()


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
    except ModelFileError:
        raise
    except Exception as error:  # protobuf and the checker raise unrelated classes
        message = f"Expected an ONNX file, got: {str(error)[:300]}: export the model again"
        raise ModelFileError(message) from error


def _check_names(model: onnx.ModelProto) -> None:
    """Reject names that are not text (protobuf returns them as bytes), and an unsupported opset."""
    for graph in graphs(model.graph):
        names = [item.name for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info)]
        for node in graph.node:
            names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        garbled = [name for name in names if isinstance(name, bytes)]
        if garbled:
            message = f"Expected names in UTF-8 in the ONNX file, got {garbled[0][:80]!r}: export the model again"
            raise ModelFileError(message)
    newest = onnx.defs.onnx_opset_version()
    for entry in model.opset_import:
        if entry.domain in {"", "ai.onnx"} and entry.version > newest:
            message = f"Expected an ONNX file of opset {newest} or lower, got {entry.version}"
            raise ModelOperatorsError(f"{message}: export with opset_version=17, or update onnx and onnxruntime")


_TREES = ("ai.onnx.ml.TreeEnsemble", "ai.onnx.ml.SVM", "ai.onnx.ml.ArrayFeatureExtractor")


def _check_whole(model: onnx.ModelProto) -> None:
    """Reject weights in external files: a bundle has one artifact."""
    external = onnx.TensorProto.EXTERNAL
    beside = [
        tensor.name
        for graph in graphs(model.graph)
        for tensor in [*graph.initializer, *(item.t for node in graph.node for item in node.attribute)]
        if tensor.data_location == external
    ]
    if beside:
        message = f"Expected an ONNX file with its weights inside, got {len(beside)} tensors in other files"
        raise ModelFileError(f"{message} ({beside[0]!r}): save it with onnx.save(onnx.load(path), path)")


def _check_operators(model: onnx.ModelProto) -> None:
    own = {(function.domain, function.name) for function in model.functions}
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
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
        remedy = "replace them by standard operators before the export; devices lack their code"
        if any(name.startswith(_TREES) for name in foreign):
            remedy = "trees and neighbours have no standard ones: train network = 'mlp' on the same rows instead"
        raise ModelOperatorsError(f"{message}: {remedy}")


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    kind = value.type.tensor_type
    sizes = [dim.dim_value or -1 for dim in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else ""
    return TensorSpec(name=value.name, shape=(-1, *sizes[1:]), dtype=dtype)


def fixed_batch(model: bytes) -> int:
    """Return the fixed batch size of an ONNX file, 0 if it accepts any.

    Raises:
        ModelFileError: If it can't be read, or has no input.
    """
    try:
        graph = onnx.load_from_string(model).graph
    except Exception as error:  # protobuf raises its own classes
        message = f"Expected an ONNX file, got: {str(error)[:300]}: export the model again"
        raise ModelFileError(message) from error
    weights = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in weights:
            return int(next((dim.dim_value for dim in value.type.tensor_type.shape.dim), 0))
    message = "Expected an ONNX file with an input, got none: export the model again"
    raise ModelFileError(message)
