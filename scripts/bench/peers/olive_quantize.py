"""Olive's static quantization, its defaults, in Olive's virtual environment: IN.onnx DATA.npz OUT.onnx."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"

import numpy as np
from measured import measured
from olive.data.config import DataComponentConfig, DataConfig
from olive.data.registry import Registry
from olive.workflows import run

source, data_file, target = (str(Path(argument).resolve()) for argument in sys.argv[1:4])
ROWS = np.load(data_file, allow_pickle=False)["calibration"]


@Registry.register_dataset("bench_rows")
def _rows(data_dir=None, **_):  # noqa: ANN001, ANN003, ANN202 - Olive's own form
    del data_dir
    return [({"input": row}, 0) for row in ROWS]


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)  # its cache is written to the working folder
    data = DataConfig(name="rows", load_dataset_config=DataComponentConfig(type="bench_rows"))
    with measured():
        run(
            {
                "input_model": {"type": "OnnxModel", "model_path": source},
                "data_configs": [data.to_json()],
                "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "rows"}},
                "output_dir": f"{folder}/out",
                "log_severity_level": 3,
            }
        )
    found = sorted(Path(folder, "out").rglob("*.onnx"))
    shutil.copy(found[0], target)
    os.chdir("/")
