"""Ranges of all tensors of a float TFLite model from calibration data, in memory that does not grow with the data.

Uses the same running summaries as the ONNX calibrator, so that both formats get the same ranges. Decides ranges only;
the quantizer chooses scales and zero points. The model runs with XNNPACK if a probe gives the same values as with the
plain kernels (it is four times as fast), else with the plain kernels, on as many rows at a time as fit into memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import MeasureError, QuantizeError
from compressor.quantize import Batches
from compressor.quantize._calibrator import Summary
from compressor.tflite import flatbuffer
from compressor.tflite.packages import quiet, required

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

_MOST_BYTES = 64 * 1024 * 1024  # of tensors in memory at once
_PROBE_ROWS = 2
_TOLERANCE = 1e-4


def collect_ranges(
    model: bytes, batches: Batches, *, summary: Callable[[], Summary] = Summary
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the input and of every float tensor that an operator of ``model`` outputs, by name.

    Args:
        model: Float TFLite with one graph and one input.
        batches: Restarts the calibration data: float32, laid out as the model's input, (N, H, W, C) for images.
        summary: Creates the running summary of one tensor; the default keeps the true minimum and maximum.

    Raises:
        QuantizeError: If the model can't be read or does not run on the data, or there is no data.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tensors = activations(model)
    summaries = {name: summary() for name in tensors.values()}
    recorder = None
    try:
        for batch in (one for one in batches() if len(one)):
            recorder = recorder or Recorder(model, list(tensors), batch)
            for values in recorder.run(batch):
                for (name, one), value in zip(summaries.items(), values, strict=True):
                    one.add(value, name)
    except MeasureError as error:
        message = f"Expected the model to run on the calibration data, got: {error}"
        raise QuantizeError(message) from error
    return {name: one.range() for name, one in summaries.items()}


def activations(model: bytes) -> dict[int, str]:
    """Return index -> name of the float tensors of ``model`` that are not constants, in the order of computation.

    Raises:
        QuantizeError: If ``model`` is not a TFLite file of one graph and one input.
        PluginError: If the extra ``tflite`` is not installed.
    """
    tree = flatbuffer.read(model, QuantizeError)
    if len(tree.subgraphs) != 1 or len(tree.subgraphs[0].inputs) != 1:
        inputs = [len(graph.inputs) for graph in tree.subgraphs]
        raise QuantizeError(f"Expected one graph with one input, got graphs with {inputs} inputs: split the model")
    graph = tree.subgraphs[0]
    float32 = required("ai_edge_litert.schema_py_generated").TensorType.FLOAT32
    made = [*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)]
    return {int(i): graph.tensors[i].name.decode() for i in made if graph.tensors[i].type == float32}


class Recorder:
    """Runs one model with one input and reads its tensors."""

    def __init__(self, model: bytes, indices: Sequence[int], probe: Floats) -> None:
        """Choose how to run ``model``.

        Args:
            model: TFLite with one graph and one input.
            indices: The tensors to read.
            probe: At least one row of real data, laid out as the model's input: zeros would prove nothing.

        Raises:
            MeasureError: If LiteRT refuses the model, or the rows.
            PluginError: If the extra ``tflite`` is not installed.
        """
        self._indices = list(indices)
        rows = np.ascontiguousarray(probe[:_PROBE_ROWS])
        self._interpreter = _interpreter(model, "BUILTIN_WITHOUT_DEFAULT_DELEGATES")
        together = self._several_rows(rows)
        wanted = self._read(rows if together else rows[:1])
        plain, self._interpreter = self._interpreter, _interpreter(model, "BUILTIN")
        for got, value in zip(self._read(rows if together else rows[:1]), wanted, strict=True):
            if got.shape != value.shape or np.any(~(np.abs(got - value) <= _TOLERANCE * np.abs(value).max(initial=0))):
                self._interpreter = plain
        row_bytes = sum(value.nbytes for value in wanted) // (len(rows) if together else 1)
        self._most = max(1, _MOST_BYTES // max(1, row_bytes)) if together else 1

    def run(self, rows: Floats) -> Iterator[list[Array]]:
        """Yield the tensors' values, portion by portion of ``rows``, in the order of the indices.

        Raises:
            MeasureError: If LiteRT refuses the rows.
        """
        for start in range(0, len(rows), self._most):
            yield self._read(np.ascontiguousarray(rows[start : start + self._most]))

    def _several_rows(self, rows: Floats) -> bool:
        """Return whether the model accepts several rows at once: one with a fixed Reshape does not."""
        if len(rows) < _PROBE_ROWS:
            return False
        try:
            self._read(rows)
        except MeasureError:
            return False
        outputs = self._interpreter.get_output_details()
        return all(tuple(one["shape"][:1]) == (len(rows),) for one in outputs)

    def _read(self, rows: Floats) -> list[Array]:
        entry = self._interpreter.get_input_details()[0]
        try:
            if tuple(entry["shape"]) != rows.shape:
                self._interpreter.resize_tensor_input(entry["index"], rows.shape)
                self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(entry["index"], rows)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._indices]
        except (RuntimeError, ValueError) as error:
            message = f"Expected rows that the model takes, got {rows.dtype} {rows.shape}: {str(error)[:300]}"
            raise MeasureError(message) from error


def _interpreter(model: bytes, resolver: str) -> Any:  # noqa: ANN401 - untyped
    litert = required("ai_edge_litert.interpreter")
    try:
        with quiet():  # it warns about preserving all tensors, which is intended here
            interpreter = litert.Interpreter(
                model_content=model,
                num_threads=1,
                experimental_op_resolver_type=getattr(litert.OpResolverType, resolver),
                experimental_preserve_all_tensors=True,
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        message = f"Expected a TFLite model that LiteRT runs, got: {str(error)[:300]}: check its operators and versions"
        raise MeasureError(message) from error
    return interpreter
