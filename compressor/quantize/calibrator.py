"""Ranges of all tensors of a model from calibration data, in memory that doesn't grow with the data.

Every tensor has one running summary: the true minimum and maximum, and for percentiles a histogram of
fixed size whose range doubles when a value falls outside (counts of neighbouring bins are added, so
nothing is lost and no second pass is needed). Decides ranges only; scales and zero points are the
quantizer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx

from compressor.errors import QuantizeError

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime  # telemetry must be off before the import

Floats = npt.NDArray[np.float32]
Batches = Callable[[], Iterable[Floats]]

_BINS = 4096  # even: doubling adds pairs


class Summary:
    """The running range of one tensor; ``percentile`` 100 means the true minimum and maximum."""

    def __init__(self, percentile: float = 100.0) -> None:
        """Start with no values."""
        self._percentile = percentile
        self._low, self._high = np.inf, -np.inf
        self._reach = 0.0  # the histogram covers -reach..reach
        self._counts = np.zeros(_BINS, dtype=np.int64)

    def add(self, values: Floats) -> None:
        """Take in more values of the tensor, of any shape.

        Raises:
            QuantizeError: If one is not finite.
        """
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            message = f"Expected finite activations, got a range of {low} to {high}: check the weights and the inputs"
            raise QuantizeError(message)
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._percentile < 100:  # noqa: PLR2004 - per cent
            self._count(values, max(abs(low), abs(high)))

    def range(self) -> tuple[float, float]:
        """Return (low, high) such that ``percentile`` of the values are inside, split evenly over both ends.

        Raises:
            QuantizeError: If no value was added.
        """
        if self._low > self._high:
            message = "Expected at least one calibration sample, got none"
            raise QuantizeError(message)
        if self._percentile >= 100 or self._reach == 0:  # noqa: PLR2004 - per cent
            return self._low, self._high
        tail = (100 - self._percentile) / 200
        cumulated = np.cumsum(self._counts) / self._counts.sum()
        edges = np.linspace(-self._reach, self._reach, _BINS + 1)
        low = edges[int(np.searchsorted(cumulated, tail, side="right"))]
        high = edges[int(np.searchsorted(cumulated, 1 - tail, side="left")) + 1]
        return max(self._low, float(low)), min(self._high, float(high))

    def _count(self, values: Floats, largest: float) -> None:
        if self._reach == 0 and largest > 0:
            self._reach, zeros = 2.0 ** np.ceil(np.log2(largest)), self._counts.sum()
            self._counts[:] = 0
            self._counts[_BINS // 2] = zeros
        while self._reach and largest > self._reach:
            self._double()
        if not self._reach:
            self._counts[_BINS // 2] += values.size
            return
        self._counts += np.histogram(values, bins=_BINS, range=(-self._reach, self._reach))[0]

    def _double(self) -> None:
        pairs = self._counts.reshape(-1, 2).sum(axis=1)
        self._counts[:] = 0
        self._counts[_BINS // 4 : _BINS // 4 + len(pairs)] = pairs
        self._reach *= 2


def collect_ranges(
    model: onnx.ModelProto, batches: Batches, *, percentile: float = 100.0
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the input and of every float tensor that a node of ``model`` makes.

    Args:
        model: Float ONNX with shapes inferred; run as it is, without optimisation, so that every tensor exists.
        batches: Starts the calibration data: float32, (N, …), batch by batch.
        percentile: Share of the values inside the range, 100 for the true minimum and maximum.

    Raises:
        QuantizeError: If the model does not run on the data, or there is none.
    """
    names = _float_tensors(model)
    session, feed = _session(model, names)
    summaries = {name: Summary(percentile) for name in [feed, *names]}
    for batch in batches():
        try:
            values = session.run(names, {feed: batch})
        except Exception as error:  # onnxruntime raises its own classes, which derive from Exception alone
            message = f"Expected the model to run on calibration data of {batch.shape}, got: {str(error)[:300]}"
            raise QuantizeError(message) from error
        _add(summaries, {feed: batch, **dict(zip(names, values, strict=True))})
    return {name: summary.range() for name, summary in summaries.items()}


def _add(summaries: Mapping[str, Summary], values: Mapping[str, Floats]) -> None:
    for name, value in values.items():
        summaries[name].add(value)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    infos = [*model.graph.value_info, *model.graph.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    made = [name for node in model.graph.node for name in node.output if name]
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]


def _session(model: onnx.ModelProto, names: list[str]) -> tuple[onnxruntime.InferenceSession, str]:
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, session.get_inputs()[0].name
