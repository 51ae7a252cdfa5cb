"""No quantization: the float model itself, as a candidate like the others."""

from __future__ import annotations

from compressor.quantize import Batches, Searched
from compressor.quantize._model import loaded
from compressor.steps.quantize import Settings

READS: frozenset[str] = frozenset()
SEARCHED = Searched(integer=False)


def quantize(model: bytes, batches: Batches, settings: Settings) -> bytes:
    """Return ``model``, byte for byte.

    Raises:
        QuantizeError: If it is not an ONNX model.
    """
    del batches, settings
    loaded(model)
    return model
