"""Olive's static quantization, its defaults, in Olive's virtual environment: IN.onnx CALIBRATION.npy OUT.onnx."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from olive.data.config import DataComponentConfig, DataConfig
from olive.data.registry import Registry
from olive.workflows import run

source, calibration, target = sys.argv[1:4]
ROWS = np.load(calibration, allow_pickle=False)


@Registry.register_dataset("bench_rows")
def _rows(data_dir=None, **_):  # noqa: ANN001, ANN003, ANN202 - Olive's own form
    del data_dir
    return [({"input": row}, 0) for row in ROWS]


with tempfile.TemporaryDirectory() as folder:
    data = DataConfig(name="rows", load_dataset_config=DataComponentConfig(type="bench_rows"))
    out = run(
        {
            "input_model": {"type": "OnnxModel", "model_path": source},
            "data_configs": [data.to_json()],
            "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "rows"}},
            "output_dir": folder,
            "log_severity_level": 3,
        }
    )
    del out
    found = sorted(Path(folder).rglob("*.onnx"))
    shutil.copy(found[0], target)
