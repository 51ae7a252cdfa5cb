"""The reference and its baselines by value: shares, independent samples of a bundle, how long a stream remembers."""

from __future__ import annotations

import numpy as np
import pytest

from server.drift.detection.baseline import Commissioning, autocorrelation_time
from server.drift.detection.reference import Ints, shares, training_profile
from wire.histogram import BINS
from wire.reference import Context, Reference, StreamSpec

COUNTS = tuple(range(1, BINS + 1))
SAMPLES = sum(COUNTS)


def _reference(n_effective: int) -> Reference:
    context = Context(name="default", n=SAMPLES, n_effective=n_effective, counts=COUNTS)
    return Reference(streams=(StreamSpec(name="luma_mean", kind="input"),), contexts=(context,))


def _window(**bins: int) -> Ints:
    """Return one stream's counts: ``b0=5`` puts five samples into the first bin."""
    counts = np.zeros((1, BINS), np.int64)
    for name, n in bins.items():
        counts[0, int(name[1:])] = n
    return counts


def _memory(*windows: Ints) -> float:
    collected = Commissioning(stages=(len(windows),))
    for window in windows:
        collected.add(0, window)
    one = collected.seen[0]
    return float(autocorrelation_time(one.counts[None], one.squares[None], np.array([one.windows]))[0, 0])


def test_one_sample_is_all_of_its_shares_and_none_are_even() -> None:
    """Shares are not smoothed."""
    assert shares(np.array([_window(b3=1)[0], np.zeros(BINS)])).tolist() == [
        _window(b3=1)[0].tolist(), [1 / BINS] * BINS
    ]  # fmt: skip


def test_a_bundle_counts_as_many_samples_as_are_independent() -> None:
    """All of them if it does not state the number."""
    known = {n: training_profile(_reference(n)).log_z for n in (0, SAMPLES // 2, SAMPLES)}
    assert np.array_equal(known[0], known[SAMPLES])
    assert not np.array_equal(known[SAMPLES // 2], known[SAMPLES])


@pytest.mark.parametrize(("windows", "memory"), [
    ((_window(b0=10), _window(b15=10)), 20.0),  # the variance of the means, 2 a^2, times 10, over that within, a^2
    ((_window(b0=10), _window(b0=10)), 1.0),  # nothing varies
    ((_window(b0=5, b7=5), _window(b0=5, b7=5)), 1.0),  # every window is like the other
])  # fmt: skip
def test_a_stream_remembers_as_its_windows_differ(windows: tuple[Ints, ...], memory: float) -> None:
    """Batch means: how much more the means of windows vary than those of independent samples would."""
    assert _memory(*windows) == pytest.approx(memory)


def test_a_complete_context_takes_no_more_windows() -> None:
    """It is judged with the counts that it has."""
    part = Commissioning(stages=(1,))
    assert part.add(0, _window(b0=5))
    assert not part.add(0, _window(b15=5))
    assert part.seen[0].counts.tolist() == _window(b0=5).tolist()
