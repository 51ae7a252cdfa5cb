"""Inserts the Q/DQ pairs of static int8 (u8 activations, s8 weights), and measures how much each layer loses by them.

onnxruntime's quantizer inserts them; its calibrators are not used (their memory grows with the data). u8 x s8 is the
only pair of types that fuses into integer kernels on both x86 and ARM. ``reduce_range`` makes weights 7 bits wide for
x86 without VNNI, where u8 x s8 sums saturate.

The loss of a layer is the signal-to-quantization-noise ratio of the logits. One layer at a time is quantized and all
others stay float, so that each figure belongs to one layer. The reverse (all but one) took 1.7 x the time, and the gain
of one layer is lost in the noise of the others (all within 2 dB).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from compressor.errors import QuantizeError
from compressor.quantize import Batches, Ranges
from compressor.quantize._calibrator import collect_ranges
from compressor.quantize._model import layers, prepare
from compressor.quantize._running import logits
from compressor.steps.quantize import Settings

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime.quantization import QuantType  # telemetry must be off before the import
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

_TINY = 1e-30


def place(
    model: onnx.ModelProto, ranges: Ranges, settings: Settings, *, only: Collection[str] = (), but: Collection[str] = ()
) -> onnx.ModelProto:
    """Return a copy of ``model`` with Q/DQ pairs at every node that onnxruntime can run in int8.

    Args:
        model: Float ONNX from ``_model.prepare``.
        ranges: (low, high) of the input and of every float tensor that a node outputs.
        settings: Width of the weights, and whether they have a scale per output channel.
        only: Names of the nodes to quantize (empty: all).
        but: Names of the nodes that stay float.

    Raises:
        QuantizeError: If onnxruntime can't quantize the model.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = {n: TensorData(lowest=np.float32(low), highest=np.float32(high)) for n, (low, high) in ranges.items()}
    try:
        with silenced():
            quantizer = QDQQuantizer(
                copied,
                per_channel=settings.per_channel,
                reduce_range=settings.reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=TensorsData(CalibrationMethod.MinMax, tensors),
                nodes_to_quantize=list(only),
                nodes_to_exclude=[*but, *_limits_inside(copied)],
                op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
                extra_options={"TensorQuantOverrides": _per_tensor(copied, settings)},
            )
            quantizer.quantize_model()
        quantizer.model.topological_sort()
        placed: onnx.ModelProto = quantizer.model.model
        onnx.checker.check_model(placed)
    except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
        raise unable(error) from error
    return placed


def _limits_inside(model: onnx.ModelProto) -> list[str]:
    """Return the Clip nodes that a range can't stand for: every range includes zero, and theirs does not.

    onnxruntime's quantizer removes a Clip after a layer, and lets the rounding to 8 bits limit the values.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type == "Clip":
            limits = [constants.get(name) for name in [*node.input[1:], "", ""][:2]]
            low, high = (
                0.0 if one is None else float(onnx.numpy_helper.to_array(one).reshape(-1)[0]) for one in limits
            )
            if low > 0 or high < 0:
                found.append(node.name)
    return found


def _per_tensor(model: onnx.ModelProto, settings: Settings) -> dict[str, list[dict[str, object]]]:
    """Return one scale for the weights of each grouped ConvTranspose.

    Their axis of output channels has those of one group alone, so that scales along it belong to several channels, and
    onnxruntime's quantizer fails at the bias.
    """
    if not settings.per_channel:
        return {}
    whole = {"quant_type": QuantType.QInt8, "symmetric": True, "reduce_range": settings.reduce_range}
    return {node.input[1]: [dict(whole)] for node in of_one_scale(model)}


def of_one_scale(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the layers of ``model`` that can't have a scale per channel: grouped ConvTranspose."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "ConvTranspose" and any(item.name == "group" and item.i > 1 for item in node.attribute)
        if node.input[1] in constants
    ]


def unable(error: Exception) -> QuantizeError:
    """Return the error for a failure of onnxruntime's quantizer, with the next step."""
    message = f"Expected a float ONNX model that onnxruntime can quantize, got: {str(error)[:300]}"
    steps = "export with opset_version=13 or higher, set per_channel = false, or take weight_int8 or float16"
    return QuantizeError(f"{message}: {steps}; of a file that is int8 already, take compress = []")


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress the advice that onnxruntime's quantizers log on the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """``sqnr_db``: of the logits with only ``layer`` in int8 (low: sensitive). ``macs``: of the layer, per sample."""

    layer: str
    sqnr_db: float
    macs: int


def measured(model: bytes, batches: Batches, settings: Settings) -> tuple[Sensitivity, ...]:
    """Return the layers of the float ONNX ``model``, most sensitive first.

    Args:
        model: ONNX with float32 input.
        batches: Restarts the calibration data: float32, (N, C, H, W), batch by batch.
        settings: Calibration, width and scales of the weights.

    Raises:
        QuantizeError: If the model can't be read, prepared, quantized or run, or there is no data.
    """
    prepared = prepare(model)
    ranges = collect_ranges(prepared, batches, method=settings.calibration, percentile=settings.percentile)
    return of_layers(prepared, ranges, batches, settings)


def of_layers(
    prepared: onnx.ModelProto, ranges: Ranges, batches: Batches, settings: Settings
) -> tuple[Sensitivity, ...]:
    """Return the layers of ``prepared``, most sensitive first.

    Args:
        prepared: Float ONNX from ``_model.prepare``.
        ranges: (low, high) of its tensors.
        batches: Restarts the calibration data.
        settings: Width of the weights, and whether they have a scale per output channel.

    Raises:
        QuantizeError: If the model does not quantize or run, or there is no data.
    """
    want = logits(prepared, batches)
    found = [
        Sensitivity(
            layer.name, sqnr_db(want, logits(place(prepared, ranges, settings, only=[layer.name]), batches)), layer.macs
        )
        for layer in layers(prepared)
    ]
    return tuple(sorted(found, key=lambda item: (item.sqnr_db, item.layer)))


def sqnr_db(want: npt.NDArray[np.float32], got: npt.NDArray[np.float32]) -> float:
    """Return 10 log10 of the energy of ``want`` over the energy of the difference, in decibels; same shapes."""
    signal, noise = want.astype(np.float64), got.astype(np.float64) - want
    return float(10 * np.log10(max(float((signal**2).sum()), _TINY) / max(float((noise**2).sum()), _TINY)))
