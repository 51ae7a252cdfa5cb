"""Ranges of all tensors of a float TFLite model from calibration data, in memory that doesn't grow with the data.

Feeds the same running summaries as the ONNX calibrator, so both formats get the same ranges. Decides ranges only;
scales and zero points are the quantizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from compressor.errors import QuantizeError
from compressor.quantize.calibrator import Batches, Floats, Summary
from compressor.tflite import flatbuffer
from compressor.tflite.packages import required

_MOST_BYTES = 64 * 1024 * 1024  # of activations held at once: the interpreter keeps every tensor


def collect_ranges(
    model: bytes, batches: Batches, *, summary: Callable[[], Summary] = Summary
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the input and of every float tensor that an operator of ``model`` makes, by its name.

    Args:
        model: Float TFLite with one graph and one input; run without delegates, so that every tensor exists.
        batches: Starts the calibration data anew: float32, laid out as the model's input, (N, H, W, C) for images.
        summary: Makes the running summary of one tensor; the default keeps the true minimum and maximum.

    Raises:
        QuantizeError: If the model can't be read or does not run on the data, or there is none.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tensors = _activations(model)
    interpreter = _interpreter(model)
    summaries = {name: summary() for name in tensors.values()}
    for rows in _in_portions(interpreter, list(tensors), batches):
        try:
            _run(interpreter, rows)
        except (RuntimeError, ValueError) as error:
            message = f"Expected the model to run on calibration data of {rows.shape}, got: {str(error)[:300]}"
            raise QuantizeError(message) from error
        for index, name in tensors.items():
            summaries[name].add(interpreter.get_tensor(index))
    return {name: one.range() for name, one in summaries.items()}


def _activations(model: bytes) -> dict[int, str]:
    """Return index -> name of the float tensors that are no constants."""
    tree = flatbuffer.read(model, QuantizeError)
    if len(tree.subgraphs) != 1 or len(tree.subgraphs[0].inputs) != 1:
        message = f"Expected one graph with one input, got {len(tree.subgraphs)}: split the model"
        raise QuantizeError(message)
    graph = tree.subgraphs[0]
    float32 = required("ai_edge_litert.schema_py_generated").TensorType.FLOAT32
    made = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {int(i): graph.tensors[i].name.decode() for i in made if graph.tensors[i].type == float32}


def _interpreter(model: bytes) -> Any:  # noqa: ANN401 - untyped
    litert = required("ai_edge_litert.interpreter")
    try:
        interpreter = litert.Interpreter(
            model_content=model,
            num_threads=1,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        message = f"Expected a TFLite model that LiteRT runs, got: {str(error)[:300]}"
        raise QuantizeError(message) from error
    return interpreter


def _in_portions(interpreter: Any, indices: Sequence[int], batches: Batches) -> Iterator[Floats]:  # noqa: ANN401
    """Yield all rows, so many at a time as memory allows and the model takes."""
    row_bytes = sum(interpreter.get_tensor(index).nbytes for index in indices)
    most = max(1, _MOST_BYTES // max(1, row_bytes)) if _takes_rows(interpreter) else 1
    for batch in batches():
        for start in range(0, len(batch), most):
            yield np.ascontiguousarray(batch[start : start + most], dtype=np.float32)


def _takes_rows(interpreter: Any) -> bool:  # noqa: ANN401 - untyped
    """Return whether the model runs on two rows and gives two rows: a fixed Reshape in it does not."""
    shape = interpreter.get_input_details()[0]["shape"]
    try:
        _run(interpreter, np.zeros((2, *shape[1:]), dtype=np.float32))
        outputs = interpreter.get_output_details()
        return all(len(interpreter.get_tensor(output["index"])) == 2 for output in outputs)  # noqa: PLR2004 - rows
    except (RuntimeError, ValueError):
        return False


def _run(interpreter: Any, rows: Floats) -> None:  # noqa: ANN401 - untyped
    entry = interpreter.get_input_details()[0]
    if tuple(entry["shape"]) != rows.shape:
        interpreter.resize_tensor_input(entry["index"], rows.shape)
        interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], rows)
    interpreter.invoke()
