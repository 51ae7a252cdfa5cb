"""Decoders of imported detectors: each layout with boxes set by hand, what is read off a file, what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edge_agent import decoders
from edge_agent.decoders import VALUES, ModelShape, OutputReading
from edge_agent.errors import DecoderError
from wire.manifest import TensorSpec

SHAPE = ModelShape(classes=3, width=64, height=32)
BOX = [1, 0.8, 0.25, 0.25, 0.75, 0.75]
"""Class, score and edges of the one object; its centre is (32, 16) pixels, its size (32, 16)."""
CELLS = 8 * 4 + 4 * 2 + 2 * 1
ANCHORS = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 32, 16, 64, 32, 8, 8]


def specs(outputs: Sequence[np.ndarray], *names: str) -> list[TensorSpec]:
    """Return the outputs as a file declares them, named ``names`` or ``o0`` and so on."""
    called = [*names, *(f"o{place}" for place in range(len(names), len(outputs)))]
    return [TensorSpec(name=n, shape=one.shape, dtype=one.dtype.name) for n, one in zip(called, outputs, strict=True)]


def settled(
    name: str, outputs: Sequence[np.ndarray], shape: ModelShape = SHAPE, *names: str, **options: object
) -> tuple[OutputReading, list[np.ndarray]]:
    """Return how ``outputs`` are read, and those that are, in their order."""
    read = decoders.read(name, options, shape, specs(outputs, *names))  # type: ignore[arg-type]
    first = [outputs[place] for place in read.places]
    tried = decoders.tried(name, read.options, shape, first)
    ordered = [first[place] for place in tried.places] if len(tried.places) == len(first) else first
    return OutputReading(options=tried.options, places=tried.places, remarks=(*read.remarks, *tried.remarks)), ordered


def found(name: str, *outputs: np.ndarray, shape: ModelShape = SHAPE, **options: object) -> np.ndarray:
    """Return the boxes of the first input, (K, 6), with all that is left open read off."""
    reading, ordered = settled(name, outputs, shape, **options)
    rows = decoders.make(name, reading.options, shape).boxes(ordered)
    boxes: np.ndarray = rows[0].reshape(-1, VALUES)
    kept: np.ndarray = boxes[boxes[:, 0] >= 0]
    return kept


def v8(count: int = CELLS, ratios: bool = False) -> np.ndarray:  # noqa: FBT001, FBT002 - as the cases name it
    """Return (1, 4 + 3, count): two of the boxes are the object, the rest lie apart with small scores."""
    made = np.zeros((1, 7, count), np.float32)
    made[0, :2] = np.random.default_rng(0).uniform(4, 28, (2, count))
    made[0, 2:4], made[0, 4:] = 6, 0.01
    made[0, :4, 5], made[0, :4, 6] = [32, 16, 32, 16], [33, 16, 32, 16]
    made[0, 4:, 5], made[0, 4:, 6] = [0.1, 0.8, 0.2], [0.1, 0.7, 0.2]
    if ratios:
        made[0, :4] /= np.array([64, 32, 64, 32])[:, None]
    return made


def v5(count: int = 3 * CELLS) -> np.ndarray:
    """Return (1, count, 5 + 3): objectness .9 times class .8889 is the object."""
    made = np.zeros((1, count, 8), np.float32)
    made[0, :, :5] = [10, 10, 4, 4, 0.01]
    made[0, :, 5:] = 0.9
    made[0, 7] = [32, 16, 32, 16, 0.9, 0.1, 0.8 / 0.9, 0]
    return made


def ended(count: int = 30) -> np.ndarray:
    """Return (1, count, 6), as files that suppress: the rest is empty."""
    made = np.zeros((1, count, 6), np.float32)
    made[0, 0] = [16, 8, 48, 24, 0.8, 1]
    return made


def grids(split: bool = False) -> list[np.ndarray]:  # noqa: FBT001, FBT002 - as the cases name it
    """Return three grids of logits, the largest last; the object is in the middle of the coarsest's first cell."""
    made = [np.full((1, 3, h, w, 8), -9, np.float32) for h, w in ((1, 2), (2, 4), (4, 8))]
    made[0][0, 0, 0, 0, :4] = [np.log(3), 0, 0, 0]  # 2 * .75 - .5 = 1 cell of 32 pixels, and .5 of one; anchor 32 x 16
    made[0][0, 0, 0, 0, 4:] = [9, -9, np.log(4), -9]
    return made if split else [one.transpose(0, 1, 4, 2, 3).reshape(1, 24, *one.shape[2:4]) for one in made]


