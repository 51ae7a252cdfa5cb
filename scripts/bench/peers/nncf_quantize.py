"""NNCF's own quantize with its defaults; runs in NNCF's virtual environment: IN.onnx DATA.npz OUT.onnx."""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx
from measured import measured

source, data, target = sys.argv[1:4]
rows = np.load(data, allow_pickle=False)["calibration"]
model = onnx.load(source)
name = model.graph.input[0].name
with measured():
    dataset = nncf.Dataset([{name: row[None]} for row in rows])
    quantized = nncf.quantize(model, dataset, subset_size=len(rows))
Path(target).write_bytes(quantized.SerializeToString())
