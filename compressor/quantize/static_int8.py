"""Static int8 as QDQ: u8 activations, s8 weights, ranges from our own calibrator or given (learned by QAT).

Decides the order: prepare, calibrate, keep float the named and the most sensitive layers, and joins of unlike ranges
before an output, correct biases, insert Q/DQ pairs, compact the file. Inputs and outputs stay float32.
"""

from __future__ import annotations

import onnx

from compressor.errors import QuantizeError
from compressor.quantize import Batches, Ranges, Searched
from compressor.quantize._bias import corrected
from compressor.quantize._calibrator import collect_ranges, nudged, within_reach
from compressor.quantize._joined import of_onnx
from compressor.quantize._model import chosen, compact, prepare
from compressor.quantize._qdq import of_layers, place
from compressor.quantize._recurrent import in_int8
from compressor.steps.quantize import Settings

READS = frozenset({
    "calibration", "percentile", "reduce_range", "per_channel", "bias_correction", "float_layers", "float_layers_auto",
})  # fmt: skip
SEARCHED = Searched(calibrations=True, equalized=True, trained=True)
_LIMITING = frozenset({"Clip", "Min", "Max", "Pad"})
"""Operators whose constants are limits or fill values, not operands: 3.4e38 means "no limit" there."""


def quantize(model: bytes, batches: Batches, settings: Settings, *, ranges: Ranges | None = None) -> bytes:
    """Return the float ONNX ``model`` as int8 QDQ ONNX; inputs and outputs stay float32.

    Args:
        model: ONNX with float32 input; outputs keep their names and order.
        batches: Restarts the calibration data: float32, (N, C, H, W), batch by batch.
        settings: Calibration, width and scales of the weights, bias correction, layers that stay float.
        ranges: (low, high) by name of a tensor in ``model``, instead of the calibrated ones.

    Raises:
        QuantizeError: If the model can't be read, prepared, run on the data or quantized, or a named layer or tensor
            does not exist.
    """
    prepared = prepare(model)
    measured = collect_ranges(prepared, batches, method=settings.calibration, percentile=settings.percentile)
    inputs = {item.name: nudged(*measured[item.name]) for item in prepared.graph.input if item.name in measured}
    unknown = sorted((ranges or {}).keys() - measured.keys())
    if unknown:
        message = f"Expected ranges of tensors that the prepared model makes, got {', '.join(unknown[:4])}: "
        raise QuantizeError(message + "match them by value with the exported file first")
    used = {**measured, **inputs, **(ranges or {})}
    taken = {name for node in prepared.graph.node if node.op_type not in _LIMITING for name in node.input}
    for tensor in prepared.graph.initializer:
        if tensor.name in taken and tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor)
            if values.size:
                within_reach(tensor.name, float(values.min()), float(values.max()))
    kept = (*chosen(settings.float_layers, prepared), *of_onnx(prepared, used))
    if settings.float_layers_auto:
        worst = [found.layer for found in of_layers(prepared, used, batches, settings) if found.layer not in kept]
        kept = (*kept, *worst[: settings.float_layers_auto])
    if settings.bias_correction:
        prepared = corrected(prepared, lambda changed: place(changed, used, settings, but=kept), batches)
    return compact(in_int8(place(prepared, used, settings, but=kept), settings, but=kept))
