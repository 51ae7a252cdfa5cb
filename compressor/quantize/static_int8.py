"""Static int8 as QDQ: u8 activations, per-channel s8 weights, ranges from our own calibrator.

onnxruntime's quantizer places the Q/DQ pairs; its calibrators are not used (their memory grows with the
data). u8 x s8 is the one pair of types that fuses into integer kernels on x86 and ARM alike.
``reduce_range`` makes weights 7 bits wide for x86 without VNNI, where u8 x s8 sums saturate.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from compressor.errors import QuantizeError
from compressor.export.stripping import strip
from compressor.quantize.calibrator import Batches, collect_ranges
from compressor.recipe import QuantizeRecipe

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime.quantization import QuantType  # telemetry must be off before the import
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from onnxruntime.quantization.shape_inference import quant_pre_process


def quantize(model: bytes, batches: Batches, settings: QuantizeRecipe) -> bytes:
    """Return the float ONNX ``model`` as int8 QDQ ONNX; inputs and outputs stay float32.

    Args:
        model: ONNX with float32 input; outputs keep their names and order.
        batches: Starts the calibration data anew: float32, (N, C, H, W), batch by batch.
        settings: Calibration method and width of the weights.

    Raises:
        QuantizeError: If the model can't be read, prepared, run on the data or quantized.
    """
    try:
        prepared = _prepared(model)
        percentile = settings.percentile if settings.calibration == "percentile" else 100.0
        ranges = collect_ranges(prepared, batches, percentile=percentile)
        quantized = _with_qdq(prepared, ranges, settings)
        onnx.checker.check_model(quantized)
    except (RuntimeError, ValueError, TypeError, KeyError, onnx.checker.ValidationError) as error:
        message = f"Expected a float ONNX model that onnxruntime can quantize, got: {str(error)[:300]}"
        raise QuantizeError(message) from error
    return strip(quantized).SerializeToString(deterministic=True)  # type: ignore[no-any-return]


def _prepared(model: bytes) -> onnx.ModelProto:
    """Return ``model`` with shapes inferred and its constants and batch norms folded."""
    try:
        loaded = onnx.load_from_string(model)
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        message = f"Expected an ONNX model, got {len(model)} bytes: {error}"
        raise QuantizeError(message) from error
    if not loaded.graph.node:
        message = f"Expected an ONNX model with nodes, got {len(model)} bytes without any"
        raise QuantizeError(message)
    prepared = _preprocessed(loaded, symbolic=False)
    return prepared if _typed(prepared) else _preprocessed(loaded, symbolic=True)


def _preprocessed(model: onnx.ModelProto, *, symbolic: bool) -> onnx.ModelProto:
    """Return ``model`` prepared by onnxruntime; symbolic shape inference imports torch: 220 MB and 3 s more."""
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        path = Path(folder) / "prepared.onnx"
        quant_pre_process(model, str(path), auto_merge=True, skip_symbolic_shape=not symbolic)
        prepared: onnx.ModelProto = onnx.load(str(path))
        return prepared


def _typed(model: onnx.ModelProto) -> bool:
    known = {info.name for info in [*model.graph.value_info, *model.graph.output]}
    return all(name in known for node in model.graph.node for name in node.output if name)


def _with_qdq(
    model: onnx.ModelProto, ranges: Mapping[str, tuple[float, float]], settings: QuantizeRecipe
) -> onnx.ModelProto:
    method = CalibrationMethod.Percentile if settings.calibration == "percentile" else CalibrationMethod.MinMax
    tensors = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()
    }
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # the quantizer logs advice on the root logger
    try:
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=settings.reduce_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=TensorsData(method, tensors),
            nodes_to_quantize=[],
            nodes_to_exclude=[],
            op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
            extra_options={},
        )
        quantizer.quantize_model()
    finally:
        root.setLevel(level)
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