@pytest.mark.parametrize(
    ("outputs", "layout"),
    [
        ([v8()], "scores"), ([v8(ratios=True)], "scores"), ([v8().transpose(0, 2, 1)], "scores"),
        ([v5()], "objectness"), ([v5(), *grids(split=True)], "objectness"), ([ended()], "end_to_end"),
        ([v8()[:, :4], v8()[:, 4:]], "scores"),
        ([v8()[:, 4:].transpose(0, 2, 1), v8()[:, :4].transpose(0, 2, 1)], "scores"),
    ],
)  # fmt: skip
def test_a_yolo_layout_is_recognised_and_read(outputs: list[np.ndarray], layout: str) -> None:
    """One object, once, where it is, whatever the layout; a line gives the reason."""
    boxes = found("yolo", *outputs)
    assert boxes == pytest.approx(np.array([BOX]), abs=1e-4)
    remarks = settled("yolo", outputs)[0].remarks
    assert remarks[0].startswith(f"layout = '{layout}'")
    assert any("coordinates" in line for line in remarks)


@pytest.mark.parametrize("form", ["joined", "split", "last"])
def test_raw_grids_are_decoded_with_their_anchors(form: str) -> None:
    """By the formula of v5, in whatever order the grids come."""
    made = grids(split=form == "split")
    made = [one.transpose(0, 2, 3, 1) for one in made] if form == "last" else made
    boxes = found("yolo", *made, anchors=ANCHORS)
    assert boxes == pytest.approx(np.array([BOX]), abs=2e-3)
    with pytest.raises(DecoderError, match="18 numbers as anchors for raw grids, got 0: give width and height"):
        found("yolo", *made)


def yolox(decoded: bool = False) -> np.ndarray:  # noqa: FBT001, FBT002 - as the cases name it
    """Return (1, CELLS, 5 + 3): each box is its cell, but that of row 1, column 2 of stride 8, which is the object."""
    made = np.zeros((1, CELLS, 8), np.float32)
    made[0, :, :5], made[0, :, 5:] = [0.5, 0.4, 0, 0, 0.01], 0.9
    made[0, 10] = [2.0, 1.0, np.log(4), np.log(2), 0.9, 0.1, 0.8 / 0.9, 0]
    if decoded:
        corner, stride = [], []
        for side, (rows, columns) in ((8, (4, 8)), (16, (2, 4)), (32, (1, 2))):
            corner += [(column, row) for row in range(rows) for column in range(columns)]
            stride += [side] * rows * columns
        sides = np.array(stride, np.float32)[:, None]
        made[0, :, :2] = (made[0, :, :2] + np.array(corner)) * sides
        made[0, :, 2:4] = np.exp(made[0, :, 2:4]) * sides
    return made


@pytest.mark.parametrize(("decoded", "layout"), [(False, "cells"), (True, "objectness")])
def test_boxes_of_yolox_are_read_before_and_after_its_decoding(decoded: bool, layout: str) -> None:  # noqa: FBT001
    """Both have one shape: the centres tell, in their cell or in the picture."""
    made = yolox(decoded)
    assert found("yolo", made) == pytest.approx(np.array([BOX]), abs=1e-4)
    reading = settled("yolo", [made])[0]
    assert decoders.settings_from("yolo", reading.options).layout == layout
    assert any("layout = 'cells'" in line for line in reading.remarks) == (not decoded)
    assert found("yolo", yolox(), layout="cells") == pytest.approx(np.array([BOX]), abs=1e-4)


