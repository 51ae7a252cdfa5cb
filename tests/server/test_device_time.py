"""Times that devices send, on both sides of every bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.ingest.write_batch import DeviceTime

NOW, SKEW, OLDEST, HOUR = 1_000_000_000, 300_000, 100_000_000, 3_600_000
BORN_MS, LATER = 1_700_000_000_000, 1_800_000_000_000
RIGHT, OFF = (
    DeviceTime(now_ms=NOW, skew_ms=SKEW, oldest_ms=OLDEST),
    DeviceTime(now_ms=NOW, skew_ms=SKEW, oldest_ms=OLDEST, is_off=True),
)


@pytest.mark.parametrize(
    ("time", "at_ms", "filed_ms"),
    [
        (RIGHT, NOW - 5, NOW - 5),
        (RIGHT, NOW + SKEW, NOW),  # a little ahead, but never after its arrival
        (RIGHT, NOW + SKEW + 1, NOW),
        (RIGHT, NOW - OLDEST + 1, NOW - OLDEST + 1),  # it waited on the device
        (RIGHT, NOW - OLDEST, NOW),
        (RIGHT, 0, NOW),
        (OFF, NOW - SKEW, NOW - SKEW),
        (OFF, NOW - SKEW - 1, NOW),  # it seems to have waited, but the clock is wrong
    ],
)
def test_a_moment_is_believed_while_it_can_be_true(time: DeviceTime, at_ms: int, filed_ms: int) -> None:
    """Otherwise the time of arrival counts."""
    assert time.of(at_ms) == filed_ms


@pytest.mark.parametrize(
    ("time", "start_ms", "filed_ms"),
    [
        (RIGHT, NOW - HOUR, NOW - HOUR),
        (RIGHT, NOW + SKEW, NOW + SKEW),
        (RIGHT, NOW + SKEW + 1, NOW - NOW % HOUR),
        (RIGHT, NOW - 20 * HOUR, NOW - 20 * HOUR),
        (RIGHT, 0, NOW - NOW % HOUR),
        (OFF, NOW - 2 * HOUR - SKEW, NOW - 2 * HOUR - SKEW),
        (OFF, NOW - 2 * HOUR - SKEW - 1, NOW - NOW % HOUR),
    ],
)
def test_a_window_keeps_its_start_while_it_can_be_true(time: DeviceTime, start_ms: int, filed_ms: int) -> None:
    """Otherwise it is filed under the window in which it arrives, on the same grid."""
    assert time.of_window(start_ms, HOUR) == filed_ms


@pytest.mark.parametrize(
    ("time", "start_ms", "own"),
    [
        (RIGHT, BORN_MS + 1, True),
        (RIGHT, BORN_MS, False),  # of a clock that began at its epoch
        (RIGHT, LATER - OLDEST, True),
        (OFF, LATER - OLDEST, False),
    ],
)
def test_a_late_window_keeps_its_start_at_any_age(time: DeviceTime, start_ms: int, *, own: bool) -> None:
    """It waited on a device longer than the retention; what it counted is not of today."""
    filed_ms = replace(time, now_ms=LATER).of_window(start_ms, HOUR, late=True)
    assert filed_ms == (start_ms if own else LATER - LATER % HOUR)


@pytest.mark.parametrize("len_ms", [2**52, 0])
def test_a_window_of_absurd_length_is_filed_near_its_arrival(len_ms: int) -> None:
    """Never in 1970 again; a length of 0 is refused later."""
    assert NOW - 7 * 86_400_000 < RIGHT.of_window(-1, len_ms) <= NOW
