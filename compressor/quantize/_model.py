"""The ONNX model of quantizers: prepared, with named layers and their multiplications, and compacted at the end.

Decides what a layer is (a convolution or matrix product) and how a recipe names it, not which layers are quantized.
Compacting changes no value: constants are deduplicated, names shortened. Layers and their outputs keep the names of the
float file, so that the two can be compared layer by layer. What the float file lacks (scales, zero points, Q/DQ pairs,
unnamed nodes of schemes) gets a short name.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter

from compressor.errors import AlreadyQuantizedError, QuantizeError
from compressor.export.stripping import strip
from wire.settings import nearest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime.quantization.shape_inference import quant_pre_process  # telemetry must be off before the import

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
_STOPPING = CONVOLUTIONS | PRODUCTS | {"LSTM", "GRU", "RNN"}
_FEW_WEIGHTS = 64
_EMBEDDING = "embedding"  # taken from the middle of a network
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CONVERTING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ROUNDED = " (rounded)"
"""The suffix of the report for a tensor after its own quantization (``measurement.layers.ROUNDED``)."""
_QUANTIZED = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "QGemm", "QLinearAdd", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "DynamicQuantizeLSTM",
    "QAttention", "MatMulNBits",
})  # fmt: skip
_PER_CHANNEL_OPSET = 13
"""Source: ONNX, DequantizeLinear, version 13: the attribute ``axis``."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A node that multiplies: its name, operator and multiply-accumulates for one sample."""

    name: str
    operator: str
    macs: int


def loaded(model: bytes) -> onnx.ModelProto:
    """Return the ONNX model in ``model``, with a unique name for every node.

    Raises:
        QuantizeError: If it can't be read, or has no nodes.
    """
    try:
        read = onnx.load_from_string(model)
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        message = f"Expected an ONNX model, got {len(model)} bytes: {error}"
        raise QuantizeError(message) from error
    if not read.graph.node:
        message = f"Expected an ONNX model with nodes, got {len(model)} bytes without any"
        raise QuantizeError(message)
    return _named(read)


def prepare(model: bytes) -> onnx.ModelProto:
    """Return ``model`` with shapes inferred, constants and batch norms folded and nodes named.

    A file of an opset below 13, which lacks scales per channel, is converted to 13 if all of its operators can be.

    Raises:
        AlreadyQuantizedError: If it has operators of quantized files.
        QuantizeError: If it can't be read or prepared.
    """
    read = _lifted(loaded(model))
    integer = Counter(node.op_type for node in read.graph.node if node.op_type in _QUANTIZED)
    if integer:
        got = ", ".join(f"{count} {name}" for name, count in sorted(integer.items()))
        message = f"Expected a float ONNX model to quantize, got one that is int8 already ({got})"
        raise AlreadyQuantizedError(f"{message}: write compress = [] to gate and package it as it is")
    try:
        prepared = _preprocessed(read, symbolic=False)
        return _named(prepared if _typed(prepared) else _preprocessed(read, symbolic=True))
    except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
        message = f"Expected a float ONNX model that onnxruntime can prepare, got: {str(error)[:300]}"
        raise QuantizeError(message) from error


