"""The time of live samples: that of the samples, held to a clock that may be late, wrong or set."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from edge_agent.device.clock import FakeClock
from edge_agent.sources._sample_clock import JUMP_MS, SampleClock

HOP_S = 0.2


def times(late_s: list[float], *, may_lead: bool = True, rate: float = 1.0) -> list[float]:
    """Return how late each clip is said to be; it is read so late, and the card's clock runs at ``rate``."""
    clock, begun_ms, found = FakeClock(), FakeClock().wall_ms, []
    timed = SampleClock(clock, may_lead=may_lead)
    for number, late in enumerate(late_s):
        true_s = 1 + HOP_S * number
        clock.wall_ms, clock.monotonic = begun_ms + round(1000 * (true_s + late)), true_s + late
        found.append(timed.at_ms(1 + HOP_S * number * rate) - begun_ms - 1000 * true_s)
    return found


def test_late_reading_does_not_move_the_samples() -> None:
    """By no more than a hundredth of what passed."""
    rng = np.random.default_rng(0)
    found = times([0.0, *rng.uniform(0, 2, 50).tolist()])
    steps = [after - before for before, after in pairwise(found)]
    assert max(map(abs, steps)) <= 10 * HOP_S + 1


def test_a_card_that_runs_fast_or_slow_is_drawn_to_the_clock() -> None:
    """Three parts in a thousand, over an hour, never more than a jump apart."""
    for rate in (0.997, 1.003):
        assert max(map(abs, times([0.0] * 18_000, may_lead=False, rate=rate))) < 10


def test_a_file_that_is_piped_has_the_times_of_its_samples() -> None:
    """However fast it comes; from a sound card that is no time."""
    found = times([-HOP_S * number for number in range(300)])
    assert max(map(abs, found)) < 100
    assert times([0.0, *[-60.0] * 3], may_lead=False)[-1] == -60_000


def test_a_pause_or_a_clock_that_is_set_is_another_time() -> None:
    """Late by less than the limit is not."""
    assert times([0.0, JUMP_MS / 1000 + 1])[1] == JUMP_MS + 1000
    assert times([0.0, JUMP_MS / 1000 - 1])[1] <= 10 * HOP_S
    clock = FakeClock()
    timed = SampleClock(clock, may_lead=True)
    timed.at_ms(1.0)
    clock.advance(HOP_S)
    clock.wall_ms -= 3_600_000
    assert timed.at_ms(1.0 + HOP_S) == clock.wall_ms
