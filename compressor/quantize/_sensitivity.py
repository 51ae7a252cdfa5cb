"""Measures how much each layer loses in int8: signal-to-quantization-noise ratio of the logits.

One layer at a time is quantized and all others stay float, so that each figure belongs to one layer. The reverse (all
but one) took 1.7 x the time, and the gain of one layer is lost in the noise of the others (all within 2 dB).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from compressor.quantize._calibrator import collect_ranges
from compressor.quantize._model import layers, prepare
from compressor.quantize._qdq import Ranges, place
from compressor.quantize._running import Batches, logits
from compressor.steps.quantize import Settings

_TINY = 1e-30


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
