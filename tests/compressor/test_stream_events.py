"""Matching of events, exact bounds of rates, and the gates that read them; figures by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from compressor.gates import Evidence, Verdict
from compressor.gates.evidence import GateRecipe
from compressor.gates.kinds import gate, text_of
from compressor.gates.stream_events import EventRecall, EventRecallDrop, FalseAccepts, FalseAcceptsIncrease
from compressor.statistics.paired import Paired
from compressor.statistics.stream_events import Points, Spans, increase_upper, matched, rate_bounds, still_needed


def spans(*rows: tuple[int, int, float, float]) -> Spans:
    """Return events of (recording, label, start, end)."""
    columns = np.array(rows, float).reshape(-1, 4)
    first, second = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return Spans(recordings=first, labels=second, starts_s=columns[:, 2], ends_s=columns[:, 3])


def points(*rows: tuple[int, int, float]) -> Points:
    """Return detections of (recording, label, time)."""
    columns = np.array(rows, float).reshape(-1, 3)
    first, second = columns[:, 0].astype(np.int64), columns[:, 1].astype(np.int64)
    return Points(recordings=first, labels=second, at_s=columns[:, 2])


def test_a_detection_meets_an_event_of_its_recording_and_label_within_its_time() -> None:
    """The ends belong to it; another label, recording or time is a false accept."""
    events = spans((0, 1, 1.0, 2.0))
    for found, meets in (
        ((0, 1, 1.0), 0), ((0, 1, 2.0), 0), ((0, 1, 0.99), -1), ((0, 1, 2.01), -1), ((0, 2, 1.5), -1), ((1, 1, 1.5), -1)
    ):  # fmt: skip
        assert matched(events, points(found)).tolist() == [meets]


def test_an_event_is_met_once() -> None:
    """A second detection of it is a false accept; detections need not be in the order of time."""
    assert matched(spans((0, 1, 1.0, 2.0)), points((0, 1, 1.8), (0, 1, 1.2))).tolist() == [-1, 0]
    assert matched(spans(), points((0, 1, 1.0))).tolist() == [-1]
    assert matched(spans((0, 1, 1.0, 2.0)), points()).tolist() == []


def test_as_many_events_are_met_as_can_be() -> None:
    """Against augmenting paths, in 200 drawn cases."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        starts, times = rng.integers(0, 8, rng.integers(1, 5)), rng.integers(0, 12, rng.integers(1, 5))
        lengths = rng.integers(0, 5, len(starts))
        events = spans(*((0, 1, start, start + length) for start, length in zip(starts, lengths, strict=True)))
        fits = (events.starts_s[:, None] <= times) & (times <= events.ends_s[:, None])
        assert (matched(events, points(*((0, 1, at) for at in times.tolist()))) >= 0).sum() == _most(fits)


def _most(fits: np.ndarray) -> int:
    """Return the size of the largest matching, by augmenting paths."""
    owner: dict[int, int] = {}

    def tried(event: int, seen: set[int]) -> bool:
        for place in np.flatnonzero(fits[event]).tolist():
            if place not in seen:
                seen.add(place)
                if place not in owner or tried(owner[place], seen):
                    owner[place] = event
                    return True
        return False

    return sum(tried(event, set()) for event in range(len(fits)))


def test_bounds_of_a_rate_are_those_of_garwood() -> None:
    """Nothing in an hour is at most 3.0 an hour with 95 %; the tails have the risk exactly."""
    assert rate_bounds(0, 1.0, 0.95) == pytest.approx((0.0, 2.9957), abs=1e-4)
    low, high = rate_bounds(4, 2.0, 0.9)
    assert stats.poisson.cdf(4, 2 * high) == pytest.approx(0.1)
    assert stats.poisson.sf(3, 2 * low) == pytest.approx(0.1)


def test_the_increase_of_a_rate_keeps_its_risk() -> None:
    """Of 2,000 drawn pairs at an increase of 2 an hour, at most 5 % have a bound below it."""
    rng = np.random.default_rng(1)
    drawn = zip(rng.poisson(12, 2000).tolist(), rng.poisson(4, 2000).tolist(), strict=True)
    assert np.mean([increase_upper(new, gone, 4.0, 0.95) < 2 for new, gone in drawn]) <= 0.05


def evidence(**figures: float) -> Evidence:
    """Return evidence of these figures."""
    return Evidence(figures=figures)