def _lifted(read: onnx.ModelProto) -> onnx.ModelProto:
    version = max((entry.version for entry in read.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    if version >= _PER_CHANNEL_OPSET or len(read.opset_import) > 1:
        return read
    try:
        return onnx.version_converter.convert_version(read, _PER_CHANNEL_OPSET)
    except Exception:  # noqa: BLE001 - the converter raises RuntimeError and worse; quantizing says what to do then
        return read


def layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the layers of ``model`` (shapes inferred, nodes named) in graph order.

    An unknown dimension (batch, sequence length) counts as 1.
    """
    infos = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {info.name: [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim] for info in infos}
    shapes |= {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    multiplying = [node for node in model.graph.node if node.op_type in CONVOLUTIONS | PRODUCTS]
    return tuple(Layer(node.name, node.op_type, _macs(node, shapes)) for node in multiplying)


def behind_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes of ``model`` (prepared) between its last layers with weights and its outputs.

    A convolution with a handful of weights, which only takes the mean of a distribution, is no such layer.
    Source: X. Li et al., Generalized Focal Loss, 2020, equation 6 (the box edges of YOLOv8 and later are such means).
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in model.graph.initializer}
    open_ = [output.name for output in model.graph.output if output.name != _EMBEDDING]
    found: dict[str, onnx.NodeProto] = {}
    while open_:
        node = makers.get(open_.pop())
        if node is None or node.name in found:
            continue
        weights = max((sizes.get(name, 0) for name in node.input[1:2]), default=0)
        if node.op_type in _STOPPING and not (node.op_type in CONVOLUTIONS and weights <= _FEW_WEIGHTS):
            continue
        found[node.name] = node
        open_ += [name for name in node.input if name]
    return tuple(node.name for node in model.graph.node if node.name in found)


def chosen(wanted: Sequence[str], model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the names of the nodes of ``model`` that ``wanted`` selects.

    Each is the name of a layer, a prefix of exactly one layer's, or of any other node: its own name, or that of a
    tensor that it makes, as the report shows it. A tensor "(rounded)" selects its readers too, which would round it.

    Raises:
        QuantizeError: If one matches none or several.
    """
    selected, known = [], [layer.name for layer in layers(model)]
    made = {name: node.name for node in model.graph.node for name in (*node.output, node.name) if name}
    for wanted_name in wanted:
        name = wanted_name.removesuffix(_ROUNDED)
        if name in made and name not in known:
            selected.append(made[name])
            selected += [node.name for node in model.graph.node if name != wanted_name and name in node.input]
            continue
        found = [name] if name in known else [item for item in known if item.startswith(name)]
        if len(found) > 1:
            message = f"Expected in float_layers a name that begins one layer, got {name!r}, which begins {len(found)}"
            raise QuantizeError(f"{message}: write more of it ({', '.join(sorted(found)[:4])})")
        if not found:
            message = f"Expected in float_layers a layer of the model, got {name!r}{nearest(name, known)}"
            raise QuantizeError(f"{message} (there are {', '.join(sorted(known)[:8])})")
        selected.append(found[0])
    return tuple(selected)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model``; a node whose name is missing or already used is named after its first output."""
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            node.name = node.output[0] if node.output[0] not in seen else f"{node.output[0]}_{len(seen)}"
        seen.add(node.name)
    return model


def _preprocessed(model: onnx.ModelProto, *, symbolic: bool) -> onnx.ModelProto:
    """Return ``model`` prepared by onnxruntime; symbolic shape inference imports torch: 220 MB and 3 s more."""
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        given, path = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        onnx.save(model, given)  # from a model in memory onnxruntime removes the constants, and shapes are lost
        quant_pre_process(str(given), str(path), auto_merge=True, skip_symbolic_shape=not symbolic)
        prepared: onnx.ModelProto = onnx.load(str(path))
        return prepared


def _typed(model: onnx.ModelProto) -> bool:
    known = {info.name for info in [*model.graph.value_info, *model.graph.output]}
    return all(name in known for node in model.graph.node for name in node.output if name)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    made, taken, weight = (shapes.get(name, ()) for name in (node.output[0], node.input[0], node.input[1]))
    if node.op_type == "Conv":  # weight (out, in / groups, kernel...)
        return math.prod(made[1:]) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(taken[1:]) * math.prod(weight[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(made[1:]) * (taken[-2 if transposed else -1] if taken else 1)


def compact(model: onnx.ModelProto) -> bytes:
    """Return ``model`` (raw or typed constants, no subgraphs) as the bytes of a smaller, equivalent file."""
    if not any(
        attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute
    ):
        for node in model.graph.node:
            node.name = "" if node.op_type in _CONVERTING else node.name
        _rename(model, _merged(model))
        fixed = {info.name for info in [*model.graph.input, *model.graph.output]}
        converted = [name for node in model.graph.node if not node.name for name in node.output]
        renamed = [name for name in (*(one.name for one in model.graph.initializer), *converted) if name not in fixed]
        made = {name for node in model.graph.node for name in node.output}
        free = (name for name in _names() if name not in fixed | made)
        _rename(model, dict(zip(renamed, free, strict=False)))
    return strip(model).SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _merged(model: onnx.ModelProto) -> Mapping[str, str]:
    """Drop every constant that equals another, and return the name that replaces each."""
    first: dict[bytes, str] = {}
    merged: dict[str, str] = {}
    outputs = {info.name for info in model.graph.output}
    kept = []
    for tensor in model.graph.initializer:
        key = onnx.TensorProto()
        key.CopyFrom(tensor)
        key.ClearField("name")
        stands = first.setdefault(key.SerializeToString(deterministic=True), tensor.name)
        if stands == tensor.name or tensor.name in outputs:
            kept.append(tensor)
        else:
            merged[tensor.name] = stands
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return merged


def _names() -> Iterator[str]:
    number = 0
    while True:
        text, rest = "", number
        while rest or not text:
            text, rest = _DIGITS[rest % len(_DIGITS)] + text, rest // len(_DIGITS)
        yield text
        number += 1


def _rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
