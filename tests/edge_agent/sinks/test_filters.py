"""Which answers pass a sink's filter, on both sides of every bound."""

from __future__ import annotations

import pytest

from edge_agent import tasks
from edge_agent.sinks._filters import AnswerFilter, SinkSettings, misfit
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


BOXES = (
    {"label": "cat", "score": 0.9, "x0": 0.0, "y0": 0.0, "x1": 9.0, "y1": 9.0},
    {"label": "dog", "score": 0.6, "x0": 1.0, "y0": 0.0, "x1": 9.0, "y1": 9.0},
)


def found_boxes(*boxes: dict[str, object]) -> AnswerRecord:
    """Return the answer of a detection."""
    labels = [box["label"] for box in boxes]
    return AnswerRecord(
        task="detection", boxes=boxes, values={name: float(labels.count(name)) for name in ("cat", "dog")}
    )


def anomaly(score: float) -> AnswerRecord:
    """Return the answer of an anomaly with the threshold 0.5."""
    anomalous = score > 0.5
    scores = {"anomaly": score, "threshold": 0.5}
    return AnswerRecord(label="anomaly" if anomalous else "normal", anomalous=anomalous, scores=scores)


def said_labels(**scores: float) -> AnswerRecord:
    """Return the answer of several labels, those of ``scores`` and a third one that does not apply."""
    return AnswerRecord(labels=tuple(scores), scores=scores, values={"cat": 0.1, "dog": 0.2, "owl": 0.3} | scores)


def test_boxes_of_too_little_confidence_are_left_out_and_the_answer_passes() -> None:
    """At the threshold a box stays; a class may have its own; the counts are those of what is left."""
    for settings, kept in (
        (SinkSettings(above=0.6), ["cat", "dog"]),
        (SinkSettings(above=0.61), ["cat"]),
        (SinkSettings(thresholds={"cat": 0.95}), ["dog"]),
        (SinkSettings(above=0.95), []),
    ):
        passed = AnswerFilter(settings).passed(found_boxes(*BOXES), 0.0)
        assert [box["label"] for box in passed.boxes] == kept
        assert passed.values == {"cat": float("cat" in kept), "dog": float("dog" in kept)}


def test_labels_of_too_little_confidence_are_left_out_and_the_answer_passes() -> None:
    """The probabilities of all labels stay as they are."""
    passed = AnswerFilter(SinkSettings(above=0.6, thresholds={"dog": 0.9})).passed(said_labels(cat=0.6, dog=0.8), 0.0)
    assert (passed.labels, passed.scores) == (("cat",), {"cat": 0.6})
    assert passed.values == {"cat": 0.6, "dog": 0.8, "owl": 0.3}
    assert AnswerFilter(SinkSettings(above=0.9)).passed(said_labels(cat=0.6), 0.0).labels == ()


def test_a_score_below_is_no_anomaly_for_a_sink() -> None:
    """It does not pass, or passes as normal; the score itself passes."""
    scores = [0.4, 0.7, 0.8, 0.9]
    for settings, wanted in (
        (SinkSettings(score_above=0.8), [("anomaly", True), ("anomaly", True)]),
        (
            SinkSettings(score_above=0.8, reject="normal", changes_only=True),
            [("normal", False), ("anomaly", True)],
        ),
    ):
        one = AnswerFilter(settings)
        passed = [found for score in scores if (found := one.passed(anomaly(score), 0.0)) is not None]
        assert [(record.label, record.anomalous) for record in passed] == wanted


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        # boxes that move, or are a little more or less sure, are no change; their number by class is
        ([found_boxes(*BOXES), found_boxes(*BOXES[::-1]), found_boxes(BOXES[0]), found_boxes(BOXES[1])], [1, 0, 1, 1]),
        ([found_boxes(), found_boxes(), found_boxes(BOXES[0]), found_boxes()], [1, 0, 1, 1]),
        # probabilities are never the same twice: the set of labels counts
        (
            [said_labels(cat=0.6), said_labels(cat=0.7), said_labels(cat=0.7, dog=0.6), said_labels(dog=0.9, cat=0.6)],
            [1, 0, 1, 0],
        ),
        ([anomaly(0.1), anomaly(0.2), anomaly(0.7), anomaly(0.8), anomaly(0.3)], [1, 0, 1, 0, 1]),
    ],
)
def test_a_change_is_another_set_of_labels_boxes_by_class_or_state(
    answers: list[AnswerRecord], wanted: list[int]
) -> None:
    """Numbers that differ with every input don't pass each of them."""
    one = AnswerFilter(SinkSettings(changes_only=True))
    assert [int(one.passed(answer, 0.0) is not None) for answer in answers] == wanted


def test_scores_and_probabilities_pass_when_they_moved_far_enough() -> None:
    """With ``change_by``, beside another state."""
    for answers in ([anomaly(score) for score in (0.125, 0.25, 0.375, 0.5)], [
        said_labels(cat=score) for score in (0.125, 0.25, 0.375, 0.5)
    ]):  # fmt: skip
        one = AnswerFilter(SinkSettings(changes_only=True, change_by=0.25))
        assert [one.passed(answer, 0.0) is not None for answer in answers] == [True, False, True, False]


FILTERS: dict[str, object] = {
    "change_by": 0.5, "above": 0.5, "thresholds": {"a": 0.5}, "score_above": 0.5, "events_only": True, "reject": "a",
}  # fmt: skip
USEFUL = {
    "classification": {"above", "thresholds", "reject"},
    "stream_events": {"above", "thresholds", "reject", "events_only"},
    "regression": {"change_by", "reject"},  # reject alone is refused for every task
    "detection": {"above", "thresholds", "change_by"},
    "multi_label": {"above", "thresholds", "change_by"},
    "anomaly": {"score_above", "change_by", "reject"},
}


@pytest.mark.parametrize("task", tasks.names())
@pytest.mark.parametrize("key", FILTERS)
def test_each_filter_works_for_a_task_or_is_refused_with_what_to_use(task: str, key: str) -> None:
    """None does nothing in silence."""
    beside = {"change_by": {"changes_only": True}, "reject": {"above": 0.5}}.get(key, {})
    settings = SinkSettings(**{key: FILTERS[key]}, **beside)
    useless = {name: said for name, said in tasks.make(task, 3).useless_filters.items() if name == key}
    wrong = misfit(settings, task, useless)
    if key in USEFUL[task]:
        assert wrong == ""
    else:
        assert wrong.startswith(f"Expected no {key} for a release of the task {task}, got {key} = ")
        assert len(wrong.split(": ")[-1]) > 20
