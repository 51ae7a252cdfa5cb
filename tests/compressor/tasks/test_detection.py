"""Detection: the loss's targets decode to the boxes, pictures move with their boxes, evidence and parity by value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor.errors import DataError, MeasureError, TrainError
from compressor.gates.evidence import GateRecipe, Verdict
from compressor.gates.kinds import gate
from compressor.measurement.predictions import Compared, Predictions
from compressor.recipe.model import DataRecipe, TrainRecipe
from compressor.tasks import named
from compressor.tasks.classification import targets as of_classes
from compressor.tasks.detection import evidence, targets, training
from compressor.tasks.regression import targets as of_numbers
from compressor.train.augmentation import Drawn, draw
from edge_agent import decoders
from edge_agent.tasks.detection import Detection
from tests.compressor.data.test_boxes import ONE, TWO, boxed
from tests.compressor.test_detections import made

HEIGHT, WIDTH = 64, 96
BOXES = torch.tensor(
    [
        [[0, 0.1, 0.2, 0.4, 0.6], [1, 0.5, 0.5, 0.95, 0.9]],
        [[1, 0.0, 0.0, 0.15, 0.2], [-1, 0, 0, 0, 0]],
        [[-1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]],
    ]
)


def ideal(boxes: torch.Tensor) -> torch.Tensor:
    """Return the grid of 8 x 12 cells that a perfect network would output."""
    heat, _, wanted = training._targets(boxes, 2, HEIGHT // 8, WIDTH // 8)
    return torch.cat([torch.logit(heat.clamp(1e-4, 1 - 1e-4)), wanted], dim=1)


def test_a_perfect_grid_decodes_to_the_boxes() -> None:
    """The loss and the device's decoder mean the same; a picture without boxes has none."""
    decoder = decoders.make("centres", {"least": 0.5}, decoders.ModelShape(classes=2, width=WIDTH, height=HEIGHT))
    found = decoder.boxes([ideal(BOXES).numpy()]).reshape(3, -1, 6)
    for picture, true in zip(found, BOXES.numpy(), strict=True):
        kept = picture[picture[:, 0] >= 0]
        kept = kept[np.argsort(kept[:, 0])]
        assert kept[:, [0, 2, 3, 4, 5]] == pytest.approx(true[true[:, 0] >= 0], abs=1e-4)


def test_a_perfect_grid_has_hardly_a_loss_and_the_full_score() -> None:
    """And any other grid has a larger one."""
    grid = ideal(BOXES)
    assert float(training.rows_loss(grid, BOXES).max()) < 0.06  # what is left: neighbours at less than 1
    assert training.goodness(grid, BOXES) == 3
    worse = grid.clone()
    worse[:, 2:] += 1
    assert (training.rows_loss(worse, BOXES)[:2] > training.rows_loss(grid, BOXES)[:2] + 0.5).all()
    assert training.goodness(torch.full_like(grid, -9), BOXES) == 1  # the picture without boxes


