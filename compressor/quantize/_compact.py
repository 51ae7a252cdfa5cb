"""Makes a quantized ONNX file smaller without changing a value: deduplicated constants, short names.

Layers and their outputs keep the names of the float file, so that the two can be compared layer by layer. What the
float file lacks (scales, zero points, Q/DQ pairs, unnamed nodes of schemes) gets a short name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from compressor.export.stripping import strip

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CONVERTING = frozenset({"QuantizeLinear", "DequantizeLinear"})


def compact(model: onnx.ModelProto) -> bytes:
    """Return ``model`` (raw or typed constants, no subgraphs) as the bytes of a smaller, equivalent file."""
    if not any(
        attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute
    ):
        for node in model.graph.node:
            node.name = "" if node.op_type in _CONVERTING else node.name
        _rename(model, _merged(model))
        _rename(model, _short(model))
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


def _short(model: onnx.ModelProto) -> Mapping[str, str]:
    """Return a short name for each constant and each output of an unnamed node, except graph inputs and outputs."""
    fixed = {info.name for info in [*model.graph.input, *model.graph.output]}
    converted = [name for node in model.graph.node if not node.name for name in node.output]
    renamed = [name for name in [*(tensor.name for tensor in model.graph.initializer), *converted] if name not in fixed]
    made = {name for node in model.graph.node for name in node.output}
    free = (name for name in _names() if name not in fixed | made)
    return dict(zip(renamed, free, strict=False))


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
