"""Events of a stream: when one begins and ends, on the device and for the gates alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edge_agent import smoothers
from edge_agent.errors import SmootherError
from edge_agent.sinks._filters import AnswerFilter, SinkSettings
from edge_agent.smoothers import Spotted
from edge_agent.tasks.stream_events import StreamEvents
from wire.answers import AnswerRecord

HIGH, MIDDLE, LOW = 0.9, 0.5, 0.1


def events(chances: list[float], every_ms: int = 100, threshold: float = 0.8, **options: float) -> list[Spotted]:
    """Return what begins and ends while class 1 has these probabilities; class 2 has none."""
    spotter = smoothers.spotter("events", {"refractory_ms": 0, **options}, threshold)
    assert spotter is not None
    found = [spotter.add([1 - chance, chance, 0.0], at * every_ms) for at, chance in enumerate(chances)]
    return [one for some in found for one in some]


def begun(*arguments: object, **options: float) -> list[int]:
    """Return when events begin."""
    return [one.start_ms for one in events(*arguments, **options) if not one.ended]  # type: ignore[arg-type]


def test_an_event_begins_at_the_threshold_and_ends_below_its_release() -> None:
    """Its end is the last input that belongs to it, its confidence the highest; between both thresholds it goes on."""
    assert events([LOW, 0.8, HIGH, MIDDLE, 0.4, LOW], release_ratio=0.5) == [
        Spotted(1, 100, 100, 0.8), Spotted(1, 100, 400, HIGH, ended=True)
    ]  # fmt: skip
    assert begun([LOW, 0.79, LOW]) == []
    assert begun([HIGH, MIDDLE, HIGH], release_ratio=1.0) == [0, 200]


def test_a_least_duration_holds_an_event_back_but_not_its_start() -> None:
    """To the millisecond; an interruption counts from the beginning."""
    assert begun([HIGH, HIGH, HIGH], least_ms=200) == [0]
    assert begun([HIGH, HIGH, HIGH], least_ms=201) == []
    assert begun([HIGH, LOW, HIGH, HIGH], least_ms=100) == [200]


def test_a_hold_bridges_a_gap() -> None:
    """Of as many milliseconds, and not one less."""
    assert begun([HIGH, LOW, LOW, HIGH], hold_ms=200) == [0]
    assert begun([HIGH, LOW, LOW, HIGH], hold_ms=199) == [0, 300]


def test_after_an_event_none_begins_for_the_refractory_time() -> None:
    """From its end on; what is still there afterwards begins then."""
    assert begun([HIGH, LOW, HIGH, LOW], refractory_ms=200) == [0, 200]
    assert begun([HIGH, LOW, HIGH, HIGH, LOW], refractory_ms=201) == [0, 300]


def test_a_gap_or_a_clock_set_back_ends_an_event() -> None:
    """The stream after it has no refractory time, because it is another one."""
    spotter = smoothers.spotter("events", {"refractory_ms": 10_000}, 0.8)
    assert spotter is not None
    spotter.add([0.1, HIGH, 0.0], 0)
    assert spotter.add([0.1, HIGH, 0.0], 2001) == (
        Spotted(1, 0, 0, HIGH, ended=True), Spotted(1, 2001, 2001, HIGH)
    )  # fmt: skip
    assert [one.start_ms for one in spotter.add([0.1, HIGH, 0.0], 5)] == [2001, 5]


def test_the_background_is_no_event_and_another_class_waits_for_the_end() -> None:
    """However sure; two classes don't begin at once."""
    spotter = smoothers.spotter("events", {"refractory_ms": 0}, 0.4)
    assert spotter is not None
    assert spotter.add([1.0, 0.0, 0.0], 0) == ()
    assert spotter.add([0.1, 0.5, 0.4], 100) == (Spotted(1, 100, 100, 0.5),)
    assert spotter.add([0.1, 0.2, 0.7], 200) == ()
    assert spotter.add([0.2, 0.1, 0.7], 300) == (Spotted(1, 100, 200, 0.5, ended=True), Spotted(2, 300, 300, 0.7))


def test_the_mean_is_of_probabilities_and_a_softmax_gives_it_back() -> None:
    """Over the window; a gap begins anew."""
    stream = smoothers.make("events", {"window": 2}, 2)
    first, second = (np.log(np.array(row, np.float32)) for row in ([0.9, 0.1], [0.2, 0.8]))
    assert np.exp(stream.add(first + 3, 0)[0]) == pytest.approx([0.9, 0.1], abs=1e-6)
    outputs, count = stream.add(second, 100)
    assert count == 2
    assert np.exp(outputs) == pytest.approx([0.55, 0.45], abs=1e-6)
    assert stream.add(second, 5000)[1] == 1
    assert np.isfinite(stream.add(np.array([500.0, -500.0], np.float32), 5100)[0]).all()


def test_a_model_without_a_background_is_refused() -> None:
    """As another smoother is that has no events."""
    with pytest.raises(SmootherError, match="Expected the background and a class or more for events, got 1"):
        smoothers.make("events", {}, 1)
    assert smoothers.spotter("mean", {}, 0.5) is None
    assert smoothers.spotter("", {}, 0.5) is None


def test_streams_tell_the_rate_of_events() -> None:
    """An input is active from the threshold on; its kind is 0 below."""
    task, logits = StreamEvents(3), np.log(np.array([0.2, 0.1, 0.7], np.float32))
    assert task.values(logits, 0.7 - 1e-6) == pytest.approx([0.7, 1.0, 2.0], abs=1e-6)
    assert task.values(logits, 0.71) == pytest.approx([0.7, 0.0, 0.0], abs=1e-6)
    said = task.answer(logits.tolist(), [], ("background", "one", "two"))
    assert (said.label, said.confidence) == ("two", pytest.approx(0.7, abs=1e-6))
    assert task.answer([math.nan, 0.0, 0.0], [], ("a",)).label == ""


def test_a_sink_may_get_events_alone_and_never_misses_one() -> None:
    """Neither by changes_only, nor by a confidence that is that of one window."""
    plain = AnswerRecord(label="background", confidence=0.9)
    event = AnswerRecord(label="background", confidence=0.2, events=({"state": "began", "label": "one"},))
    only = AnswerFilter(SinkSettings(events_only=True))
    assert [only.passed(one, 0.0) for one in (plain, event, plain)] == [None, event, None]
    assert only.passed(AnswerRecord(error="bad", text="bad"), 0.0) is not None
    changes = AnswerFilter(SinkSettings(changes_only=True, above=0.5))
    assert [changes.passed(one, 0.0) for one in (plain, plain, event)] == [plain, None, event]
