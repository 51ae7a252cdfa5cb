"""Quantization of TFLite files with our own ranges.

ai-edge-quantizer inserts the scales; its calibrator is not used: its moving averages cost 1.5 points, true ranges none.
Decides which operators are quantized and how; the ranges are passed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import QuantizeError
from compressor.quantize._calibrator import within_reach
from compressor.tflite import flatbuffer
from compressor.tflite.biases import fitted
from compressor.tflite.edges import make_float
from compressor.tflite.naming import OUTPUT_NAMES, WEIGHT_PLACE
from compressor.tflite.packages import quiet, required
from compressor.tflite.ranges import activations
from wire.settings import nearest

SCHEMES = ("static_int8", "static_int8_16", "dynamic_int8", "weight_int8", "float16")
_LIMITING = frozenset({"MINIMUM", "MAXIMUM", "PADV2"})
_ACTIVATION_BITS = {"static_int8": 8, "static_int8_16": 16}
_WEIGHT_BITS, _FLOAT_BITS = 8, 16
_LONGEST = 300

Ranges = Mapping[str, tuple[float, float]]


def quantize(
    model: bytes,
    ranges: Ranges | None = None,
    *,
    scheme: str,
    per_channel: bool = True,
    integer_io: bool = False,
    float_layers: Sequence[str] = (),
) -> bytes:
    """Return the float TFLite ``model`` quantized by ``scheme``.

    Args:
        model: Float TFLite, one graph.
        ranges: (low, high) of the input and of every float activation by tensor name (``ranges.collect_ranges``); only
            for the static schemes, the others use no data.
        scheme: ``static_int8`` (int8 activations), ``static_int8_16`` (int16 activations), ``dynamic_int8``
            (activations are quantized at run time), ``weight_int8`` and ``float16`` (computes in float32).
        per_channel: One weight scale per output channel instead of one per layer; ``dynamic_int8`` requires it.
        integer_io: Static schemes only: input and outputs are integers, and the caller quantizes; otherwise they stay
            float32, and the file has one QUANTIZE at the beginning and a DEQUANTIZE per output.
        float_layers: Layers that stay float, by name or unique prefix.

    Raises:
        QuantizeError: If the scheme or a layer does not exist, ranges are missing or not finite, or the model can't be
            quantized.
        PluginError: If the extra ``tflite`` is not installed.
    """
    if scheme not in SCHEMES:
        raise QuantizeError(f"Expected a scheme of {', '.join(SCHEMES)}, got {scheme!r}" + nearest(scheme, SCHEMES))
    if integer_io and scheme not in _ACTIVATION_BITS:
        raise QuantizeError(f"Expected a static scheme for integer_io, got {scheme!r}: set integer_io = false")
    if scheme == "dynamic_int8" and not per_channel:
        message = "Expected per_channel = true with 'dynamic_int8', got false"
        raise QuantizeError(
            f"{message}: LiteRT's depthwise kernel reads a scale per channel, past the end of a single one"
        )
    _require_float(model)
    statistics = _statistics(model, ranges or {}) if scheme in _ACTIVATION_BITS else None
    if scheme == "static_int8":  # with int16 activations biases are int64
        model = fitted(model, ranges or {}, per_channel=per_channel)
    kept = _scopes(model, float_layers)
    with quiet():
        quantizer = required("ai_edge_quantizer.quantizer").Quantizer(bytes(model))
        try:
            _instruct(quantizer, scheme, per_channel=per_channel, kept=kept)
            result = quantizer.quantize(statistics, enable_progress_report=False)
        except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            message = f"Expected a float TFLite model that {scheme!r} quantizes, got: {str(error)[:_LONGEST]}"
            raise QuantizeError(message) from error
    return _finished(bytes(result.quantized_model), integer_io=integer_io)


def _instruct(quantizer: Any, scheme: str, *, per_channel: bool, kept: Sequence[str]) -> None:  # noqa: ANN401
    """Give ``quantizer`` its rules; a later rule overrides earlier ones."""
    types, algorithm = required("ai_edge_quantizer.qtyping"), required("ai_edge_quantizer.quantizer").AlgorithmName
    grain = types.QuantGranularity.CHANNELWISE if per_channel else types.QuantGranularity.TENSORWISE
    every, whole = types.TFLOperationName.ALL_SUPPORTED, ".*"
    if scheme in _ACTIVATION_BITS:
        quantizer.add_static_config(whole, every, _ACTIVATION_BITS[scheme], _WEIGHT_BITS, grain)
    elif scheme == "dynamic_int8":
        quantizer.add_dynamic_config(whole, every, _WEIGHT_BITS, grain)
    elif scheme == "weight_int8":
        quantizer.add_weight_only_config(whole, every, _WEIGHT_BITS, grain)
    else:
        tensor = types.QuantGranularity.TENSORWISE
        quantizer.add_weight_only_config(whole, every, _FLOAT_BITS, tensor, algorithm.FLOAT_CASTING)
    for scope in kept:
        quantizer.update_quantization_recipe(scope, every, None, algorithm.NO_QUANTIZE)


def _require_float(model: bytes) -> None:
    types = required("ai_edge_litert.schema_py_generated").TensorType
    smaller = {types.INT4, types.INT8, types.UINT8, types.INT16, types.FLOAT16}
    tensors = [one for graph in flatbuffer.read(model, QuantizeError).subgraphs for one in graph.tensors]
    found = next((one.name.decode(errors="replace") for one in tensors if one.type in smaller), None)
    if found is not None:
        message = f"Expected a float TFLite model, got one whose {found!r} is quantized: take the file it was made from"
        raise QuantizeError(message)


def _statistics(model: bytes, ranges: Ranges) -> dict[str, dict[str, Any]]:
    """Return ``ranges`` in the form of ai-edge-quantizer's calibration result."""
    missing = [name for name in activations(model).values() if name not in ranges]
    if missing:
        message = f"Expected ranges of all activations, got none of {missing[0]!r}: collect them from calibration data"
        raise QuantizeError(message)
    for name, (low, high) in ranges.items():
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise QuantizeError(f"Expected a finite range of {name!r}, got {low} to {high}: check the calibration data")
        within_reach(name, low, high)
    for name, values in _constants(model):
        within_reach(name, float(values.min()), float(values.max()))
    return {
        name: {"min": np.array([[low]], dtype=np.float32), "max": np.array([[high]], dtype=np.float32)}
        for name, (low, high) in ranges.items()
    }


