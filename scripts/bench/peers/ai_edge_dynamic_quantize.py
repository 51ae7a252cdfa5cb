"""ai-edge-quantizer's dynamic int8 recipe with its defaults, without data: IN.tflite DATA.npz OUT.tflite."""

from __future__ import annotations

import sys
from pathlib import Path

from ai_edge_quantizer import quantizer, recipe
from measured import measured

source, _, target = sys.argv[1:4]
with measured():
    quantized = quantizer.Quantizer(Path(source).read_bytes(), recipe.dynamic_wi8_afp32()).quantize().quantized_model
Path(target).write_bytes(bytes(quantized))
