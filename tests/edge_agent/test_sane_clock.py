"""Whether the clock can be trusted."""

import pytest

from edge_agent.device.sane_clock import EARLIEST_MS, HINT_TOLERANCE_MS, TOLERANCE_MS, ClockFault, ClockWatch

NOW_MS = EARLIEST_MS + 300 * 86_400_000
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("now_ms", "fault"),
    [
        (0, ClockFault.BEHIND),
        (EARLIEST_MS - TOLERANCE_MS - 1, ClockFault.BEHIND),
        (EARLIEST_MS - TOLERANCE_MS, None),
        (NOW_MS, None),
        (NOW_MS + 400 * DAY_MS, None),  # nothing is known against it
    ],
)
def test_knows_a_lower_bound_without_any_hint(now_ms: int, fault: ClockFault | None) -> None:
    """No clock shows a time before this code existed."""
    watch = ClockWatch().look(now_ms, 5.0)
    assert (watch.fault, watch.known) == (fault, fault is None)
    assert watch.time_ms(now_ms, 5.0) == now_ms


@pytest.mark.parametrize(
    ("off_ms", "fault"),
    [
        (HINT_TOLERANCE_MS + 1, ClockFault.AHEAD),
        (HINT_TOLERANCE_MS, None),
        (-HINT_TOLERANCE_MS, None),
        (-HINT_TOLERANCE_MS - 1, ClockFault.BEHIND),
        (400 * DAY_MS, ClockFault.AHEAD),
    ],
)
def test_compares_with_what_the_server_said(off_ms: int, fault: ClockFault | None) -> None:
    """The server's time advances with the monotonic clock and replaces a clock that is not trusted."""
    watch = ClockWatch().with_server_time(NOW_MS, 100.0)
    now_ms = NOW_MS + 7000 + off_ms
    watch = watch.look(now_ms, 107.0)
    assert (watch.fault, watch.known) == (fault, True)
    assert watch.time_ms(now_ms, 107.0) == (now_ms if fault is None else NOW_MS + 7000)


def test_a_persisted_floor_raises_the_bound() -> None:
    """A moment that was proved stays proved; a lower one lowers nothing."""
    watch = ClockWatch().at_least(NOW_MS).at_least(5)
    assert watch.look(NOW_MS - TOLERANCE_MS - 1, 0.0).fault is ClockFault.BEHIND
    assert watch.look(NOW_MS - TOLERANCE_MS, 0.0).fault is None


def test_a_server_in_1970_is_no_hint() -> None:
    """An impossible time has no effect."""
    watch = ClockWatch().with_server_time(1000, 0.0).look(NOW_MS, 1.0)
    assert (watch.fault, watch.hint_ms) == (None, 0)


def test_says_since_when_the_clock_is_believed() -> None:
    """Set at 10, still so at 20; a fault forgets it."""
    watch = ClockWatch().look(0, 0.0)
    assert watch.sane_since_s is None
    watch = watch.look(NOW_MS, 10.0).look(NOW_MS + 10_000, 20.0)
    assert watch.sane_since_s == 10.0
    assert watch.look(0, 30.0).sane_since_s is None


@pytest.mark.parametrize(("later_ms", "said_ms"), [(3_599_999, -60 * DAY_MS), (3_600_000, -60 * DAY_MS + 3_600_000)])
def test_the_clocks_error_is_known_with_a_hint_and_steady(later_ms: int, said_ms: int) -> None:
    """0 without a hint and once the clock is right; a change of less than an hour is the same error."""
    wrong_ms = NOW_MS - 60 * DAY_MS
    assert ClockWatch().at_least(NOW_MS).look(wrong_ms, 0.0).error_ms == 0
    watch = ClockWatch().with_server_time(NOW_MS, 0.0).look(wrong_ms, 0.0)
    assert watch.error_ms == -60 * DAY_MS
    watch = watch.look(wrong_ms + later_ms, 0.0)
    assert watch.error_ms == said_ms
    assert watch.look(NOW_MS, 0.0).error_ms == 0