def test_the_loss_of_a_batch_is_the_mean_of_its_rows() -> None:
    """And the sum is that of the rows: processes that share a batch rely on it."""
    torch.manual_seed(0)
    grid = torch.randn(3, 6, HEIGHT // 8, WIDTH // 8)
    rows = training.rows_loss(grid, BOXES)
    assert torch.isfinite(rows).all()
    assert float(training.loss_sum(grid, BOXES)) == pytest.approx(float(rows.sum()))
    whole = training.loss(TrainRecipe(), BOXES, 6)(torch.zeros(3), (grid, torch.zeros(3, 1)), BOXES)
    assert float(whole) == pytest.approx(float(rows.mean()))


def test_labels_of_a_class_that_the_network_lacks_are_refused() -> None:
    """The row is named; so is data without a box."""
    training.check(BOXES.numpy(), 6, "training")
    with pytest.raises(TrainError, match="class 0 to 0, got 1 in row 0"):
        training.check(BOXES.numpy(), 5, "training")
    with pytest.raises(TrainError, match="with boxes, got none"):
        training.check_learnable(BOXES[2:])


def drawn(rows: int, seed: int) -> Drawn:
    """Return the draws of geometry at strength 1, without light and noise."""
    made = draw((rows, 1, HEIGHT, WIDTH), 1.0, torch.Generator().manual_seed(seed))
    assert made is not None
    return replace(made, light=(0 * made.light[0], 0 * made.light[1]), noise=0 * made.noise)


@pytest.mark.parametrize("flips", ["none", "horizontal", "both"])
def test_boxes_move_with_their_pictures(flips: str) -> None:
    """A bright rectangle stays in its box, whatever is cut, added and mirrored."""
    rows, edges = 24, torch.tensor([0.375, 0.5, 0.625, 0.75])
    x = torch.zeros(rows, 1, HEIGHT, WIDTH)
    x[:, :, HEIGHT // 2 : 3 * HEIGHT // 4, 3 * WIDTH // 8 : 5 * WIDTH // 8] = 1
    y = torch.cat([torch.zeros(1), edges]).expand(rows, 1, 5)
    moved, boxes = training.augmented(x, y, drawn(rows, 3), flips)
    kept = boxes[:, 0, 0] >= 0
    assert kept.sum() > rows / 2
    for image, box in zip(moved[kept, 0], boxes[kept, 0], strict=True):
        there = torch.nonzero(image > 0.5)
        low, high = there.amin(dim=0), there.amax(dim=0) + 1
        found = torch.tensor([low[1] / WIDTH, low[0] / HEIGHT, high[1] / WIDTH, high[0] / HEIGHT])
        assert torch.allclose(found, box[1:], atol=0.02), (found, box)


def test_flips_mirror_half_of_the_pictures_and_none_where_they_are_off() -> None:
    """A box at the left is found at the right."""
    y = torch.tensor([[[0, 0.3, 0.3, 0.4, 0.4]]]).repeat(200, 1, 1)
    x = torch.zeros(200, 1, HEIGHT, WIDTH)
    right = {flips: training.augmented(x, y, drawn(200, 4), flips)[1][:, 0, 1] > 0.55 for flips in ("none", "both")}
    assert right["none"].sum() < 0.15 * 200 < 0.35 * 200 < right["both"].sum()


def test_a_box_of_which_little_is_left_goes() -> None:
    """A third and a bit must remain of its area."""
    y = torch.tensor([[[0, 0.0, 0.0, 0.2, 1.0]], [[0, 0.0, 0.0, 0.3, 1.0]]])
    window = (torch.tensor([[0.3, 0.0]] * 2), torch.tensor([[0.7, 1.0]] * 2))  # begins at .3 of the width
    assert training._moved(y, *window)[:, 0, 0].tolist() == [-1, -1]
    window = (torch.tensor([[0.2, 0.0]] * 2), torch.tensor([[0.8, 1.0]] * 2))  # at .2
    assert training._moved(y, *window)[:, 0, 0].tolist() == [-1, -1]
    window = (torch.tensor([[0.18, 0.0]] * 2), torch.tensor([[0.82, 1.0]] * 2))  # at .18: 40 % of the second is left
    assert training._moved(y, *window)[:, 0, 0].tolist() == [-1, 0]


def predictions(found: np.ndarray, fitted: float = 0.5) -> Predictions:
    """Return detections as a decoder gives them."""
    return Predictions(found.reshape(len(found), -1), np.zeros((len(found), 0), np.float32), fitted)


def compared(pictures: int, worse: float, seed: int = 20) -> Compared:
    """Return two models on as many pictures; the candidate loses the share ``worse`` of its boxes."""
    found, boxes = made(seed, pictures, noise=0.004)
    rng = np.random.default_rng(seed)
    lost = found.copy()
    lost[rng.random(found.shape[:2]) < worse] = [-1, 0, 0, 0, 0, 0]
    before, after = predictions(found), predictions(lost)
    slices = np.array(["left", "right"])[np.arange(pictures) % 2]
    return Compared(labels=boxes, slices=slices, baseline=before, float_model=before, candidate=after)


RULES = [
    GateRecipe(name=name, max=0.02)
    for name in ("detection_map_drop", "detection_f1_drop", "worst_slice_map_drop", "worst_class_map_drop")
]


def verdicts(gate_set: Compared) -> dict[str, Verdict]:
    """Return the verdict of every gate on boxes."""
    found = evidence.evidence(gate_set, ("a", "b", "c"), evidence.figures(gate_set), None, RULES)
    judged = {rule.name: gate(rule) for rule in RULES}
    return {name: one.judge(found).verdict for name, one in judged.items() if one is not None}


def test_an_equal_model_passes_every_gate() -> None:
    """Its drop and its bound are 0."""
    assert set(verdicts(compared(120, 0.0)).values()) == {Verdict.PASS}


def test_a_model_that_loses_boxes_fails_every_gate() -> None:
    """A quarter of them: both drops, the worst slice and the worst class."""
    assert set(verdicts(compared(200, 0.25)).values()) == {Verdict.FAIL}


def test_fewer_than_fifty_pictures_are_inconclusive() -> None:
    """Even for an equal model: the bound is not to be trusted."""
    assert verdicts(compared(49, 0.0))["detection_map_drop"] is Verdict.INCONCLUSIVE
    assert verdicts(compared(50, 0.0))["detection_map_drop"] is Verdict.PASS


def test_frames_of_one_scene_are_one_picture_for_the_gates() -> None:
    """120 frames of 40 scenes are too few."""
    scenes = replace(compared(120, 0.0), sources=np.repeat(np.arange(40), 3).astype(str))
    assert verdicts(scenes)["detection_map_drop"] is Verdict.INCONCLUSIVE


def test_figures_name_all_models_and_the_gain_over_no_boxes() -> None:
    """Each at its own threshold."""
    gate_set = compared(60, 0.3)
    found = evidence.figures(gate_set)
    assert found["map"] < found["float_map"] == found["baseline_map"]
    assert found["constant_gain"] == found["f1"] < found["float_f1"]
    other = replace(gate_set, candidate=replace(gate_set.candidate, fitted=0.9))
    assert evidence.figures(other)["f1"] != found["f1"]


def test_a_gate_set_without_boxes_is_said_and_judged_by_nobody() -> None:
    """Its gates fail with the reason."""
    gate_set = compared(60, 0.0)
    empty = replace(gate_set, labels=np.where(np.arange(5) == 0, -1, 0 * gate_set.labels).astype(np.float32))
    found = evidence.evidence(empty, ("a", "b", "c"), evidence.figures(empty), None, RULES)
    assert "with boxes to judge" in found.unknown["detection_map_drop"]
    assert set(verdicts(empty).values()) == {Verdict.FAIL}


def test_pictures_that_lack_an_answered_box_differ() -> None:
    """One that moved a little, or fell just below the threshold, is the same answer."""
    one = np.zeros((1, 2, 6), np.float32)
    one[0] = [[0, 0.9, 0.1, 0.1, 0.5, 0.5], [-1, 0, 0, 0, 0, 0]]
    for change, differs in (([0, 0.9, 0.1, 0.1, 0.5, 0.48], False), ([0, 0.46, 0.1, 0.1, 0.5, 0.5], False),
                            ([0, 0.4, 0.1, 0.1, 0.5, 0.5], True), ([1, 0.9, 0.1, 0.1, 0.5, 0.5], True),
                            ([0, 0.9, 0.5, 0.5, 0.9, 0.9], True)):  # fmt: skip
        other = one.copy()
        other[0, 0] = change
        assert evidence.differs(predictions(one), predictions(other), 0.0).tolist() == [differs], change
        assert evidence.differs(predictions(other), predictions(one), 0.0).tolist() == [differs], change


def test_parity_of_equal_forms_is_perfect_and_a_lost_box_counts_whole() -> None:
    """Scores of counterparts; a box without one has 0 there."""
    found, _ = made(21, 10, noise=0.01)
    (same,) = evidence.parity({"torch": found.reshape(10, -1), "onnx": found.reshape(10, -1)})
    assert (same.max_abs, same.flip_ratio) == (0, 0)
    assert same.cosine == pytest.approx(1)
    none = np.full_like(found, -1)
    none[..., 1:] = 0
    (lost,) = evidence.parity({"torch": found.reshape(10, -1), "onnx": none.reshape(10, -1)})
    assert lost.max_abs == pytest.approx(float(found[..., 1].max()))
    assert (lost.cosine, lost.flip_ratio > 0.5) == (0, True)
    with pytest.raises(MeasureError, match="one shape"):
        evidence.parity({"torch": found.reshape(10, -1), "onnx": found[:, :5].reshape(10, -1)})


def test_the_threshold_is_what_a_device_answers_by() -> None:
    """Fitted on calibration rows, it travels as the reference's number."""
    found, boxes = made(22, 40, noise=0.004)
    threshold = evidence.temperature(found.reshape(40, -1), boxes)
    task = Detection()
    for picture in found:
        ordered = picture[np.argsort(-picture[:, 1], kind="stable")].ravel()
        values = task.values(ordered, threshold)
        said = task.answer(ordered.tolist(), values, ("a", "b", "c"))
        assert (
            len(said.boxes) == sum(said.values.values()) == values[0] == (picture[:, 1] >= np.float32(threshold)).sum()
        )


def test_golden_rows_go_from_few_boxes_to_many() -> None:
    """Also with fewer pictures than asked for."""
    found, boxes = made(23, 30)
    rows = evidence.golden_rows(boxes, predictions(found), 5)
    assert len(rows) == 5
    assert len(evidence.golden_rows(boxes[:3], predictions(found[:3]), 5)) == 3


@pytest.mark.parametrize(
    ("read", "said"), [(of_classes.read, "set task = 'detection'"), (of_numbers.read, "set task = 'detection'")]
)
def test_other_tasks_refuse_boxes_with_what_to_do(read: object, said: str) -> None:
    """A recipe that forgot the task."""
    with pytest.raises(DataError, match=said):
        read(boxed(ONE), DataRecipe(dataset="boxes"))  # type: ignore[operator]


def test_classes_and_empty_pictures_are_no_boxes() -> None:
    """Data without any box can't be learnt."""
    with pytest.raises(DataError, match="got none in 2 pictures"):
        targets.read(boxed([], []), DataRecipe(dataset="boxes"))
    with pytest.raises(DataError, match="one label for each picture"):
        targets.read(replace(boxed(ONE), labels=np.zeros(1, np.int64)), DataRecipe(dataset="idx"))


def test_exploration_shows_pictures_under_the_class_of_most_boxes() -> None:
    """And says so; one without boxes is a group of its own."""
    table, note = targets.grouped(boxed(TWO, ONE, []))
    assert [table.class_names[label] for label in table.labels] == ["a", "a", "no boxes"]
    assert note.startswith("3 boxes")


def test_few_calibration_pictures_are_topped_up_from_train() -> None:
    """Ranges of a handful are too narrow."""
    few, train = boxed(*[ONE] * 3), boxed(*[TWO] * 100)
    assert [len(one) for one in targets.calibration(few, train)] == [3, 61]
    assert [len(one) for one in targets.calibration(boxed(*[ONE] * 64), train)] == [64]
    with pytest.raises(DataError, match="with boxes, got none in 2"):
        targets.check_calibration([boxed([], [])])


def test_ranges_of_few_pictures_are_remarked() -> None:
    """At 63, not at 64."""
    assert "come from 63 pictures of 64 wanted" in targets.few([boxed(*[ONE] * 3), boxed(*[ONE] * 60)])
    assert targets.few([boxed(*[ONE] * 4), boxed(*[ONE] * 60)]) == ""


def test_the_task_names_its_decoder() -> None:
    """Which the device has."""
    assert named("detection").decoder in decoders.names()


def pictures(order: tuple[int, ...], count: int, seed: int) -> tuple[Predictions, np.ndarray]:
    """Return what a detector says of ``count`` pictures, each with a box of each class, and the truth.

    Class c is said to be ``order[c]``; every tenth box has a surer one of another class elsewhere.
    """
    rng = np.random.default_rng(seed)
    truth, said = np.zeros((count, len(order), 5), np.float32), np.zeros((count, len(order) + 2, 6), np.float32)
    said[:, :, 0] = -1
    for picture in range(count):
        for kind, other in enumerate(order):
            corner = np.array([0.3 * kind, rng.uniform(0, 0.5)], np.float32)
            truth[picture, kind] = (kind, *corner, *(corner + 0.2))
            said[picture, kind] = (other, rng.uniform(0.5, 0.9), *corner, *(corner + 0.19))
        if picture % 10 == 0:
            said[picture, len(order)] = (0, 0.95, 0.0, 0.9, 0.05, 1.0)
    outputs = said.reshape(count, -1)
    return Predictions(outputs, np.zeros((count, 0), np.float32)), truth


@pytest.mark.parametrize(
    ("order", "count", "named"),
    [
        ((0, 1, 2), 40, ""),
        ((0, 2, 1), 40, "'b' is 'c', 'c' is 'b'"),
        ((2, 0, 1), 40, "'a' is 'b', 'b' is 'c', 'c' is 'a'"),
        ((2, 0, 1), 6, ""),  # 18 boxes of calibration
    ],
)
def test_labels_in_another_order_are_named(order: tuple[int, ...], count: int, named: str) -> None:
    """Boxes in the right places with classes that are exchanged; too few boxes tell nothing."""
    found = evidence.order(pictures(order, count, 1), pictures(order, 30, 2), ("a", "b", "c"))
    assert (found.named, found.figures) == (named, {})
    assert bool(found.remark) == bool(named)
    if named:
        share = "33.33 %" if order[0] == 0 else "0.00 %"
        assert found.remark.startswith(f"Of 90 boxes that were found, 100.00 % instead of {share} have the right class")
        assert found.remark.endswith(f"({named}): set [model] labels in the order of the outputs.")


def test_no_box_or_no_detection_is_no_order() -> None:
    """Nothing overlaps: nothing is sought."""
    said, truth = pictures((1, 0, 2), 30, 3)
    nothing = replace(said, logits=np.full_like(said.logits, -1))
    assert evidence.order((nothing, truth), (nothing, truth), ("a", "b", "c")).remark == ""
    assert evidence.order((said, np.full_like(truth, -1)), (said, truth), ("a", "b", "c")).remark == ""