def test_boxes_of_yolox_need_the_size_of_their_export() -> None:
    """There is one box for each cell."""
    with pytest.raises(DecoderError, match="each of 84 cells of 64 x 64 pixels, got 42"):
        found("yolo", yolox(), shape=ModelShape(classes=3, width=64, height=64), layout="cells")


def test_boxes_that_are_sorted_inside_may_be_as_many_as_cells() -> None:
    """A small input has fewer cells than the 300 boxes that v10 keeps."""
    assert found("yolo", ended(CELLS)) == pytest.approx(np.array([BOX]), abs=1e-4)


def test_numbers_of_a_manifest_mean_the_same_as_names_and_lists_of_a_recipe() -> None:
    """A manifest holds numbers by name."""
    told = decoders.complete("yolo", {"layout": "anchors", "anchors": ANCHORS})  # type: ignore[dict-item]
    assert (told["layout"], told["anchors_0"], told["anchors_17"]) == (4.0, 10.0, 8.0)
    assert all(isinstance(value, float) for value in told.values())
    assert decoders.complete("yolo", told) == told
    for bad, said in (({"layout": 9.0}, "layout"), ({"layout": "v9"}, "'v9'"), ({"anchors_1": 3.0}, "anchors_0 to"),
                      ({"layout": 1.5}, "layout"), ({"anchors": "3"}, "list")):  # fmt: skip
        with pytest.raises(DecoderError, match=said):
            decoders.complete("yolo", bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("output", "classes", "said"),
    [
        (v8(), 2, "v8 and later with 3 classes"), (v8(), 4, "3 with layout 'scores'"),
        (v5(), 2, "3 with layout 'objectness'"), (v8(50).transpose(0, 2, 1), 3, "transpose of a v8"),
        (np.zeros((1, 9, 4, 8), np.float32), 3, "three raw grids"),
    ],
)  # fmt: skip
def test_a_yolo_of_other_classes_is_refused_with_what_would_fit(output: np.ndarray, classes: int, said: str) -> None:
    """Before any box is wrong."""
    with pytest.raises(DecoderError, match=said):
        found("yolo", output, shape=ModelShape(classes=classes, width=64, height=32))


def test_one_class_and_two_are_told_by_the_number_of_boxes() -> None:
    """Six numbers a box are a v5 of one class, a transposed v8 of two, or an export that suppresses."""
    one, two = (ModelShape(classes=n, width=64, height=32) for n in (1, 2))
    assert "objectness" in settled("yolo", [np.zeros((1, 3 * CELLS, 6), np.float32)], one)[0].remarks[0]
    assert "end_to_end" in settled("yolo", [np.zeros((1, 300, 6), np.float32)], one)[0].remarks[0]
    assert "end_to_end" in settled("yolo", [np.zeros((1, 300, 6), np.float32)], two)[0].remarks[0]
    assert "scores" in settled("yolo", [np.zeros((1, CELLS, 6), np.float32)], two)[0].remarks[0]


def test_boxes_outside_the_input_or_turned_are_refused() -> None:
    """Another input size, or corners taken for a centre and a size."""
    far = v8()
    far[0, :4] *= 10
    with pytest.raises(DecoderError, match=r"inside the input.*width and height"):
        found("yolo", far)
    table = np.tile(np.array([32, 16, 20, 10, 0.8, 1], np.float32), (1, 30, 1))
    with pytest.raises(DecoderError, match=r"second edge is before the first.*boxes = 'centre'"):
        found("yolo", table)
    table[0, :, 5] = 3
    with pytest.raises(DecoderError, match="class 0 to 2, got 3 to 3"):
        found("yolo", table, boxes="centre")


def test_scores_that_are_logits_are_said_and_converted() -> None:
    """An export without its last sigmoid."""
    made = v8()
    made[0, 4:] = np.log(made[0, 4:] / (1 - made[0, 4:]))
    assert found("yolo", made) == pytest.approx(np.array([BOX]), abs=1e-4)
    assert "scores = 'sigmoid'" in " ".join(settled("yolo", [made])[0].remarks)
    with pytest.raises(DecoderError, match="scores of 0 to 1, as scores = 'plain'"):
        found("yolo", made, scores="plain")


