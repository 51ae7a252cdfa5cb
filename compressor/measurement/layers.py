"""Finds the first layer at which two forms of one model diverge: signal-to-noise ratio, layer by layer.

Decides how intermediate tensors of a float and an int8 ONNX file are paired, and how much noise is too much. The caller
passes the tensors of other forms (torch, TFLite) under the same names and in the same layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from compressor.errors import MeasureError, QuantizeError
from compressor.measurement.noise_figures import LIMIT_DB

Floats = NDArray[np.float32]

_CLIPPING = frozenset({"Relu", "Clip"})
ROUNDED = " (rounded)"
"""Suffix of the name of a tensor after its own quantization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverging:
    """The first layer below ``limit_db``: its ratio and largest difference, and the layer before it.

    ``before`` is empty, and ``before_db`` infinite, if it is the first layer compared.
    """

    layer: str
    sqnr_db: float
    max_abs: float
    limit_db: float
    before: str = ""
    before_db: float = math.inf

    def __str__(self) -> str:
        """Describe it in a sentence."""
        after = f", after {self.before!r} with {self.before_db:.1f} dB" if self.before else ""
        return f"{self.layer!r} has {self.sqnr_db:.1f} dB, wanted {self.limit_db:g} dB{after}"


def sqnr_db(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the signal-to-noise ratio of ``other`` against ``reference``, same shape, in dB.

    Infinite if equal; minus infinity if a value is not finite, or the reference is zero and the other is not.

    Raises:
        MeasureError: If the shapes differ or there are no values.
    """
    if reference.shape != other.shape or not reference.size:
        message = f"Expected two tensors of one shape, got {reference.shape} and {other.shape}: use the same inputs"
        raise MeasureError(f"{message} and layout")
    signal, said = reference.astype(np.float64), other.astype(np.float64)
    if not (np.isfinite(signal).all() and np.isfinite(said).all()):
        return -math.inf
    power, noise = float((signal**2).sum()), float(((signal - said) ** 2).sum())
    if not noise:
        return math.inf
    return 10 * math.log10(power / noise) if power else -math.inf


def first_diverging(reference: Sequence[tuple[str, NDArray[np.floating]]], other: Mapping[str, NDArray[np.floating]],
                    *, limit_db: float = LIMIT_DB) -> Diverging | None:  # fmt: skip
    """Return the first layer of ``reference``, in its order, below ``limit_db``; None if all reach it.

    Args:
        reference: Name and tensor of each layer, in the order of execution.
        other: Tensors of the other form by the same names; layers that it lacks are skipped.
        limit_db: Signal-to-noise ratio that every layer must reach.

    Raises:
        MeasureError: If no layer has a counterpart, or a pair differs in shape.
    """
    if not any(name in other for name, _ in reference):
        message = f"Expected layers with the same names in both forms, got none of {len(reference)}: map the names"
        raise MeasureError(message)
    before, before_db = "", math.inf
    for name, signal in reference:
        if name not in other:
            continue
        ratio = sqnr_db(signal, other[name])
        if not ratio >= limit_db:
            largest = float(np.abs(signal.astype(np.float64) - other[name]).max())
            return Diverging(
                layer=name, sqnr_db=ratio, max_abs=largest, limit_db=limit_db, before=before, before_db=before_db
            )
        before, before_db = name, ratio
    return None


def onnx_layers(
    float_model: bytes, int8_model: bytes, inputs: Floats
) -> tuple[list[tuple[str, Floats]], dict[str, Floats]]:
    """Return the paired tensors of two ONNX files for ``first_diverging``, both run without optimisation.

    Tensors of the same name and operator in both files form a pair. If the int8 file quantizes the tensor, a second
    pair holds it after rounding; its reference is the activation's output if the quantizer has merged the activation
    into the rounding.

    Args:
        float_model: The file that was quantized, batch norms folded as in the int8 file.
        int8_model: The QDQ file made from it.
        inputs: A few inputs, float32 (N, ...); every tensor is held in memory for all of them.

    Raises:
        MeasureError: If a file does not load or run on the inputs, or the two have no tensor name in common.
    """
    one, other = _typed(float_model), _typed(int8_model)
    pairs = _pairs(one, other)
    if not pairs:
        raise MeasureError("Expected tensors of the same name in both files, got none: quantize from this float file")
    reference = _values(one, sorted({first for _, first, _ in pairs}), inputs)
    said = _values(other, sorted({second for _, _, second in pairs}), inputs)
    return [(name, reference[first]) for name, first, _ in pairs], {name: said[second] for name, _, second in pairs}


def _typed(model: bytes) -> onnx.ModelProto:
    try:
        loaded = onnx.load_model_from_string(model)
        inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(loaded)
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        message = f"Expected an ONNX model, got {len(model)} bytes: {str(error)[:200]}"
        raise MeasureError(message) from error
    return inferred


def _pairs(one: onnx.ModelProto, other: onnx.ModelProto) -> list[tuple[str, str, str]]:
    """Return (name, tensor of the first, tensor of the second) in the order of the first."""
    by, made = _makers(one), _makers(other)
    rounded = _rounded(other)
    pairs = []
    for name in _float_tensors(one):
        if made.get(name) == by[name]:  # a convolution may have the name of the activation merged into it
            pairs.append((name, name, name))
        if name in rounded:
            pairs.append((name + ROUNDED, _merged(one, name, made), rounded[name]))
    order = {name: index for index, name in enumerate(_float_tensors(one))}
    return sorted(pairs, key=lambda pair: order[pair[1]])


def _makers(model: onnx.ModelProto) -> dict[str, str]:
    return {name: node.op_type for node in model.graph.node for name in node.output}


def _rounded(model: onnx.ModelProto) -> dict[str, str]:
    """Return the dequantized tensor of every quantized tensor."""
    quantized = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    restored = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {name: restored[integers] for name, integers in quantized.items() if integers in restored}


def _merged(model: onnx.ModelProto, name: str, made: Mapping[str, str]) -> str:
    """Return the output of the activation that is the only reader of ``name`` and that the other file lacks."""
    readers = [node for node in model.graph.node if name in node.input]
    gone = len(readers) == 1 and readers[0].op_type in _CLIPPING and readers[0].output[0] not in made
    return readers[0].output[0] if gone else name


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    infos = [*model.graph.value_info, *model.graph.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    made = [name for node in model.graph.node for name in node.output if name]
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]


def _values(model: onnx.ModelProto, names: Sequence[str], inputs: Floats) -> dict[str, Floats]:
    from compressor.quantize._running import run  # noqa: PLC0415 - loads onnxruntime

    try:
        ((_, values),) = run(model, names, lambda: [inputs], together=True)
    except QuantizeError as error:
        raise MeasureError(str(error)) from error
    return dict(zip(names, values, strict=True))
