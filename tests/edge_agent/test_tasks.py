"""The device halves of all tasks in the folder, and their differences."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from edge_agent import tasks
from edge_agent.errors import TaskMissingError
from edge_agent.tasks.anomaly import Anomaly
from edge_agent.tasks.classification import Classification
from edge_agent.tasks.detection import Detection
from edge_agent.tasks.regression import Regression
from wire.manifest import Manifest, TensorSpec

OUTPUTS = np.array([0.5, 2.0, -1.0], np.float32)
BOXES = np.array([1, 0.9, 0.25, 0.5, 0.5, 1.0, 0, 0.4, 0.0, 0.0, 0.5, 0.25, -1, 0, 0, 0, 0, 0], np.float32)
"""Two boxes and an empty place, as a decoder gives them."""


def outputs_of(name: str) -> np.ndarray:
    """Return what the runtime of such a model returns."""
    return BOXES if name == "detection" else OUTPUTS[:1] if name == "anomaly" else OUTPUTS


@pytest.mark.parametrize("name", tasks.names())
def test_a_half_has_a_value_for_every_stream_within_its_limits(name: str) -> None:
    """As the drift counters count them; the names differ, and fixed edges are 15 that ascend."""
    task = tasks.make(name, 3)
    values = task.values(outputs_of(name), 1.0)
    assert len(values) == len(task.streams) == len({stream.name for stream in task.streams})
    for stream, value in zip(task.streams, values, strict=True):
        assert stream.limits[0] <= value <= stream.limits[1]
        assert stream.spec.kind == "output"
        assert len(stream.edges) in {0, 15}
        assert list(stream.edges) == sorted(stream.edges)


@pytest.mark.parametrize("name", tasks.names())
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_no_class_of_the_heartbeat(name: str, bad: float) -> None:
    """They are counted as breakage: -1; finite ones are not."""
    task = tasks.make(name, 3)
    broken = outputs_of(name).copy()
    broken[-1] = bad
    seen = task.seen(task.values(broken, 1.0))
    assert seen.predicted == -1 or (name == "classification" and bad == -math.inf)  # a softmax knows minus infinity
    assert task.seen(task.values(outputs_of(name), 1.0)).predicted >= 0


def test_a_score_above_the_threshold_is_an_anomaly() -> None:
    """Both numbers are in the answer; the threshold itself is normal, and so is everything without one."""
    task = Anomaly().fitted(0.5)
    for score, anomalous in ((0.75, True), (0.5, False)):
        values = task.values(np.array([score], np.float32), 0.5)
        said = task.answer([score], values, ("normal", "anomaly"))
        assert (said.label, said.anomalous) == (("normal", "anomaly")[anomalous], anomalous)
        assert said.scores == {"anomaly": score, "threshold": 0.5}
        assert task.seen(values).predicted == anomalous
    assert task.answer([math.nan], [math.nan], ("normal", "anomaly")).label == ""
    assert Anomaly().seen([9.0]).predicted == 0


def test_a_golden_score_on_the_other_side_of_the_threshold_is_a_flip() -> None:
    """By the threshold of the reference; without one nothing flips."""
    said, golden = (np.array([[one], [0.9], [0.1]], np.float32) for one in (0.4, 0.6))
    assert Anomaly(0.5).flips(said, golden) == 1
    assert Anomaly().flips(said, golden) == 0


def test_boxes_above_the_threshold_are_answered_and_counted_by_class() -> None:
    """The surest first, with their edges; streams are of the answered ones, the score of the surest even without."""
    task = Detection()
    values = task.values(BOXES, 0.4)
    said = task.answer(BOXES.tolist(), values, ("a", "b", "c"))
    assert [(box.label, round(box.score, 3), box.edges) for box in said.boxes] == [
        ("b", 0.9, (0.25, 0.5, 0.5, 1.0)), ("a", 0.4, (0.0, 0.0, 0.5, 0.25)),
    ]  # fmt: skip
    assert said.values == {"a": 1, "b": 1, "c": 0}
    assert values == pytest.approx([2, (2 * 0.125**0.5) / 2, 0.3125, 0.4375, 0.9])
    assert task.values(BOXES, 0.95) == pytest.approx([0, 0, 0.5, 0.5, 0.9])
    assert task.answer(BOXES.tolist(), [math.nan] * 5, ("a",)).values == {}


def test_a_golden_picture_that_lacks_a_sure_box_flips() -> None:
    """Another score, place or class; a box near the least score may come and go."""
    task = Detection()
    for change, flips in (
        ({}, 0),
        ({1: 0.79}, 1),
        ({1: 0.81}, 0),
        ({2: 0.4}, 1),
        ({0: 2}, 1),
        ({12: 0, 13: 0.2, 16: 1, 17: 1}, 0),
    ):
        other = BOXES.copy()
        for place, value in change.items():
            other[place] = value
        assert task.flips(other[None], BOXES[None]) == task.flips(BOXES[None], other[None]) == flips, change


def test_a_class_is_answered_by_name_with_its_probability() -> None:
    """The likeliest; a number where the manifest names fewer; nothing for NaN."""
    task = Classification(3)
    values = task.values(OUTPUTS, 1.0)
    said = task.answer(OUTPUTS.tolist(), values, ("a", "b", "c"))
    assert (said.label, said.values) == ("b", {})
    assert said.confidence == pytest.approx(np.exp(2.0) / np.exp(OUTPUTS.astype(float)).sum(), abs=5e-5)
    assert task.answer(OUTPUTS.tolist(), values, ("a",)).label == "1"
    assert task.answer([], [math.nan] * 4, ("a",)).label == ""


def test_values_are_answered_by_name_and_never_sampled() -> None:
    """All of them, also those beyond the fourth that have no stream."""
    task = Regression(6)
    said = task.answer(list(range(6)), task.values(np.arange(6.0), 1.0), tuple("abcdef"))
    assert (said.label, said.values["f"], len(task.streams)) == ("", 5, 4)
    assert math.isnan(task.seen([1.0] * 4).confidence)


def test_only_classes_flip() -> None:
    """For several values, the index of the largest has no meaning."""
    one, other = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert (Classification(2).flips(one, other), Regression(2).flips(one, other)) == (1, 0)


@pytest.mark.parametrize(
    ("manifest", "outputs"),
    [
        (Manifest(labels=("a", "b", "c")), 3),
        (Manifest(values=("x", "y")), 2),
        (Manifest(outputs=(TensorSpec(name="logits", shape=(-1, 7)),)), 7),
        (Manifest(outputs=(TensorSpec(name="logits", shape=(-1, -1)),)), 0),
        (Manifest(), 0),
    ],
)
def test_a_manifest_tells_how_many_outputs_there_are(manifest: Manifest, outputs: int) -> None:
    """By its names, otherwise by the file's output."""
    assert tasks.outputs_of(manifest) == outputs


