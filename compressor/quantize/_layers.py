"""Prepares a float ONNX model for quantizers: named layers, with the multiplications of each.

Decides what a layer is (a convolution or matrix product) and how a recipe names it. Does not decide which layers are
quantized.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter

from compressor.errors import QuantizeError
from wire.settings import nearest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime.quantization.shape_inference import quant_pre_process  # telemetry must be off before the import

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
PRODUCTS = frozenset({"Gemm", "MatMul"})
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
        QuantizeError: If it can't be read or prepared.
    """
    read = _lifted(loaded(model))
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
    shapes = _shapes(model)
    multiplying = [node for node in model.graph.node if node.op_type in CONVOLUTIONS | PRODUCTS]
    return tuple(Layer(node.name, node.op_type, _macs(node, shapes)) for node in multiplying)


def chosen(wanted: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Return the names in ``known`` that ``wanted`` selects: each a full name or a prefix of exactly one name.

    Raises:
        QuantizeError: If one matches none or several.
    """
    return tuple(_chosen(name, known) for name in wanted)


def _chosen(name: str, known: Collection[str]) -> str:
    found = [name] if name in known else [item for item in known if item.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        message = f"Expected in float_layers a name that begins one layer, got {name!r}, which begins {len(found)}: "
        raise QuantizeError(message + f"write more of it ({', '.join(sorted(found)[:4])})")
    message = f"Expected in float_layers a layer of the model, got {name!r}{nearest(name, known)}"
    raise QuantizeError(message + f" (there are {', '.join(sorted(known)[:8])})")


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


def _shapes(model: onnx.ModelProto) -> Mapping[str, Sequence[int]]:
    infos = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    shapes = {info.name: [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim] for info in infos}
    return shapes | {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def _macs(node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> int:
    made, taken, weight = (shapes.get(name, ()) for name in (node.output[0], node.input[0], node.input[1]))
    if node.op_type == "Conv":  # weight (out, in / groups, kernel...)
        return math.prod(made[1:]) * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(taken[1:]) * math.prod(weight[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return math.prod(made[1:]) * (taken[-2 if transposed else -1] if taken else 1)
