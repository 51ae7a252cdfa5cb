"""Which answers pass a sink's filter, on both sides of every bound."""

from __future__ import annotations

import pytest

from edge_agent.sinks._filters import AnswerFilter, SinkSettings
from wire.answers import AnswerRecord
from wire.errors import SettingsError


def record(label: str = "cat", confidence: float | None = 0.8, **more: object) -> AnswerRecord:
    """Return an answer of a classifier."""
    return AnswerRecord(label=label, confidence=confidence, **more)  # type: ignore[arg-type]


def labels(settings: SinkSettings, *records: tuple[float, AnswerRecord]) -> list[str]:
    """Return the labels of those that pass, in order."""
    one = AnswerFilter(settings)
    return [found.label for now_s, item in records if (found := one.passed(item, now_s)) is not None]


def test_without_settings_everything_passes() -> None:
    """The default gives a receiver every answer."""
    assert labels(SinkSettings(), (0, record()), (0, record()), (0, record("", None, error="image_invalid"))) == [
        "cat",
        "cat",
        "",
    ]


def test_only_changes_pass() -> None:
    """A repeated class is filtered; a change of class, of support or an error is not."""
    found = [record("a"), record("a"), record("b"), record("b", supported=False), record("", error="x"), record("b")]
    assert labels(SinkSettings(changes_only=True), *((0, item) for item in found)) == ["a", "b", "b", "", "b"]


def test_a_confidence_at_the_threshold_passes() -> None:
    """The threshold itself passes, the next smaller float does not; a class may have its own."""
    settings = SinkSettings(above=0.5, thresholds={"dog": 0.9})
    found = [record(confidence=0.5), record(confidence=0.4999), record("dog", 0.9), record("dog", 0.8999)]
    assert labels(settings, *((0, item) for item in found)) == ["cat", "dog"]


def test_a_number_has_no_confidence_and_passes() -> None:
    """``above`` does not silence a regression."""
    assert labels(SinkSettings(above=0.9), (0, record("", None, values={"power": 3.0}))) == [""]


def test_the_reject_class_takes_the_place_of_an_uncertain_answer() -> None:
    """An answer below its threshold passes under the reject class."""
    settings = SinkSettings(above=0.5, reject="unknown", changes_only=True)
    found = [record("a", 0.9), record("b", 0.1), record("c", 0.2), record("a", 0.9)]
    assert labels(settings, *((0, item) for item in found)) == ["a", "unknown", "a"]


def test_at_most_one_passes_in_an_interval() -> None:
    """The interval counts from the last answer that passed, and its end passes."""
    found = [(0.0, record("a")), (9.99, record("b")), (10.0, record("c")), (19.0, record("d"))]
    assert labels(SinkSettings(every_s=10), *found) == ["a", "c"]


def test_unsupported_inputs_and_errors_can_be_left_out() -> None:
    """An unknown support is no lack of it."""
    found = [record("a", supported=False), record("b", supported=None), record("c", supported=True)]
    settings = SinkSettings(unsupported=False, errors=False)
    assert labels(settings, *((0, item) for item in [*found, record("", error="x")])) == ["b", "c"]


def test_numbers_pass_when_one_has_moved_far_enough() -> None:
    """``change_by`` is measured from the last answer that passed, so a slow drift passes too."""
    one = AnswerFilter(SinkSettings(changes_only=True, change_by=0.5))
    values = [1.0, 1.25, 1.5, 1.75, 2.0]
    passed = [one.passed(AnswerRecord(values={"power": value}), 0.0) is not None for value in values]
    assert passed == [True, False, True, False, True]


@pytest.mark.parametrize("keys", [{"change_by": 1.0}, {"reject": "unknown"}])
def test_a_key_that_does_nothing_alone_is_refused(keys: dict[str, object]) -> None:
    """A person who set it expects an effect."""
    with pytest.raises(SettingsError, match="beside"):
        SinkSettings(**keys)  # type: ignore[arg-type]
