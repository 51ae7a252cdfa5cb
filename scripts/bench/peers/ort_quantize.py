"""onnxruntime's ``quantize_static`` as documented, with all defaults: IN.onnx DATA.npz OUT.onnx."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from measured import measured
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Calibration rows in onnxruntime's interface."""

    def __init__(self, rows) -> None:  # noqa: ANN001 - float32 (N, C, H, W)
        """Start at the first row."""
        self._rows = iter(rows)

    def get_next(self):  # noqa: ANN201 - onnxruntime's interface
        """Return the next row by input name; None at the end."""
        row = next(self._rows, None)
        return None if row is None else {"input": row[None]}


source, data, target = sys.argv[1:4]
calibration = np.load(data, allow_pickle=False)["calibration"]
with tempfile.TemporaryDirectory() as folder, measured():
    prepared = str(Path(folder) / "prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(prepared, target, Reader(calibration))
