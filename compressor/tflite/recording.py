"""Runs a TFLite model and reads the values of its intermediate tensors.

Decides how: with XNNPACK if a probe gives the same values as with the plain kernels (four times as fast), else with the
plain kernels; and how many rows at a time fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import MeasureError
from compressor.tflite.packages import quiet, required

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

_MOST_BYTES = 64 * 1024 * 1024  # of tensors in memory at once
_PROBE_ROWS = 2
_TOLERANCE = 1e-4


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
        if not _agree(self._read(rows if together else rows[:1]), wanted):
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


def _agree(got: Sequence[Array], wanted: Sequence[Array]) -> bool:
    return all(
        one.shape == other.shape and bool(np.all(np.abs(one - other) <= _TOLERANCE * np.abs(other).max(initial=0)))
        for one, other in zip(got, wanted, strict=True)
    )
