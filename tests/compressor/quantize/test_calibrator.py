"""Ranges: right, robust, and in constant memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from compressor import networks
from compressor.errors import QuantizeError
from compressor.export.onnx import export_onnx
from compressor.quantize._calibrator import Summary, collect_ranges, nudged


def _summary(values: np.ndarray, percentile: float, parts: int = 7) -> Summary:
    summary = Summary("percentile", percentile)
    for part in np.array_split(values.astype(np.float32), parts):
        summary.add(part)
    return summary


def test_min_max_is_the_true_range_of_all_batches() -> None:
    """No moving average: the extremes of any batch count in full."""
    assert _summary(np.array([1, 5, -3, 2, 9, 0, 4]), 100).range() == (-3, 9)


@pytest.mark.parametrize("percentile", [99.0, 99.9])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e5])
def test_percentile_agrees_with_numpy(percentile: float, scale: float) -> None:
    """The streamed histogram is as near to the exact percentiles as its bins are wide, at any scale and batch order."""
    values = np.sort(np.random.default_rng(0).standard_normal(40_000)) * scale
    low, high = _summary(values, percentile).range()
    exact = np.percentile(values, [50 - percentile / 2, 50 + percentile / 2])
    assert np.abs(np.array([low, high]) - exact).max() < 0.03 * scale


def test_percentile_cuts_an_outlier_and_never_exceeds_the_true_range() -> None:
    """One wild value in ten thousand does not set the range."""
    values = np.append(np.random.default_rng(0).uniform(0, 1, 9_999), 1000.0)
    low, high = _summary(values, 99.9).range()
    assert 0.9 < high < 1.5
    assert low >= 0


def test_zeros_first_and_zeros_only_are_fine() -> None:
    """A dead tensor has the range 0..0; values may come later."""
    assert _summary(np.zeros(10), 99).range() == (0, 0)
    late = _summary(np.append(np.zeros(50), np.ones(50)), 99)
    assert late.range()[1] == pytest.approx(1, abs=0.01)


def test_a_tensor_without_numbers_has_no_range_and_no_samples_are_an_error() -> None:
    """Boxes that a file pads its list with may be none on every row; it ended the run as if there were no data."""
    assert _summary(np.zeros((0, 6)), 99.9).range() == (0, 0)
    with pytest.raises(QuantizeError, match="at least one calibration sample, got none"):
        Summary().range()


def test_memory_does_not_grow_with_the_data() -> None:
    """After a million values a summary has the size that it had after ten."""
    summary = Summary("percentile", 99.9)
    summary.add(np.ones(10, np.float32))
    before = summary._counts.nbytes
    for scale in range(1, 11):
        summary.add(np.full(100_000, scale * 1e3, np.float32))
    assert summary._counts.nbytes == before
    assert sys.getsizeof(summary) < 1024


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    """NaN and infinity can't set a range."""
    with pytest.raises(QuantizeError, match="finite"):
        Summary().add(np.array([1, bad], np.float32))


def test_ranges_of_a_model_cover_input_and_outputs() -> None:
    """The input, the outputs and all tensors between have a range; batches are requested once."""
    model = onnx.shape_inference.infer_shapes(
        onnx.load_from_string(export_onnx(networks.build("resnet8", 4, 1, 8, 8, {"filters": 4}), 1, 8, 8))
    )
    rng = np.random.default_rng(0)
    ranges = collect_ranges(model, lambda: iter([rng.uniform(-2, 3, (4, 1, 8, 8)).astype(np.float32)]))
    assert {"input", "logits", "embedding"} <= set(ranges)
    assert -2 <= ranges["input"][0] < ranges["input"][1] <= 3


def test_no_data_and_wrong_shapes_are_coded_errors() -> None:
    """Nothing to calibrate on, and batches of another shape, are refused."""
    model = onnx.load_from_string(export_onnx(networks.build("resnet8", 4, 1, 8, 8, {"filters": 4}), 1, 8, 8))

    def wrong() -> Iterator[np.ndarray]:
        yield np.zeros((2, 3, 8, 8), np.float32)

    for batches, said in ((lambda: iter(()), "at least one"), (wrong, "calibration data of")):
        with pytest.raises(QuantizeError, match=said):
            collect_ranges(model, batches)


def _squared_error(values: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    rounded = (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale
    return float(((rounded - values) ** 2).mean())


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_mse_range_beats_min_max_on_a_heavy_tail(scale: float) -> None:
    """On a heavy tail the range is nearer to all values than the true range, and as near as the best of all pairs."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.laplace(0, 0.3, 20_000), rng.laplace(0, 3, 20)]) * scale
    summary = Summary("mse")
    for part in np.array_split(values.astype(np.float32), 9):
        summary.add(part)
    error = _squared_error(values, *summary.range())
    shrinks = np.geomspace(1 / 4, 1, 17)
    best = min(_squared_error(values, values.min() * a, values.max() * b) for a in shrinks for b in shrinks)
    assert error < _squared_error(values, values.min(), values.max())
    assert error < 1.02 * best


def test_mse_keeps_zero_and_one_sided_ranges() -> None:
    """After a ReLU the low end stays at zero; uniform values keep (nearly) their whole range."""
    summary = Summary("mse")
    summary.add(np.random.default_rng(0).uniform(0, 4, 50_000).astype(np.float32))
    low, high = summary.range()
    assert low == 0
    assert high == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("method", ["percentile", "mse"])
def test_a_histogram_holds_as_much_after_a_million_values(method: str) -> None:
    """Neither method's memory grows with the data."""
    summary = Summary(method)
    summary.add(np.ones(10, np.float32))
    before = summary._counts.nbytes
    for scale in range(1, 11):
        summary.add(np.full(100_000, scale * 1e3, np.float32))
    assert summary.range()[1] > 0
    assert (summary._counts.nbytes, sys.getsizeof(summary) < 1024) == (before, True)


def test_an_unknown_method_names_the_nearest() -> None:
    """A misspelt calibration is refused with the nearest name."""
    with pytest.raises(QuantizeError, match="did you mean 'percentile'"):
        Summary("percentiles")


def _error(low: float, high: float, values: np.ndarray) -> float:
    step = (high - low) / 255
    zero = round(-low / step)
    back = (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
    return float(np.sqrt(np.mean((back - values) ** 2)))


def test_a_nudged_range_puts_pixels_on_its_levels() -> None:
    """Normalised to mean 0.5, pixels are just between two levels of the plain range, but not of the nudged one."""
    pixels = (np.arange(256) / 255 - 0.5) / 0.25
    plain, better = _error(-2.0, 2.0, pixels), _error(*nudged(-2.0, 2.0), pixels)
    assert plain == pytest.approx(0.5 * 4 / 255, rel=0.01)
    assert better < 0.6 * plain


_RANGES = [(-2.0, 2.0), (-0.3, 7.0), (-1e-9, 5.0), (-5.0, 1e-9), (0.0, 3.0), (-3.0, 0.0), (1.0, 4.0)]


@pytest.mark.parametrize(("low", "high"), _RANGES)
def test_a_nudged_range_holds_the_range_and_a_whole_zero_point(low: float, high: float) -> None:
    """It is at most a hundredth wider, and zero is one of its levels."""
    first, last = nudged(low, high)
    assert first <= min(low, 0) * (1 - 1e-12)
    assert last >= max(high, 0) * (1 - 1e-12)
    zero = -first * 255 / (last - first)
    assert zero == pytest.approx(round(zero), abs=1e-6)
    assert last - first <= 1.01 * (max(high, 0.0) - min(low, 0.0))