def test_false_accepts_pass_fail_or_ask_for_hours() -> None:
    """Each by its exact bound; the hours asked for pass at the same rate, and hardly fewer do."""
    judge = FalseAccepts(2.0).judge
    assert judge(evidence(false_accepts=0, hours=1.5)).verdict is Verdict.PASS
    assert judge(evidence(false_accepts=0, hours=1.49)).verdict is Verdict.INCONCLUSIVE
    assert judge(evidence(false_accepts=9, hours=1.0)).verdict is Verdict.FAIL
    asked = judge(evidence(false_accepts=3, hours=2.0))
    assert (asked.verdict, asked.value, asked.n) == (Verdict.INCONCLUSIVE, 1.5, 2)
    assert f"needs about {asked.needs} more recorded hours" in asked.text
    times = (2 + asked.needs) / 2
    assert rate_bounds(math.ceil(3 * times), 2 * times, 0.95)[1] <= 2.0
    assert rate_bounds(math.ceil(3 * 0.7 * times), 0.7 * 2 * times, 0.95)[1] > 2.0
    assert "in one recording" not in judge(evidence(false_accepts=4, hours=2.0, false_accepts_most=2)).text
    assert "3 of them in one" in judge(evidence(false_accepts=4, hours=2.0, false_accepts_most=3)).text
    exact = judge(evidence(false_accepts=4, hours=2.0))  # exactly the limit: no time decides
    assert (exact.verdict, exact.needs) == (Verdict.INCONCLUSIVE, 0)
    assert judge(evidence(false_accepts=0)).verdict is Verdict.FAIL
    assert judge(evidence(false_accepts=0, hours=0)).verdict is Verdict.FAIL


def test_hours_are_whole_and_at_least_one() -> None:
    """And 0 where no time would do."""
    assert still_needed(1.0, lambda times: times >= 12) == 11
    assert still_needed(0.01, lambda times: times >= 2) == 1
    assert still_needed(1.0, lambda _times: False) == 0


def test_new_false_accepts_are_weighed_against_those_that_are_gone() -> None:
    """Fewer than before pass; many more fail; a short recording shows neither."""
    judge = FalseAcceptsIncrease(1.0).judge
    assert judge(evidence(false_accepts_new=0, false_accepts_gone=5, hours=5)).verdict is Verdict.PASS
    assert judge(evidence(false_accepts_new=30, false_accepts_gone=0, hours=5)).verdict is Verdict.FAIL
    asked = judge(evidence(false_accepts_new=1, false_accepts_gone=1, hours=1))
    assert (asked.verdict, asked.value) == (Verdict.INCONCLUSIVE, 0.0)
    assert asked.needs > 1


def test_recall_has_the_bounds_of_clopper_and_pearson() -> None:
    """59 of 59 show .95 and 58 do not; what is shown to be below fails."""
    judge = EventRecall(0.95).judge
    assert judge(evidence(events_found=59, events=59)).verdict is Verdict.PASS
    asked = judge(evidence(events_found=58, events=58))
    assert asked.verdict is Verdict.INCONCLUSIVE
    assert "more labelled events" in asked.text
    assert asked.needs == 1
    below = judge(evidence(events_found=9, events=10))
    assert (below.verdict, below.needs > 10) == (Verdict.INCONCLUSIVE, True)
    assert judge(evidence(events_found=80, events=100)).verdict is Verdict.FAIL
    assert judge(evidence(events_found=0, events=0)).verdict is Verdict.FAIL


def test_a_drop_of_recall_is_paired_by_events() -> None:
    """The paired test of classes, on events, which it asks for."""
    judge = EventRecallDrop(0.05).judge
    assert judge(Evidence(accuracy=Paired(0, 0, 100))).verdict is Verdict.PASS
    asked = judge(Evidence(accuracy=Paired(2, 1, 30)))
    assert asked.verdict is Verdict.INCONCLUSIVE
    assert "more labelled events" in asked.text
    assert "labelled samples" not in asked.text


def test_a_certificate_is_judged_again_from_its_figures() -> None:
    """By the rule's name; rates have their unit in reports."""
    made = gate(GateRecipe(name="false_accepts_per_hour", max=2.0, confidence=0.9))
    assert made == FalseAccepts(2.0, 0.9, "false_accepts_per_hour")
    assert text_of("float_false_accepts_per_hour", 1.25) == "1.25 an hour"