def test_a_task_that_nobody_installed_is_named() -> None:
    """With those there are; nothing is imported for it."""
    with pytest.raises(
        TaskMissingError,
        match="Expected a task of anomaly, classification, detection, multi_label, regression, stream_events, got",
    ):
        tasks.make("antigravity:fly", 2)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ("second_task:make", "got 'first_task:make' of own-0 and 'second_task:make' of own-1: uninstall one"),
        ("first_task:make", "got SystemExit: 0"),
    ],
)
def test_a_task_that_two_packages_have_or_that_ends_its_process_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str, said: str
) -> None:
    """Which of two comes first differs from device to device; an exit at import is an error like any other."""
    (tmp_path / "first_task.py").write_text("raise SystemExit(0)\n")
    for number, value in enumerate(("first_task:make", others)):
        info = tmp_path / f"own_{number}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: own-{number}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[edge_agent.tasks]\nmine = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskMissingError, match=re.escape(said)):
        tasks.make("mine", 2)


def test_labels_above_their_thresholds_are_answered_the_surest_first() -> None:
    """At the threshold too; without any the answer is empty, and all probabilities are its values."""
    task = tasks.make("multi_label", 3, (0.5, 0.9, 0.2))
    values = task.values(OUTPUTS, 1.0)
    said = task.answer(OUTPUTS.tolist(), values, ("a", "b", "c"))
    assert (said.labels, list(said.scores)) == (("a", "c"), ["a", "c"])
    assert said.values == {"a": 0.6225, "b": 0.8808, "c": 0.2689}
    assert values == pytest.approx([2, 0.880797, 1, 0, 1], abs=1e-5)
    none = np.full(3, -800, np.float32)
    nothing = task.answer(none.tolist(), task.values(none, 1.0), ("a", "b", "c"))
    assert (nothing.labels, nothing.scores) == ((), {})
    assert task.flips(OUTPUTS[None], none[None]) == 1
    assert task.flips(OUTPUTS[None], OUTPUTS[None] + np.float32(0.01)) == 0