def _constants(model: bytes) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield name and values of the float constants that are quantized: those of clips and paddings are not."""
    tree = flatbuffer.read(model, QuantizeError)
    graph = tree.subgraphs[0]
    for operator in graph.operators:
        if flatbuffer.operator_name(tree, operator) in _LIMITING:
            continue
        for tensor in (graph.tensors[index] for index in operator.inputs if index >= 0):
            values = flatbuffer.constant(tree, tensor)
            if values is not None and values.size:
                yield tensor.name.decode(), values


def layers(model: bytes) -> tuple[str, ...]:
    """Return the names of the layers with weights, in the order in which they run, for ``float_layers``.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file.
        PluginError: If the extra ``tflite`` is not installed.
    """
    return tuple(_layers(model))


def _layers(model: bytes) -> dict[str, str]:
    """Return the name of each layer with weights, mapped to the name of its output tensor."""
    tree = flatbuffer.read(model, QuantizeError)
    graph, found = tree.subgraphs[0], {}
    for operator in graph.operators:
        place = WEIGHT_PLACE.get(flatbuffer.operator_name(tree, operator))
        if place is not None:
            output = graph.tensors[operator.outputs[0]].name.decode()
            weight = graph.tensors[operator.inputs[place]].name.decode()
            name = weight.removesuffix(".weight") if output in OUTPUT_NAMES else output
            found[name] = output
    return found


def _scopes(model: bytes, float_layers: Sequence[str]) -> list[str]:
    """Return the ai-edge-quantizer patterns that match exactly the named layers."""
    if not float_layers:
        return []
    known, scopes = _layers(model), []
    for wanted in float_layers:
        found = [wanted] if wanted in known else [name for name in known if name.startswith(wanted)]
        if len(found) != 1:
            message = f"Expected a layer of the model, or the beginning of one's name, got {wanted!r}"
            raise QuantizeError(message + (nearest(wanted, tuple(known)) if not found else f": {', '.join(found)}"))
        scopes.append(f"^{re.escape(known[found[0]])};$")
    return scopes


def _finished(model: bytes, *, integer_io: bool) -> bytes:
    """Return ``model`` stripped, with float edges unless ``integer_io``."""
    tree = flatbuffer.read(model, QuantizeError)
    if not integer_io:
        make_float(tree)
    return flatbuffer.write(tree)
