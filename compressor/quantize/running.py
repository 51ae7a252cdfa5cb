"""Runs an ONNX model on calibration data, batch by batch, and hands over any of its tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from compressor.errors import QuantizeError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # telemetry must be off before the import

Floats = npt.NDArray[np.float32]
Batches = Callable[[], Iterable[Floats]]

_ERROR = 3


def run(model: onnx.ModelProto, names: Sequence[str], batches: Batches) -> Iterator[tuple[Floats, list[Floats]]]:
    """Yield each batch with the tensors ``names`` that ``model`` makes of it, on one thread.

    The model runs as it is, without optimisation, so that every tensor exists.

    Raises:
        QuantizeError: If the model does not load, or does not run on the data.
    """
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    yield from _run(whole.SerializeToString(), names, batches, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)


def logits(model: onnx.ModelProto, batches: Batches) -> Floats:
    """Return the output ``logits`` of ``model``, or its first: float32 (N, ...) for all data, optimised as on a device.

    Raises:
        QuantizeError: If the model does not load or run on the data, or there is none.
    """
    names = [output.name for output in model.graph.output]
    name = "logits" if "logits" in names else names[0]
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    made = [values[0] for _, values in _run(model.SerializeToString(), [name], batches, level)]
    if not made:
        message = "Expected at least one calibration sample, got none"
        raise QuantizeError(message)
    return np.concatenate(made)


def _run(
    model: bytes, names: Sequence[str], batches: Batches, level: onnxruntime.GraphOptimizationLevel
) -> Iterator[tuple[Floats, list[Floats]]]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads, options.log_severity_level = 1, _ERROR
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
        message = f"Expected a model that onnxruntime loads, got: {str(error)[:300]}"
        raise QuantizeError(message) from error
    feed = session.get_inputs()[0].name
    for batch in batches():
        try:
            values = session.run(list(names), {feed: batch})
        except Exception as error:  # as above
            message = f"Expected the model to run on calibration data of {batch.shape}, got: {str(error)[:300]}"
            raise QuantizeError(message) from error
        yield batch, values
