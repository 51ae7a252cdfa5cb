"""Ranges of all tensors of a model from calibration data, in memory that does not grow with the data.

Every tensor has one running summary: the true minimum and maximum, and for percentiles and least squared error a
histogram of fixed size whose range doubles when a value falls outside (counts of neighbouring bins are added, so
nothing is lost and no second pass is needed). Decides ranges only; the quantizer chooses scales and zero points.

No range may be larger than 1e30: a mask of -3.4e38, the lowest float32, gives scales whose products overflow float32:
onnxruntime then computes wrong results, and LiteRT aborts the process. Such a number stands for minus infinity; -1e4
has the same effect in a softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx

from compressor.errors import QuantizeError
from compressor.quantize import Batches
from compressor.quantize._running import Floats, run
from compressor.steps.quantize import CALIBRATIONS
from wire.settings import nearest

Doubles = npt.NDArray[np.float64]

_BINS = 4096  # even: doubling adds pairs
_STEPS = 255  # between the 256 levels of 8 bits
_SHRINKS = np.geomspace(1 / 16, 1, 33)  # below 1/16 a level would be narrower than a bin
_ROUNDS = 2  # of high end, then low end; a third changed no range by more than a step of the grid
_ALL_PERCENT = 100.0
LARGEST = 1e30
"""The product of two scales of such ranges, each divided by 255, is still well within float32 (3.4e38)."""


def nudged(low: float, high: float) -> tuple[float, float]:
    """Return the smallest range around (low, high) and zero whose zero point on 256 levels is an integer.

    Rounding only the zero point shifts the grid by up to half a step. For pixels normalised to mean 0.5 it is exactly
    half: all 256 values fall between two levels, which doubles their error and makes it depend on the last bit of a
    float (0.50 against 0.29 of a pixel's step, root mean square).
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not low or not high:
        return low, high
    below = min(max(int(-low * _STEPS / (high - low)), 1), _STEPS - 2)
    step, zero = min((max(-low / zero, high / (_STEPS - zero)), zero) for zero in (below, below + 1))
    return -zero * step, (_STEPS - zero) * step


class Summary:
    """Running range of one tensor by ``min_max``, ``percentile`` or ``mse``; percentile 100 is ``min_max``."""

    def __init__(self, method: str = "min_max", percentile: float = 99.99) -> None:
        """Start without values.

        Raises:
            QuantizeError: If the method is unknown.
        """
        if method not in CALIBRATIONS:
            message = (
                f"Expected a calibration of {', '.join(CALIBRATIONS)}, got {method!r}{nearest(method, CALIBRATIONS)}"
            )
            raise QuantizeError(message)
        self._method = "min_max" if method == "percentile" and percentile >= _ALL_PERCENT else method
        self._percentile = percentile
        self._low, self._high = np.inf, -np.inf
        self._seen = False
        self._reach = 0.0  # the histogram covers -reach..reach
        self._counts = np.zeros(_BINS, dtype=np.int64)

    def add(self, values: Floats, name: str = "") -> None:
        """Add values of the tensor, of any shape; ``name`` is for the error.

        Raises:
            QuantizeError: If a value is not finite.
        """
        self._seen = True
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            tensor = f" of {name!r}" if name else ""
            message = f"Expected finite activations{tensor}, got a range of {low} to {high}"
            raise QuantizeError(f"{message}: check the weights and the inputs; in a mask write -1e4 for minus infinity")
        self._low, self._high = min(self._low, low), max(self._high, high)
        if self._method != "min_max":
            self._count(values, max(abs(low), abs(high)))

    def range(self) -> tuple[float, float]:
        """Return (low, high) by the method: the extremes, the percentile split evenly over both ends, or the least MSE.

        Raises:
            QuantizeError: If nothing was added.
        """
        if self._low > self._high and self._seen:
            return 0.0, 0.0  # no row gave it a number, as a list of boxes that were left out
        if self._low > self._high:
            message = "Expected at least one calibration sample, got none"
            raise QuantizeError(message)
        if self._method == "min_max" or self._reach == 0:
            return self._low, self._high
        return self._of_percentile() if self._method == "percentile" else self._of_least_error()

    def _of_percentile(self) -> tuple[float, float]:
        tail = (100 - self._percentile) / 200
        cumulated = np.cumsum(self._counts) / self._counts.sum()
        edges = np.linspace(-self._reach, self._reach, _BINS + 1)
        low = edges[int(np.searchsorted(cumulated, tail, side="right"))]
        high = edges[int(np.searchsorted(cumulated, 1 - tail, side="left")) + 1]
        return max(self._low, float(low)), min(self._high, float(high))

    def _of_least_error(self) -> tuple[float, float]:
        """Shrink the high end, then the low end, in turns, each to where the squared error is smallest."""
        used = np.flatnonzero(self._counts)
        width = 2 * self._reach / _BINS
        centres = np.clip((used + 0.5) * width - self._reach, self._low, self._high)
        counts = self._counts[used].astype(np.float64)
        least, most = min(self._low, 0.0), max(self._high, 0.0)  # zero is always a level
        low, high = least, most
        for _ in range(_ROUNDS):
            high = _best([(low, most * shrink) for shrink in _SHRINKS], centres, counts)[1]
            low = _best([(least * shrink, high) for shrink in _SHRINKS], centres, counts)[0]
        return low, high

    def _count(self, values: Floats, largest: float) -> None:
        if self._reach == 0 and largest > 0:
            self._reach, zeros = 2.0 ** np.ceil(np.log2(largest)), self._counts.sum()
            self._counts[:] = 0
            self._counts[_BINS // 2] = zeros
        while self._reach and largest > self._reach:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)  # twice the reach: bins of twice the width
            self._counts[:] = 0
            self._counts[_BINS // 4 : _BINS // 4 + len(pairs)] = pairs
            self._reach *= 2
        if not self._reach:
            self._counts[_BINS // 2] += values.size
            return
        self._counts += np.histogram(values, bins=_BINS, range=(-self._reach, self._reach))[0]


def _best(options: Sequence[tuple[float, float]], centres: Doubles, counts: Doubles) -> tuple[float, float]:
    return min(options, key=lambda option: _squared_error(option, centres, counts))


def _squared_error(limits: tuple[float, float], centres: Doubles, counts: Doubles) -> float:
    """Return the summed squared error of 256 levels within ``limits``; ``counts`` values are at each of ``centres``."""
    low, high = limits
    step = (high - low) / _STEPS
    if step <= 0:
        return float(counts @ centres**2)
    zero = np.round(-low / step)
    levels = np.clip(np.round(centres / step) + zero, 0, _STEPS)
    return float(counts @ ((levels - zero) * step - centres) ** 2)


def collect_ranges(
    model: onnx.ModelProto, batches: Batches, *, method: str = "percentile", percentile: float = _ALL_PERCENT
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of the input and of every float tensor that a node of ``model`` outputs.

    Args:
        model: Float ONNX with shapes inferred; run without optimisation, so that every tensor exists.
        batches: Restarts the calibration data: float32, (N, …), batch by batch.
        method: ``min_max``, ``percentile`` or ``mse``.
        percentile: Percentage of the values inside the range; 100 for the true minimum and maximum.

    Raises:
        QuantizeError: If the method is unknown, the model does not run on the data, or there is no data.
    """
    names, feed = _float_tensors(model), _input(model)
    summaries = {name: Summary(method, percentile) for name in [feed, *names]}
    for rows, values in run(model, names, batches):
        _add(summaries, {feed: rows, **dict(zip(names, values, strict=True))})
        values.clear()  # free these before the next portion is computed
    ranges = {name: summary.range() for name, summary in summaries.items()}
    for name, (low, high) in ranges.items():
        within_reach(name, low, high)
    return ranges


def _add(summaries: Mapping[str, Summary], values: Mapping[str, Floats]) -> None:
    for name, value in values.items():  # a function of its own, so that no variable holds a tensor after it
        summaries[name].add(value, name)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    infos = [*model.graph.value_info, *model.graph.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    made = [name for node in model.graph.node for name in node.output if name]
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]


def _input(model: onnx.ModelProto) -> str:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs: list[str] = [value.name for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        message = f"Expected a model with one input, got {', '.join(inputs) or 'none'}: export it with one"
        raise QuantizeError(message)
    return inputs[0]


def within_reach(name: str, low: float, high: float) -> None:
    """Check that a scale exists for the range (low, high) of the tensor ``name``.

    Raises:
        QuantizeError: If it exceeds 1e30.
    """
    if max(-low, high) > LARGEST:
        message = f"Expected values of at most {LARGEST:g} to quantize, got {low:.3g} to {high:.3g} of {name!r}"
        raise QuantizeError(f"{message}: in a mask write -1e4 in place of minus infinity, or take weight_int8")