def ssd_lists(background: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (1, 20, 4) in ratios and scores (1, 20, 3), or 4 with a background."""
    boxes, scores = np.tile(np.array([0, 0, 0.1, 0.1], np.float32), (1, 20, 1)), np.full((1, 20, 3), 0.01, np.float32)
    boxes[0, 4], scores[0, 4, 1] = BOX[2:], 0.8
    rest = 1 - scores.sum(axis=2, keepdims=True)
    return boxes, np.concatenate(
        [rest, scores] if background == "first" else [scores, rest], axis=2
    ) if background else scores


@pytest.mark.parametrize("background", ["", "first", "last"])
def test_boxes_and_scores_apart_are_read(background: str) -> None:
    """With a background class or without."""
    boxes, scores = ssd_lists(background)
    options = {"background": background} if background == "last" else {}
    for outputs in ((boxes, scores), (scores, boxes)) if not background else ((boxes * [64, 32, 64, 32], scores),):
        given = [np.asarray(one, np.float32) for one in outputs]
        reading, ordered = settled(
            "ssd", given, SHAPE, *(["boxes"] if given[0] is not scores else ["scores", "boxes"]), **options
        )
        made = decoders.make("ssd", reading.options, SHAPE).boxes(ordered).reshape(-1, VALUES)
        assert made[0] == pytest.approx(np.array(BOX), abs=1e-4)


def test_logits_with_a_background_take_a_softmax() -> None:
    """As torchvision's raw heads have them."""
    boxes, scores = ssd_lists("first")
    assert found("ssd", boxes, np.log(scores) + 3)[0] == pytest.approx(np.array(BOX), abs=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 0, 3, 1), (1, 3, 0, 2)])
def test_the_four_outputs_of_tflite_are_read_in_any_order(order: tuple[int, ...]) -> None:
    """TF2 converters put the scores first; boxes are y0, x0, y1, x1, what is beyond the count is not looked at."""
    boxes, kinds, scores = np.full((1, 10, 4), np.nan, np.float32), np.zeros((1, 10)), np.full((1, 10), 0.9)
    boxes[0, 0], kinds[0, 0], scores[0, 0] = [0.25, 0.3, 0.75, 0.6], 1, 0.8
    outputs = [np.asarray(one, np.float32) for one in (boxes, kinds, scores, np.array([1]))]
    assert found("ssd", *(outputs[place] for place in order)) == pytest.approx(
        np.array([[1, 0.8, 0.3, 0.25, 0.6, 0.75]]), abs=1e-6
    )


@pytest.mark.parametrize("first", [0, 1])
def test_a_list_of_one_input_is_read_with_its_labels(first: int) -> None:
    """Those of torchvision begin with the background, others with the first class."""
    boxes = np.array([[16, 8, 48, 24], [0, 0, 9, 9]], np.float32)
    labels, scores = np.array([1 + first, first]), np.array([0.8, 0.3], np.float32)
    made = found("ssd", boxes, scores, labels)
    assert made[0] == pytest.approx(np.array(BOX), abs=1e-6)
    assert made[1, 0] == 0
    assert not len(found("ssd", boxes[:0], scores[:0], labels[:0]))


def test_a_list_that_has_the_background_too_leaves_it_out() -> None:
    """RetinaNet of torchvision gives boxes of class 0, which it was never taught, beside those of 1 to C."""
    boxes = np.tile(np.array([[16, 8, 48, 24]], np.float32), (3, 1))
    scores, labels = np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 2, 3])
    assert found("ssd", boxes, scores, labels)[:, 0].tolist() == [1, 2]
    assert found("ssd", boxes[:2], scores[:2], labels[:2], background="first")[:, 0].tolist() == [1]


