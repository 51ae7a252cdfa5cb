"""Causes in words: how a change is described to a person, from the counts of a window."""

from __future__ import annotations

import numpy as np
import pytest

from server.drift.detection.attribution import UNKNOWN_CAUSE, Share, sentence, shares, words
from server.drift.detection.evidence import fade, increments, sums
from server.drift.detection.reference import SHAPES, TILTS, Floats, Ints, Profile, profile
from wire.histogram import BINS

NAMES = (
    ("luma_mean", "input"), ("luma_sd", "input"), ("laplacian_log", "input"), ("gradient_x", "input"),
    ("noise", "input"), ("projection_0", "embedding"), ("confidence", "output"), ("entropy", "output"),
)  # fmt: skip
USUAL = np.full((1, len(NAMES), BINS), 125)


def _cause(bins: dict[str, tuple[int, int]], memory: float = 1.0, windows: int = 1) -> str:
    """Return the cause when 60 samples of each named stream fall evenly into bins first..last, the others as usual."""
    counts = np.full((len(NAMES), BINS), 60 / BINS)
    for name, (first, last) in bins.items():
        row = [stream for stream, _ in NAMES].index(name)
        counts[row] = 0
        counts[row, first : last + 1] = 60 / (last + 1 - first)
    usual = profile(USUAL, np.full((1, len(NAMES)), 2000.0))
    recent = np.zeros((len(NAMES), TILTS))
    for _ in range(windows):
        recent = fade(recent, _increments(counts, usual, memory))
    return sentence(shares(recent, NAMES))


def _increments(counts: Ints, usual: Profile, memory: float) -> Floats:
    return increments(sums(counts, usual.shapes), counts.sum(axis=-1), usual.log_z, np.full(len(counts), memory))


def test_all_mass_in_an_end_bin_is_a_move_and_no_spread() -> None:
    """The widest tilt bets best on a histogram in one end bin, yet a person calls it darker."""
    assert _cause({"luma_mean": (0, 0)}) == "darker"
    assert _cause({"luma_mean": (15, 15)}) == "brighter"


def test_a_strong_change_is_said_whole_from_the_first_window_on() -> None:
    """Every input that moved and the output that followed are named, in the same words an hour and a day later."""
    moved = {"luma_mean": (0, 0), "luma_sd": (0, 0), "laplacian_log": (0, 1), "gradient_x": (0, 0), "noise": (15, 15)}
    expected = "darker, blurrier, flatter (less contrast); less confident"
    assert _cause(moved | {"confidence": (0, 0), "entropy": (15, 15)}) == expected
    assert _cause(moved | {"confidence": (0, 0), "entropy": (15, 15)}, memory=3.0, windows=24) == expected


def test_a_spread_without_a_move_is_said_as_such() -> None:
    """More values at both ends and fewer in the middle have no direction."""
    counts = np.zeros((1, BINS))
    counts[0, [0, BINS - 1]] = 30
    usual = profile(np.full((1, 1, BINS), 125), np.full((1, 1), 2000.0))
    recent = fade(np.zeros((1, TILTS)), _increments(counts, usual, 1.0))
    (share,) = shares(recent, [("luma_mean", "input")])
    assert (share.shape, share.words) == ("spread", "unsteady light")


def test_streams_of_one_subject_are_named_once_by_the_plainest() -> None:
    """Sharpness three ways is one word, and a stray little evidence is not mentioned."""
    assert _cause({"laplacian_log": (0, 2), "gradient_x": (0, 0)}) == "blurrier"


def test_embedding_is_named_only_when_nothing_plainer_is() -> None:
    """A change of the embedding that darkness explains is not named."""
    assert _cause({"projection_0": (0, 0)}) == "looks unlike training"
    assert _cause({"projection_0": (0, 0), "luma_mean": (0, 0)}) == "darker"


def test_outputs_alone_blame_no_input() -> None:
    """The model is less sure, and nothing that it sees has changed."""
    assert _cause({"confidence": (0, 0), "entropy": (15, 15)}) == "less confident"


def test_no_evidence_has_no_cause() -> None:
    """A quiet window names nothing."""
    assert shares(np.zeros((len(NAMES), TILTS)), NAMES) == ()
    assert _cause({}) == UNKNOWN_CAUSE


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stream", [
    "luma_mean", "luma_sd", "dark_ratio", "clipped_ratio", "laplacian_log", "noise", "red_green", "blue_yellow",
    "gradient_x", "gradient_y", "projection_7", "residual", "confidence", "entropy", "margin", "predicted", "jerk",
])  # fmt: skip
def test_every_stream_has_words_for_every_shape(stream: str, shape: str) -> None:
    """No stream of the agent is ever left with its bare name, and an unknown one with its name and direction."""
    said = words(stream, shape)
    assert "_" not in said
    assert ("jerk" in said) == (stream == "jerk")


def test_directions_of_sharpness_and_certainty_are_not_confused() -> None:
    """The words follow the sign of the move."""
    assert (words("laplacian_log", "down"), words("confidence", "tail_down")) == ("blurrier", "less confident")
    assert (words("entropy", "up"), words("predicted", "spread")) == (
        "less sure between classes",
        "other classes than usual",
    )


def test_values_of_a_regression_are_said_as_predictions() -> None:
    """The streams ``value_0`` to ``value_3`` share their words."""
    assert (words("value_0", "up"), words("value_3", "tail_down")) == ("higher predictions", "lower predictions")


def test_shares_are_parts_of_the_whole_evidence() -> None:
    """A stream counts with its best tilt; the shares of all add up to one."""
    recent = np.zeros((2, TILTS))
    recent[0, 0], recent[0, 1], recent[1, 2] = 3.0, 2.0, 1.0
    found = shares(recent, [("luma_mean", "input"), ("noise", "input")])
    assert [(share.stream, share.share_ratio) for share in found] == [("luma_mean", 0.75), ("noise", 0.25)]


@pytest.mark.parametrize(("moved", "shape"), [(3.4, "up"), (3.2, "spread")])
def test_a_move_is_reported_from_a_third_of_the_best_tilt_on(moved: float, shape: str) -> None:
    """Both sides of the bound: a smaller move is only a side effect."""
    recent = np.zeros((1, len(SHAPES), TILTS // len(SHAPES)))
    recent[0, SHAPES.index("spread"), 0], recent[0, SHAPES.index("up"), 0] = 10.0, moved
    assert shares(recent.reshape(1, TILTS), [("luma_mean", "input")])[0].shape == shape


@pytest.mark.parametrize(("door", "said"), [(0.6, "door higher, shaking higher"), (0.4, "shaking higher, door higher")])
def test_subjects_of_equal_rank_are_ordered_by_their_share(door: float, said: str) -> None:
    """Streams of an own sensor have no rank: the one with more evidence comes first."""
    found = [
        Share(stream=stream, kind="input", shape="up", share_ratio=ratio, words=words(stream, "up"))
        for stream, ratio in (("shaking", 1 - door), ("door", door))
    ]
    assert sentence(found) == said
