"""The device halves of all tasks in the folder, and their differences."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from edge_agent import tasks
from edge_agent.errors import TaskMissingError
from edge_agent.tasks.classification import Classification
from edge_agent.tasks.regression import Regression
from wire.manifest import Manifest, TensorSpec

OUTPUTS = np.array([0.5, 2.0, -1.0], np.float32)


@pytest.mark.parametrize("name", tasks.names())
def test_a_half_has_a_value_for_every_stream_within_its_limits(name: str) -> None:
    """As the drift counters count them; the names differ, and fixed edges are 15 that ascend."""
    task = tasks.make(name, 3)
    values = task.values(OUTPUTS, 1.0)
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
    broken = OUTPUTS.copy()
    broken[1] = bad
    seen = task.seen(task.values(broken, 1.0))
    assert seen.predicted == -1 or (name == "classification" and bad == -math.inf)  # a softmax knows minus infinity
    assert task.seen(task.values(OUTPUTS, 1.0)).predicted >= 0


def test_a_class_is_answered_by_name_with_its_probability() -> None:
    """The likeliest; a number where the manifest names fewer; nothing for NaN."""
    task = Classification(3)
    values = task.values(OUTPUTS, 1.0)
    said = task.answer(OUTPUTS.tolist(), values, ("a", "b", "c"))
    assert (said.label, said.values) == ("b", {})
    assert said.confidence == pytest.approx(np.exp(2.0) / np.exp(OUTPUTS.astype(float)).sum())
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
    with pytest.raises(TaskMissingError, match="Expected a task of classification, regression, got 'antigravity:fly'"):
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
