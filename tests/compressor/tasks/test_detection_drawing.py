"""Boxes lost and won by compression: which they are by value, and that they are drawn where they are."""

from __future__ import annotations

import numpy as np

from compressor.measurement.predictions import Compared, Predictions
from compressor.report.drawings import jpeg_uri, section
from compressor.tasks.detection import drawing, report

A, B, C = [0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.8, 0.8], [0.6, 0.1, 0.9, 0.3]
NAMES = ("cell", "dot")


def said(*pictures: list[tuple[int, float, list[float]]], threshold: float = 0.5) -> Predictions:
    """Return the boxes of each picture, as (class, score, edges), in the form of a decoder."""
    found = np.zeros((len(pictures), 4, 6), np.float32)
    found[..., 0] = -1
    for row, boxes in zip(found, pictures, strict=True):
        for place, (kind, score, edges) in enumerate(boxes):
            row[place] = [kind, score, *edges]
    return Predictions(found.reshape(len(found), -1), np.zeros((len(found), 0), np.float32), threshold)


def truth(*pictures: list[tuple[int, list[float]]]) -> np.ndarray:
    """Return labels, float32 (N, 3, 5)."""
    labels = np.full((len(pictures), 3, 5), -1, np.float32)
    for row, boxes in zip(labels, pictures, strict=True):
        for place, (kind, edges) in enumerate(boxes):
            row[place] = [kind, *edges]
    return labels


def compared() -> Compared:
    """Return four pictures: nothing changed, one box won, two lost and one false, a false one gone."""
    labels = truth([(0, A)], [(0, A), (1, B)], [(0, A), (1, B)], [])
    before = said([(0, 0.9, A)], [(0, 0.9, A)], [(0, 0.9, A), (1, 0.9, B)], [(0, 0.6, C)])
    after = said([(0, 0.6, A)], [(0, 0.9, A), (1, 0.8, B)], [(0, 0.4, A), (0, 0.9, B), (1, 0.2, B)], [])
    slices = np.array(["all"] * 4)
    return Compared(labels=labels, slices=slices, baseline=before, float_model=before, candidate=after)


def test_lost_won_and_false_boxes_are_those_between_the_thresholds() -> None:
    """A box of another class is a false one, a score below the threshold no answer; the worst picture comes first."""
    found = drawing.differences(compared())
    assert [one.row for one in found] == [2, 1, 3]
    worst, better, gone = found
    assert worst.lost[:, 0].tolist() == [0, 1]
    assert worst.false[:, 0].tolist() == [0]
    assert (len(worst.won), worst.gone, gone.gone) == (0, 0, 1)
    assert better.won[0].tolist() == np.array([1, *B], np.float32).tolist()
    assert drawing.caption(worst, NAMES) == "row 2; lost 1 cell, 1 dot; false 1 cell"


def test_each_model_answers_from_its_own_threshold() -> None:
    """A lower one for the compressed model finds the box again; the text names both."""
    whole = compared()
    low = Predictions(whole.candidate.logits, whole.candidate.embedding, 0.3)
    again = Compared(
        labels=whole.labels, slices=whole.slices, baseline=whole.baseline, float_model=whole.float_model, candidate=low
    )
    assert [len(one.lost) for one in drawing.differences(again)] == [1, 0, 0]
    text = drawing.summary(drawing.differences(again), again)
    assert "Of 5 boxes the compressed model lost 1 and won 1, on 3 pictures" in text
    assert "from 0.30 on, the model before from 0.50 on" in text


def test_a_second_answer_for_one_box_is_false() -> None:
    """As in average precision: each box is found once, by the surest."""
    before = said([(0, 0.9, A)])
    after = said([(0, 0.9, A), (0, 0.8, [0.1, 0.1, 0.3, 0.27])])
    gate_set = Compared(
        labels=truth([(0, A)]), slices=np.array(["all"]), baseline=before, float_model=before, candidate=after
    )
    (one,) = drawing.differences(gate_set)
    assert (len(one.false), len(one.lost), len(one.won)) == (1, 0, 0)


def test_boxes_are_drawn_where_they_are_in_their_colours() -> None:
    """On a small grey picture, enlarged; the false one is dashed."""
    worst = drawing.differences(compared())[0]
    pixels = drawing.drawn(np.full((40, 60, 3), 90, np.uint8), worst)
    assert pixels.shape == (267, 400, 3)
    lost = np.all(pixels == np.array([0xE5, 0x35, 0x2B]), axis=2)
    rows, columns = np.nonzero(lost[:120])
    assert np.abs(np.array([columns.min(), rows.min(), columns.max(), rows.max()]) - [40, 27, 120, 80]).max() <= 2
    assert 0 < np.all(pixels == np.array([0xF2, 0xA9, 0x00]), axis=2).sum() < 600  # a solid line of this width has 800


def test_the_section_has_a_legend_and_small_pictures() -> None:
    """A photograph of 640 x 480 takes less than 100 kB of the page; names are escaped."""
    photo = np.random.default_rng(0).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    made = report.drawings(compared(), lambda _row: photo, ("<b>", "dot"))
    html = section(made)
    assert html.count("<img") == 3
    assert "<b>" not in html
    assert "lost" in html
    assert len(jpeg_uri(drawing.drawn(np.kron(np.full((6, 8, 1), 99, np.uint8), np.ones((80, 80, 3), np.uint8)),
                                      drawing.differences(compared())[0]))) < 60_000  # fmt: skip


def test_nothing_changed_is_said_without_pictures() -> None:
    """The same model twice."""
    whole = compared()
    same = Compared(
        labels=whole.labels, slices=whole.slices, baseline=whole.baseline, float_model=whole.float_model,
        candidate=whole.baseline,
    )  # fmt: skip
    html = section(report.drawings(same, lambda _row: np.zeros((4, 4, 3), np.uint8), NAMES))
    assert "lost 0 and won 0, on 0 pictures" in html
    assert "<img" not in html
