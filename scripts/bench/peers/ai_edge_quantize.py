"""ai-edge-quantizer's static int8 recipe with its own calibration, its defaults: IN.tflite DATA.npz OUT.tflite."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from measured import measured

source, data, target = sys.argv[1:4]
rows = np.load(data, allow_pickle=False)["calibration_nhwc"]
model = Path(source).read_bytes()
key, entry = next(iter(Interpreter(model_content=model).get_signature_list().items()))
with measured():
    worker = quantizer.Quantizer(model, recipe.static_wi8_ai8())
    statistics = worker.calibrate({key: [{entry["inputs"][0]: row[None]} for row in rows]})
    quantized = worker.quantize(statistics).quantized_model
Path(target).write_bytes(bytes(quantized))
