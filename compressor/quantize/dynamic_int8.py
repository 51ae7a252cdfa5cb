"""Dynamic int8 for models of matrix products: s8 weights in the file, activation ranges computed for each input.

Rejects models of convolutions: a CNN measured 0.184 accuracy at 0.15 x the speed.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import onnx

from compressor.errors import QuantizeError
from compressor.quantize import Batches, Searched
from compressor.quantize._model import CONVOLUTIONS, PRODUCTS, chosen, compact, layers, prepare
from compressor.quantize._qdq import silenced, unable
from compressor.quantize._recurrent import in_int8
from compressor.steps.quantize import Settings

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from onnxruntime.quantization import QuantType, quantize_dynamic  # telemetry must be off before the import

READS = frozenset({"per_channel", "reduce_range", "float_layers"})
SEARCHED = Searched(equalized=True)
_MAX_CONVOLUTION_RATIO = 0.5  # share of the multiplications: above it, quantizing the others is not worth it


def quantize(model: bytes, batches: Batches, settings: Settings) -> bytes:
    """Return ``model`` with its MatMul and Gemm in dynamic int8; inputs and outputs stay float32; needs no data.

    Raises:
        QuantizeError: If the model can't be quantized, or most of its multiplications are in convolutions.
    """
    del batches
    prepared = prepare(model)
    found = layers(prepared)
    total = sum(layer.macs for layer in found)
    share = sum(layer.macs for layer in found if layer.operator in CONVOLUTIONS) / total if total else 1.0
    if share > _MAX_CONVOLUTION_RATIO:
        message = f"Expected for dynamic_int8 a model of matrix products, got {share:.0%} of its multiplications in "
        raise QuantizeError(message + 'convolutions, which it makes slower and wrong: set scheme = "static_int8"')
    kept = chosen(settings.float_layers, prepared)
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder, silenced():
        path = Path(folder) / "dynamic.onnx"
        try:
            quantize_dynamic(
                prepared,
                path,
                op_types_to_quantize=sorted(PRODUCTS),
                per_channel=settings.per_channel,
                reduce_range=settings.reduce_range,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=list(kept),
            )
            return compact(in_int8(onnx.load(path), settings, but=kept))
        except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
            raise unable(error) from error
