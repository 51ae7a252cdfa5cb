"""NNCF's own quantize with its defaults; runs in NNCF's virtual environment: IN.onnx CALIBRATION.npy OUT.onnx."""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx

source, calibration, target = sys.argv[1:4]
rows = np.load(calibration, allow_pickle=False)
model = onnx.load(source)
name = model.graph.input[0].name
data = nncf.Dataset([{name: row[None]} for row in rows])
quantized = nncf.quantize(model, data, subset_size=len(rows))
Path(target).write_bytes(quantized.SerializeToString())