@pytest.mark.parametrize(("low", "said"), [(0.25, True), (0.06, False)])
def test_a_threshold_inside_the_file_is_said(low: float, said: bool) -> None:  # noqa: FBT001 - a case
    """Ultralytics' own is .25: the gates would judge half a curve. A full list may be cut by its length."""
    table = ended(30)
    table[0, :12, :4], table[0, :12, 4] = [16, 8, 48, 24], np.linspace(0.9, low, 12)
    assert any("no score is below" in line for line in settled("yolo", [table])[0].remarks) == said
    boxes, scores = table[0, :12, :4], table[0, :12, 4]
    lines = settled("ssd", [boxes, scores, np.ones(12, np.int64)])[0].remarks
    assert any("no score is below" in line for line in lines) == said
    full = np.tile(table[:, :1], (1, 60, 1))
    assert not any("no score is below" in line for line in settled("yolo", [full])[0].remarks)


def test_offsets_to_anchors_are_named() -> None:
    """The raw head of an SSD: about half of its numbers are negative."""
    boxes, scores = ssd_lists("first")
    offsets = np.random.default_rng(0).standard_normal(boxes.shape).astype(np.float32)
    with pytest.raises(DecoderError, match="unless these are offsets to anchors: then export with boxes decoded"):
        found("ssd", offsets, scores)


def test_outputs_that_are_no_boxes_with_scores_are_refused() -> None:
    """With what the decoder reads, and what there is."""
    with pytest.raises(DecoderError, match=r"scores \(N, D, 3\).*got o0 \(1, 10\)"):
        found("ssd", np.zeros((1, 10), np.float32))
    boxes, scores = ssd_lists()
    with pytest.raises(DecoderError, match=r"check .model. labels"):
        found("ssd", boxes, scores, shape=ModelShape(classes=7, width=64, height=32))


CASES: dict[str, list[tuple[list[np.ndarray], dict[str, object]]]] = {
    "yolo": [([v8()], {}), ([v5()], {}), ([ended()], {}), (grids(), {"anchors": ANCHORS})],
    "ssd": [(list(ssd_lists("first")), {}), ([ended()[0, :, :4], ended()[0, :, 4], ended()[0, :, 5]], {})],
}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", ["yolo", "ssd"])
def test_broken_numbers_never_crash_a_device(name: str, seed: int) -> None:
    """NaN and infinity give a row of NaN; sizes that are huge or negative give boxes inside the picture."""
    rng = np.random.default_rng(seed)
    for outputs, options in CASES[name]:
        reading, ordered = settled(name, outputs, SHAPE, **options)
        decoder = decoders.make(name, reading.options, SHAPE)
        broken = [np.array(one, np.float32) for one in ordered]
        for one in broken:
            spoilt = rng.random(one.shape) < rng.choice([0.01, 0.3, 1])
            one[spoilt] = rng.choice(
                [-1e38, 3e38, -5, 0, 1e9, *([np.nan, np.inf, -np.inf] if seed % 2 else [])], spoilt.sum()
            )
        rows = decoder.boxes(broken)
        assert rows.shape == (1, 600)
        assert np.isnan(rows).all() or (np.isfinite(rows).all() and (rows.reshape(-1, VALUES)[:, 1:] >= 0).all())
        assert np.isnan(rows).all() or (rows.reshape(-1, VALUES)[:, 1:] <= 1).all()


def test_of_a_hundred_thousand_sure_boxes_so_many_remain_as_are_asked_for() -> None:
    """Those with the largest scores; the work is that of the candidates, whatever the file gives."""
    rng = np.random.default_rng(1)
    made = [rng.uniform(0, 30, (4, 100_000)), rng.uniform(0.5, 1, (3, 100_000))]
    many = np.concatenate(made)[None].astype(np.float32)
    boxes = found("yolo", many, layout="scores", coordinates="pixels", most=500, overlap=1)
    assert len(boxes) == 500
    assert boxes[:, 1].min() >= np.sort(many[0, 4:].max(axis=0))[-501]
