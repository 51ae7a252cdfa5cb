"""A model of one's own: a checkpoint, an ONNX file or a TFLite file in the place of training.

Decides what may come in: sizes first, then operators of known domains, then one float32 input of the recipe's shape.
What can't run is named, with what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from compressor.data.table import Table
from compressor.errors import CheckpointError, MeasureError
from compressor.forms import LITERT, ONNX, Form, Models, bare, float_target, with_contract
from compressor.shaping import compress
from compressor.step import Result
from compressor.workshop import Workshop
from wire.canonical import sha256_hex
from wire.manifest import TensorSpec

MAX_MODEL_BYTES = 512 * 1024 * 1024
DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
_MATRIX = 2


def checkpoint_of(workshop: Workshop, classes: int) -> Result:
    """Return the weights that ``[model] checkpoint`` names, as this project keeps them.

    Raises:
        CheckpointError: If the file is not there, is too large, holds anything but tensors or fits another network.
    """
    path = workshop.recipe.folder / workshop.recipe.model.checkpoint
    data = _read(path, "[model] checkpoint")
    workshop.loaded(data, classes)
    return Result(data, sha256_hex(data), cached=True)


def models_of(workshop: Workshop, table: Table, calibration: Sequence[Table]) -> Models:
    """Return all files of a run that starts from an exported file.

    Raises:
        CheckpointError: If the file is not there or too large.
        MeasureError: If it is no such file, has foreign operators, or another input or output than the recipe says.
        QuantizeError: If it can't be quantized.
    """
    model, recipe = workshop.recipe.model, workshop.recipe
    runtime = ONNX if model.onnx else LITERT
    data = _read(recipe.folder / model.imported, f"[model] {'onnx' if model.onnx else 'tflite'}")
    specs = onnx_contract(data, table) if runtime == ONNX else _tflite_contract(data)
    start = Form(with_contract(bare(recipe, table, data, float_target(recipe, runtime)), *specs))
    compressed = {}
    for target in recipe.targets:
        form = compress(workshop, table, start, target, calibration)
        candidate = with_contract(form.candidate, *specs) if runtime == ONNX else form.candidate
        compressed[target.name] = replace(form, candidate=candidate)
    return Models(None, None, start, {runtime: start}, compressed)


def onnx_contract(data: bytes, table: Table) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return input and outputs of an ONNX classifier for the classes of ``table``.

    Raises:
        MeasureError: If it is no ONNX file, has foreign operators, or not one float32 input and logits (N, classes).
    """
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise unrelated classes
        message = f"Expected an ONNX file, got: {str(error)[:300]}: export the model again"
        raise MeasureError(message) from error
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in DOMAINS})
    if foreign:
        message = f"Expected operators of {', '.join(sorted(DOMAINS - {''}))}, got {', '.join(foreign)}"
        raise MeasureError(f"{message}: replace them by standard operators before the export; devices lack their code")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    first = _spec(inputs[0], "NCHW") if len(inputs) == 1 else None
    if first is None or first.dtype != "float32":
        got = ", ".join(value.name for value in inputs) or "none"
        message = f"Expected one float32 input, got {got}: export with a single image input"
        raise MeasureError(message)
    outputs = tuple(spec for spec in (_spec(value, "") for value in model.graph.output) if len(spec.shape) == _MATRIX)
    if not outputs or outputs[0].shape[1] != len(table.class_names):
        got = str(outputs[0].shape) if outputs else "no matrix"
        message = f"Expected logits (N, {len(table.class_names)}) as first output, got {got}: check [model] labels"
        raise MeasureError(message)
    return (first,), outputs


def _spec(value: onnx.ValueInfoProto, layout: str) -> TensorSpec:
    kind = value.type.tensor_type
    sizes = [dim.dim_value or -1 for dim in kind.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name if kind.elem_type else ""
    return TensorSpec(value.name, (-1, *sizes[1:]), dtype, layout)


def _tflite_contract(data: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    from compressor.tflite.contract import contract  # noqa: PLC0415 - LiteRT only for its targets

    return contract(data)


def _read(path: Path, where: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_MODEL_BYTES:
            message = f"Expected {where} of at most {MAX_MODEL_BYTES} bytes, got {size} in {path}"
            raise CheckpointError(message)
        return path.read_bytes()
    except OSError as error:
        message = f"Expected a file as {where} at {path}, got: {error.strerror}: give a path beside the recipe"
        raise CheckpointError(message) from error
