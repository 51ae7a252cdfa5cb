"""Applies a recipe's step ``quantize`` to a TFLite file: ranges from our calibrator or learned, then the scheme.

Decides which settings of the step apply to TFLite, and rejects the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from compressor.errors import QuantizeError
from compressor.quantize._calibrator import Summary, nudged
from compressor.quantize._running import Batches
from compressor.steps.quantize import Settings
from compressor.tflite import ranges as calibrating
from compressor.tflite.quantizing import quantize
from compressor.tflite.recording import Recorder

Floats = npt.NDArray[np.float32]
Ranges = Mapping[str, tuple[float, float]]
_LAYERS = frozenset({"per_channel", "float_layers"})
_CALIBRATED = _LAYERS | {
    "calibration", "percentile", "integer_io", "float_layers_auto", "bias_correction", "reduce_range",
}  # fmt: skip
READS: Mapping[str, frozenset[str]] = {
    "static_int8": _CALIBRATED, "static_int8_16": _CALIBRATED, "dynamic_int8": _LAYERS, "weight_int8": _LAYERS,
    "float16": frozenset({"float_layers"}), "none": frozenset(),
}  # fmt: skip
"""The settings that each scheme reads here, including those that it rejects (``float_layers_auto``).

``reduce_range = false`` is accepted, because weights have 8 bits here."""
_STATIC = frozenset({"static_int8", "static_int8_16"})


def quantize_by(model: bytes, batches: Batches, settings: Settings, *, ranges: Ranges | None = None) -> bytes:
    """Return the float TFLite ``model`` quantized with ``settings``; ``batches()`` yields float32 (N, H, W, C).

    ``ranges``: learned (low, high) by tensor name, instead of the calibrated ones.

    Raises:
        QuantizeError: If a setting does not apply to TFLite, or the model can't be quantized.
        PluginError: If the extra ``tflite`` is not installed.
    """
    if settings.scheme == "none":
        return model
    if settings.float_layers_auto or settings.bias_correction:
        name = "float_layers_auto" if settings.float_layers_auto else "bias_correction"
        message = f"Expected {name} with a target of runtime 'onnx', got a litert target"
        raise QuantizeError(f"{message}: name layers in float_layers, or put a step 'equalize' before the export")
    used: dict[str, tuple[float, float]] = {}
    if settings.scheme in _STATIC:
        summary = partial(Summary, settings.calibration, settings.percentile)
        measured = calibrating.collect_ranges(model, batches, summary=summary)
        source = next(iter(measured))  # the input comes first
        if settings.scheme == "static_int8":
            measured[source] = nudged(*measured[source])
        used = {**measured, **(ranges or {})}
    return quantize(
        model, used or None, scheme=settings.scheme, per_channel=settings.per_channel,
        integer_io=settings.integer_io, float_layers=settings.float_layers,
    )  # fmt: skip


def tensors(model: bytes, rows: Floats) -> dict[str, Floats]:
    """Return the values of the input and of every float tensor of ``model`` for ``rows``, float32 (N, H, W, C).

    Raises:
        QuantizeError: If it is not a TFLite file of one graph and one input.
        MeasureError: If the model does not run on the rows.
    """
    names = calibrating.activations(model)
    parts = list(Recorder(model, list(names), rows).run(rows))
    joined = (np.concatenate(values) for values in zip(*parts, strict=True))
    return dict(zip(names.values(), joined, strict=True))
