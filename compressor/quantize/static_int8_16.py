"""Static int8 weights with 16-bit activations: rejected for ONNX, with the reason."""

from __future__ import annotations

from typing import NoReturn

from compressor.errors import QuantizeError
from compressor.quantize import Batches, Searched
from compressor.steps.quantize import Settings

READS: frozenset[str] = frozenset()
SEARCHED = Searched(calibrations=True, equalized=True, onnx=False)


def quantize(model: bytes, batches: Batches, settings: Settings) -> NoReturn:
    """Raise: onnxruntime would run 16-bit Q/DQ pairs around float convolutions, slower than no quantization.

    Raises:
        QuantizeError: Always; use LiteRT, which has the kernels.
    """
    del model, batches, settings
    message = (
        "Expected scheme static_int8_16 on a target with 16-bit kernels, got an ONNX target: onnxruntime's CPU has "
    )
    message += (
        'no 16-bit convolution kernels, LiteRT has: set runtime = "litert" in [targets], or scheme = "static_int8"'
    )
    raise QuantizeError(message)
