"""The rate limit, with a fake clock."""

from dataclasses import dataclass

import pytest

from edge_agent.updater.transfer.rate_limit import RateLimit


@dataclass
class FakeClock:
    """A clock that moves when somebody waits."""

    now_s: float = 100.0

    def read(self) -> float:
        """Return the time."""
        return self.now_s

    def wait(self, seconds: float) -> None:
        """Let the time pass."""
        self.now_s += seconds


@pytest.mark.parametrize("rate", [1_000, 50_000, 4_000_000])
def test_the_rate_of_some_seconds_is_within_a_tenth(rate: int) -> None:
    """Five seconds of pieces, on a network that needs no time and on one that needs half of it."""
    for network_ratio in (0.0, 0.5):
        clock = FakeClock()
        pace, started_s, sent = RateLimit(rate, clock.wait, clock_s=clock.read), clock.now_s, 0
        while sent < 5 * rate:
            size = pace.piece(64 * 1024)
            clock.wait(network_ratio * size / rate)
            pace.spend(size)
            sent += size
        assert 0.9 * rate < sent / (clock.now_s - started_s) < 1.1 * rate


def test_a_pause_earns_no_burst() -> None:
    """After a minute without a byte, a quarter of a second is made up for, no more."""
    clock = FakeClock()
    pace = RateLimit(10_000, clock.wait, clock_s=clock.read)
    pace.spend(1_000)
    clock.wait(60.0)
    resumed_s = clock.now_s
    for _ in range(20):
        pace.spend(1_000)
    assert clock.now_s - resumed_s == pytest.approx(2.0 - 0.25)


def test_without_a_limit_nothing_waits() -> None:
    """And a piece is as long as it may be."""
    clock = FakeClock()
    pace = RateLimit(0, clock.wait, clock_s=clock.read)
    pace.spend(10**9)
    assert (clock.now_s, pace.piece(65_536)) == (100.0, 65_536)


@pytest.mark.parametrize(("rate", "piece"), [(1, 1024), (8_192, 1024), (80_000, 10_000), (10**7, 65_536)])
def test_a_piece_is_an_eighth_of_a_second(rate: int, piece: int) -> None:
    """At least a kilobyte, at most what the carrier takes."""
    assert RateLimit(rate, lambda _: None).piece(65_536) == piece
