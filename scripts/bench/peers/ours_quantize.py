"""Our own quantize step on a float file, to measure its peak memory in a separate process: IN DATA.npz OUT.

It calibrates all ranges; in a run, the ranges learned by QAT are used instead.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measured import measured

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from compressor.steps.quantize import Settings

BATCH = 64
source, data, target = sys.argv[1:4]
settings = Settings(reduce_range=False)
litert = source.endswith(".tflite")
if litert:
    from compressor.tflite.quantizing import quantize_by as quantize
else:
    from compressor.quantize import quantize
rows = np.load(data, allow_pickle=False)["calibration_nhwc" if litert else "calibration"]


def batches() -> Iterator[object]:
    """Yield the calibration rows in batches."""
    yield from (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


with measured():
    made = quantize(Path(source).read_bytes(), batches, settings)
Path(target).write_bytes(made)
