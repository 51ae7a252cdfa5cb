"""ONNX to onnxruntime's own format, which small devices load without a protobuf parser and without an optimiser.

The graph is optimised up to the level that is valid on every processor (``ORT_ENABLE_EXTENDED``): layouts for this
host's kernels are excluded.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from compressor.errors import ExportError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort  # telemetry must be off before the import

_ERROR = 3


def to_ort_format(model: bytes) -> bytes:
    """Return the ONNX ``model`` in ORT format.

    Raises:
        ExportError: If onnxruntime can't open or write it.
    """
    with tempfile.TemporaryDirectory(prefix="tinyfleet-") as folder:
        path = Path(folder) / "model.ort"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(path)
        options.log_severity_level = _ERROR
        options.add_session_config_entry("session.save_model_format", "ORT")
        try:
            ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            return path.read_bytes()
        except Exception as error:  # onnxruntime raises many unrelated classes
            message = f"Expected a model that onnxruntime writes in its own format, got: {str(error)[:300]}"
            raise ExportError(message) from error
