"""Runs an ONNX model on calibration data, portion by portion, and yields any of its tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from compressor.errors import QuantizeError
from compressor.portions import TENSOR_BYTES, portions, rows_within
from compressor.quantize import Batches

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # telemetry must be off before the import

Floats = npt.NDArray[np.float32]

_ERROR = 3
_MOST_ROWS = 64


def run(
    model: onnx.ModelProto, names: Sequence[str], batches: Batches, *, together: bool = False
) -> Iterator[tuple[Floats, list[Floats]]]:
    """Yield the data with the tensors ``names`` that ``model`` computes from it, on one thread, portion by portion.

    The model runs without optimisation, so that every tensor exists. A portion has as many rows as keep all tensors
    within ``TENSOR_BYTES``; a caller that releases each portion before the next holds no more than that. ``together``:
    each batch is one portion, whatever its size.

    Raises:
        QuantizeError: If the model does not load or does not run on the data.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = _session(whole.SerializeToString(), onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
    fixed, size = isinstance(session.get_inputs()[0].shape[0], int), 0
    for batch in batches():
        if together:
            size = len(batch)
        elif not size and fixed:
            size = max(1, len(batch))
        elif not size:  # as many rows as their tensors allow, measured with one
            one = sum(value.nbytes for value in _run(session, names, batch[:1]))
            size = rows_within(one, most=_MOST_ROWS, limit_bytes=TENSOR_BYTES)
        for start in range(0, len(batch), size):
            rows = batch[start : start + size]
            yield rows, _run(session, names, rows)


def logits(model: onnx.ModelProto, batches: Batches) -> Floats:
    """Return the output ``logits`` of ``model``, or its first: float32 (N, ...) for all data, optimised as on a device.

    Raises:
        QuantizeError: If the model does not load or run on the data, or there is no data.
    """
    names = [output.name for output in model.graph.output]
    name = "logits" if "logits" in names else names[0]
    session = _session(model.SerializeToString(), onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    fixed = isinstance(session.get_inputs()[0].shape[0], int)
    made = [
        _run(session, [name], rows)[0]
        for batch in batches()
        for rows in ([batch] if fixed else portions(batch, most=_MOST_ROWS))
    ]
    if not made:
        message = "Expected at least one calibration sample, got none"
        raise QuantizeError(message)
    return np.concatenate(made)


def _session(model: bytes, level: onnxruntime.GraphOptimizationLevel) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads, options.log_severity_level = 1, _ERROR
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
        message = f"Expected a model that onnxruntime loads, got: {str(error)[:300]}"
        raise QuantizeError(message) from error


def _run(session: onnxruntime.InferenceSession, names: Sequence[str], rows: Floats) -> list[Floats]:
    try:
        values: list[Floats] = session.run(list(names), {session.get_inputs()[0].name: rows})
    except Exception as error:  # as above
        message = f"Expected the model to run on calibration data of {rows.shape}, got: {str(error)[:300]}"
        raise QuantizeError(message) from error
    return values
