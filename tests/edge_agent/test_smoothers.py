"""Smoothers: what is answered for a stream, on the device and by the gates alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compressor.errors import MeasureError
from compressor.measurement.predictions import Predictions, smoothed
from edge_agent import smoothers
from edge_agent.errors import SmootherError
from wire.manifest import Manifest

A, B, C = np.eye(3, dtype=np.float32)
RELEASE = Manifest(labels=("a", "b", "c"), smoothing="mean", smoothing_options={"window": 3.0})


def labels(rows: list[np.ndarray], every_ms: int = 100, **options: float) -> str:
    """Return the classes that are answered, one letter an input."""
    stream = smoothers.make("mean", options, 3)
    return "".join("abc"[int(stream.add(row, at * every_ms)[0].argmax())] for at, row in enumerate(rows))


def test_the_mean_is_over_the_last_inputs_and_says_of_how_many() -> None:
    """The window fills from the start of the stream; older inputs have no part."""
    stream = smoothers.make("mean", {"window": 2}, 3)
    found = [stream.add(row, at) for at, row in enumerate([A, B, C])]
    assert [count for _, count in found] == [1, 2, 2]
    assert np.array_equal(np.array([outputs for outputs, _ in found]), [A, (A + B) / 2, (B + C) / 2])


def test_one_odd_input_in_a_stream_changes_nothing() -> None:
    """With a window of 1 it does."""
    assert labels([A, A, B, A, A], window=3) == "aaaaa"
    assert labels([A, A, B, A, A], window=1) == "aabaa"


def test_a_gap_or_a_clock_set_back_begins_another_stream() -> None:
    """The limit itself is still the same stream; 0 never ends one."""
    for gone_ms, count in ((2000, 2), (2001, 1), (-1, 1)):
        stream = smoothers.make("mean", {}, 3)
        stream.add(A, 10_000)
        assert stream.add(B, 10_000 + gone_ms)[1] == count
    stream = smoothers.make("mean", {"gap_ms": 0}, 3)
    stream.add(A, 0)
    assert stream.add(B, 10**9)[1] == 2


def test_a_new_label_must_lead_several_times_in_a_row() -> None:
    """An interruption counts from the beginning."""
    assert labels([A, B, B, A, B, B, B, B], window=1, debounce=3) == "aaaaaabb"


def test_a_label_stays_for_its_time() -> None:
    """To the millisecond; then the label that leads takes its place."""
    assert labels([A, B, B, B, C], window=1, hold_ms=200) == "aabbc"
    assert labels([A, B, B, B, C], window=1, hold_ms=201) == "aaabb"


@pytest.mark.parametrize(
    ("name", "options", "classes", "words"),
    [
        ("meen", {}, 3, "Expected a smoother of events, mean, got 'meen': did you mean 'mean'"),
        ("mean", {"windw": 3.0}, 3, "did you mean 'window'"),
        ("mean", {"window": 0.0}, 3, "window between 1 and 1000, got 0"),
        ("mean", {"window": 2.5}, 3, "window"),
        ("mean", {"debounce": 2.0}, 0, "Expected debounce = 1 and hold_ms = 0 for values, got 2 and 0"),
    ],
)
def test_names_what_it_does_not_know(name: str, options: dict[str, float], classes: int, words: str) -> None:
    """A device refuses such a release with the same sentence as the recipe."""
    with pytest.raises(SmootherError, match=words):
        smoothers.make(name, options, classes)


def test_gates_judge_the_rows_of_each_source_in_their_order() -> None:
    """Sources may alternate; a source of one row is answered alone; embeddings stay those of single inputs."""
    rows = np.array([A, C, A, B, B, C], np.float32)
    raw = Predictions(rows, np.arange(6, dtype=np.float32)[:, None])
    found = smoothed(raw, RELEASE, np.array(["x", "y", "x", "x", "z", "y"]), 100)
    third = np.float32(1 / 3)
    assert np.allclose(found.logits, [A, C, A, [2 * third, third, 0], B, C])
    assert found.embedding is raw.embedding
    assert smoothed(raw, replace(RELEASE, smoothing=""), np.array(["x"] * 6), 100) is raw
    with pytest.raises(MeasureError, match="only a label is held"):
        smoothed(raw, replace(RELEASE, labels=(), smoothing_options={"hold_ms": 5.0}), np.array(["x"] * 6), 100)


def test_rows_further_apart_than_the_gap_are_judged_alone() -> None:
    """As a device would answer them."""
    raw = Predictions(np.array([A, B, B], np.float32), np.zeros((3, 0), np.float32))
    found = smoothed(raw, RELEASE, np.array(["x"] * 3), 2001)
    assert np.array_equal(found.logits, raw.logits)
