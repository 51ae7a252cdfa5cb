"""The time seam."""

from edge_agent.device.clock import FakeClock, SystemClock


def test_a_fake_clock_moves_both_times_only_when_told() -> None:
    """Wall and monotonic time advance together."""
    clock = FakeClock(wall_ms=1000)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic_s()) == (2500, 1.5)


def test_the_system_clock_is_utc_milliseconds() -> None:
    """It is between 2020 and 2100, and the monotonic one never decreases."""
    clock = SystemClock()
    assert 1_577_836_800_000 < clock.now_ms() < 4_102_444_800_000
    assert clock.monotonic_s() <= clock.monotonic_s()
