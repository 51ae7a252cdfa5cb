"""onnxruntime's ``quantize_dynamic`` as documented, with all defaults: IN.onnx DATA.npz OUT.onnx."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measured import measured
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

source, _, target = sys.argv[1:4]
with tempfile.TemporaryDirectory() as folder, measured():
    prepared = str(Path(folder) / "prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_dynamic(prepared, target)
