"""False alarms a day: events by hand, bounds by value, and thresholds that hold their rate in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from compressor.statistics import false_alarms
from compressor.statistics.false_alarms import DAY_S, ScoreSeries

HOUR_S = 3600.0


def course(*scores: float, sources: str = "", gap_s: float = 0.0) -> ScoreSeries:
    """Return scores an hour apart; ``sources`` has a letter for each."""
    return ScoreSeries.of(np.array(scores), np.array(list(sources or "a" * len(scores))), HOUR_S, gap_s)


def test_consecutive_alarms_are_one_event() -> None:
    """Also where a gap is allowed; a wider one parts them; the level itself is no alarm."""
    found = course(2, 2, 0, 2, 0, 0, 2, 1)
    assert found.events(1).tolist() == [3]
    assert course(2, 2, 0, 2, 0, 0, 2, 1, gap_s=HOUR_S).events(1).tolist() == [2]
    assert course(2, 2, 0, 2, 0, 0, 2, 1, gap_s=2 * HOUR_S).events(1).tolist() == [1]


def test_events_end_with_their_source() -> None:
    """Rows of a source stay in their order, wherever they are in the table."""
    assert course(2, 2, 2, 2, sources="abab").events(1).tolist() == [1, 1]
    assert course(2, 0, 0, 2, sources="abab").events(1).tolist() == [1, 1]
    assert course(2, 2, sources="ab", gap_s=5 * HOUR_S).events(1).tolist() == [1, 1]


@pytest.mark.parametrize("gap_s", [0.0, HOUR_S, 3 * HOUR_S])
def test_a_level_is_the_lowest_from_which_on_no_more_events_are_seen(gap_s: float) -> None:
    """As counting at every level says, ties and several sources too."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        scores, sources = rng.integers(0, 9, 40).astype(float), np.sort(rng.integers(0, 4, 40))
        found = ScoreSeries.of(scores, sources, HOUR_S, gap_s)
        levels = sorted(set(scores.tolist()), reverse=True)
        counts = [int(found.events(level).sum()) for level in [*levels, -math.inf]]
        for most in range(12):
            beyond = next((place for place, count in enumerate(counts) if count > most), None)
            wanted = -math.inf if beyond is None else levels[beyond - 1]
            assert found.level_of(most) == wanted


def test_bounds_of_a_rate_are_those_of_poisson() -> None:
    """No event in three days is less than one a day; the lower bound of ten is known from tables."""
    assert false_alarms.upper(0, 3, 0.95) == pytest.approx(-math.log(0.05) / 3)
    assert false_alarms.upper(10, 1, 0.95) == pytest.approx(16.962, abs=1e-3)
    assert false_alarms.lower(10, 1, 0.95) == pytest.approx(5.425, abs=1e-3)
    assert false_alarms.lower(0, 1, 0.95) == 0
    assert false_alarms.upper(10, 1, 0.95, 2.0) == pytest.approx(2 * false_alarms.upper(5, 1, 0.95))


def test_the_days_to_show_a_rate_show_it() -> None:
    """One at the limit is never shown."""
    days = false_alarms.days_for(0.5, 1, 0.95)
    assert false_alarms.upper(0.5 * days, days, 0.95) == pytest.approx(1, abs=1e-6)
    assert false_alarms.days_for(0.0, 1, 0.95) == pytest.approx(-math.log(0.05))
    assert math.isinf(false_alarms.days_for(1.0, 1, 0.95))


def test_too_few_rows_say_how_many_are_needed() -> None:
    """Three days for one alarm a day; the level is the largest score that was seen."""
    short = course(*np.arange(48.0))
    found = false_alarms.threshold(short, 1, HOUR_S, 0.95)
    assert (found.holds, found.level, found.days) == (False, 47.0, 2.0)
    assert found.needed == pytest.approx(-math.log(0.05))
    assert false_alarms.threshold(course(*np.arange(72.0)), 1, HOUR_S, 0.95).holds


def test_a_rate_above_all_inputs_is_any_level() -> None:
    """Nothing is refused, and the level is finite."""
    assert false_alarms.threshold(course(*np.arange(72.0)), 1000, HOUR_S, 0.95).level == 0


def test_sources_that_alarm_again_and_again_are_dispersed() -> None:
    """Independent rows are not; single rows can't be; nor can one source."""
    rng = np.random.default_rng(0)
    sources = np.arange(4800) // 48
    plain = rng.standard_normal(4800)
    scene = plain + 2 * np.repeat(rng.standard_normal(100), 48)
    interval_s = 60.0
    assert ScoreSeries.of(plain, sources, interval_s, 0).dispersion() < 1.5
    assert ScoreSeries.of(scene, sources, interval_s, 0).dispersion() > 3
    assert ScoreSeries.of(scene, None, interval_s, 0).dispersion() == 1
    assert ScoreSeries.of(plain, np.zeros(4800), interval_s, 0).dispersion() == 1


def independent(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return rows that know nothing of each other."""
    return rng.standard_normal(rows)


def autoregressive(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return rows of which each is 0.9 of the one before, and noise."""
    noise = rng.standard_normal(rows + 200) * (1 - 0.9**2) ** 0.5
    return lfilter([1], [1, -0.9], noise)[200:]


def scenes(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return rows of scenes of 48, each with its own offset."""
    return 0.7 * np.repeat(rng.standard_normal(-(-rows // 48)), 48)[:rows] + 0.7 * rng.standard_normal(rows)


@pytest.mark.parametrize("drawn", [independent, autoregressive, scenes])
def test_a_threshold_holds_its_rate_in_nearly_all_repetitions(drawn: object) -> None:
    """Of 60 calibrations at most 7 break it: more would happen once in 100 times at a true risk of 5 %."""
    rate, interval_s, rows = 5.0, 60.0, 1440 * 5
    sources = np.arange(400_000) // 48
    truth = drawn(np.random.default_rng(99), 400_000)  # type: ignore[operator]
    whole, days = ScoreSeries.of(truth, sources, interval_s, 0), 400_000 * interval_s / DAY_S
    broken = 0
    for seed in range(60):
        scores = drawn(np.random.default_rng(seed), rows)  # type: ignore[operator]
        found = false_alarms.threshold(ScoreSeries.of(scores, sources[:rows], interval_s, 0), rate, interval_s, 0.95)
        broken += found.holds and whole.events(found.level).sum() / days > rate
    assert broken <= 7
