"""NNCF's ``quantize_with_accuracy_control``, at most 1 point lost on search rows: IN.onnx DATA.npz OUT.onnx.

Runs in NNCF's virtual environment. It judges on the same search rows as our own steps, never on gate rows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nncf
import numpy as np
import onnx
import onnxruntime as ort
from measured import measured

MAX_DROP = 0.01
source, data, target = sys.argv[1:4]
arrays = np.load(data, allow_pickle=False)
model = onnx.load(source)
name = model.graph.input[0].name


def accuracy(candidate, pairs):  # noqa: ANN001, ANN201 - NNCF's interface
    """Return the share of ``pairs`` (inputs, label) that ``candidate`` gets right."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(candidate.SerializeToString(), options, providers=["CPUExecutionProvider"])
    right = [int(session.run(None, inputs)[0].argmax()) == label for inputs, label in pairs]
    return float(np.mean(right))


with measured():
    calibration = nncf.Dataset([{name: row[None]} for row in arrays["calibration"]])
    labelled = [({name: row[None]}, int(label)) for row, label in zip(arrays["search"], arrays["labels"], strict=True)]
    quantized = nncf.quantize_with_accuracy_control(
        model,
        calibration,
        nncf.Dataset(labelled),
        accuracy,
        max_drop=MAX_DROP,
        subset_size=len(arrays["calibration"]),
    )
Path(target).write_bytes(quantized.SerializeToString())
