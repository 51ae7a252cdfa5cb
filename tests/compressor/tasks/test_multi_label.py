"""Sets of labels: read from texts, boxes and numbers; loss, thresholds and evidence by value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor.data._table import Table, align, concatenate, make_table, make_value_table
from compressor.data.scenes import load as scenes
from compressor.errors import DataError, RecipeError, TrainError
from compressor.gates.evidence import GateRecipe, Verdict
from compressor.gates.kinds import gate
from compressor.measurement.predictions import Compared, Predictions
from compressor.recipe.model import DataRecipe, TrainRecipe
from compressor.recipe.read import parse_recipe
from compressor.tasks import named
from compressor.tasks.multi_label import evidence, report, targets, training
from edge_agent.tasks.multi_label import limits_of

DATA = DataRecipe(task="multi_label")
NAMES = ("a", "b", "c")


def table(*texts: str) -> Table:
    """Return a table with these labels."""
    images = [np.full((4, 4, 3), place, np.uint8) for place in range(len(texts))]
    return make_table(images, texts, slices=["all"] * len(texts))


def said(logits: np.ndarray, thresholds: tuple[float, ...] = ()) -> Predictions:
    """Return predictions with these logits."""
    return Predictions(logits.astype(np.float32), np.zeros((len(logits), 0), np.float32), thresholds=thresholds)


def drawn(rows: int, apart: float, seed: int = 0, *, worse: float = 0.0) -> Compared:
    """Return a set of three labels whose candidate has noise of ``worse`` beside the baseline's."""
    rng = np.random.default_rng(seed)
    labels = rng.random((rows, 3)) < np.array([0.5, 0.3, 0.2])
    before = apart * (2 * labels - 1) + rng.normal(size=labels.shape)
    after = said(before + worse * rng.normal(size=labels.shape))
    slices = np.full(rows, "all")
    return Compared(labels=labels, slices=slices, baseline=said(before), float_model=said(before), candidate=after)


def test_texts_are_parted_into_labels() -> None:
    """In any order, an empty one is a row without labels; the names are sorted."""
    read = targets.read(table("b|a", "", "a|b", "c"), DATA)
    assert read.class_names == NAMES
    assert read.labels.tolist() == [[True, True, False], [False] * 3, [True, True, False], [False, False, True]]
    assert list(read.label_texts()) == ["a\0b", "", "a\0b", "c"]
    assert targets.read(table("a;b", "c|d"), replace(DATA, separator=";")).class_names == ("a", "b", "c|d")


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (("a", "a||b"), r"between any two '\|', got 'a\|\|b' in row 1"),
        (("a", "a|"), r"got 'a\|' in row 1"),
        (("a | b", "c"), "without blanks around it in the labels 'a | b'"),
        (("", ""), "at least one label from 'digits', got none in 2 rows"),
        (("1", "0", "1"), r"such as 'red\|green', got only 0 and 1: join the names of the columns that are 1"),
        (("1", ""), "got only 1: join"),
    ],
)
def test_texts_that_are_no_labels_are_named(texts: tuple[str, ...], told: str) -> None:
    """With the row or the text."""
    with pytest.raises(DataError, match=told):
        targets.read(table(*texts), DATA)


def test_numbers_and_boxes_become_labels() -> None:
    """Of numbers only 0 and 1; of boxes the classes that have one."""
    images = [np.full((4, 4, 3), place, np.uint8) for place in range(2)]
    read = targets.read(make_value_table(images, [(0, 1), (1, 1)], ("x", "y"), slices=["all"] * 2), DATA)
    assert read.labels.tolist() == [[False, True], [True, True]]
    with pytest.raises(DataError, match=r"Expected 0 or 1 in the column 'y'.*got 0.5 in row 1"):
        targets.read(make_value_table(images, [(0, 1), (1, 0.5)], ("x", "y"), slices=["all"] * 2), DATA)
    boxed = scenes(DATA)
    labels = targets.read(boxed, DATA).labels
    for row in (0, 1, 700):
        there = boxed.labels[row][boxed.labels[row][:, 0] >= 0][:, 0]
        assert np.flatnonzero(labels[row]).tolist() == sorted(set(there.astype(int).tolist()))


def test_labels_take_the_order_of_other_names_and_may_lack_some() -> None:
    """Of a model's outputs: a label that no row has is a column of nothing; an unknown one is an error."""
    read = targets.read(table("b|a", "b", ""), DATA)
    moved = align(read, ("z", "b", "a"))
    assert moved.labels.tolist() == [[False, True, True], [False, True, False], [False] * 3]
    assert concatenate(moved, read).labels[3:].tolist() == moved.labels.tolist()
    with pytest.raises(DataError, match="got a, b"):
        align(read, ("a", "c"))


def test_rows_are_shown_under_their_set_or_their_rarest_label() -> None:
    """For exploration, which counts classes."""
    shown, note = targets.grouped(targets.read(table("b|a", "", "c"), DATA))
    assert [shown.class_names[label] for label in shown.labels] == ["a+b", "no label", "c"]
    assert "3 labels" in note
    many = targets.read(table(*(f"all|{number}" for number in range(30)), ""), DATA)
    shown, _ = targets.grouped(many)
    assert [shown.class_names[label] for label in shown.labels[[7, 30]]] == ["7", "no label"]


def test_the_loss_is_the_cross_entropy_of_each_label_and_weighs_rare_ones() -> None:
    """Against the formula; weights are the rows without over the rows with a label, at most 20."""
    y = torch.tensor([[True, False], [False, False], [True, False], [True, True]])
    x = torch.tensor([[2.0, -1.0], [0.5, 0.0], [-1.0, 3.0], [0.0, 0.0]])
    p, wanted = torch.sigmoid(x), y.float()
    plain = -(wanted * p.log() + (1 - wanted) * (1 - p).log())
    loss = training.loss(TrainRecipe(label_smoothing=0.0), y, 2)
    assert float(loss(x, (x, x), y)) == pytest.approx(float(plain.mean()))
    assert float(training.loss_sum(x, y)) == pytest.approx(float(plain.mean(dim=1).sum()))
    assert training.rare_weights(y).tolist() == [1.0, 3.0]
    assert training.rare_weights(torch.eye(50) > 0)[0] == training.MAX_WEIGHT
    weighed = training.loss(TrainRecipe(class_weights="balanced", label_smoothing=0.0), y, 2)
    heavy = -(torch.tensor([1.0, 3.0]) * wanted * p.log() + (1 - wanted) * (1 - p).log())
    assert float(weighed(x, (x, x), y)) == pytest.approx(float(heavy.mean()))
    soft = -(0.9 * p.log() + 0.1 * (1 - p).log()) * wanted - (0.1 * p.log() + 0.9 * (1 - p).log()) * (1 - wanted)
    smooth = training.loss(TrainRecipe(label_smoothing=0.2), y, 2)
    assert float(smooth(x, (x, x), y)) == pytest.approx(float(soft.mean()))
    assert float(loss.towards(x, x, 2.0, 1.0)) == pytest.approx(0, abs=1e-7)
    assert float(loss.towards(x, x + 1, 2.0, 1.0)) > 0


def test_the_score_is_each_rows_f1() -> None:
    """A row that rightly has no label counts 1, one that wrongly has none 0."""
    y = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    outputs = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0], [1.0, -1.0]])
    assert training.goodness(outputs, y) == pytest.approx(2 / 3 + 1)
    assert evidence.score(said(outputs.numpy()), y.numpy()) == pytest.approx((2 / 3 + 1) / 4)


def test_labels_that_can_not_be_learnt_are_refused() -> None:
    """Another number than the network has, numbers, and rows that are all alike."""
    with pytest.raises(TrainError, match=r"labels as bool \(N, 3\).*got bool \(2, 2\)"):
        training.check(np.zeros((2, 2), bool), 3, "training")
    with pytest.raises(TrainError, match="got float32"):
        training.check(np.zeros((2, 3), np.float32), 3, "training")
    with pytest.raises(TrainError, match="got the same 1 in all 4 rows"):
        training.check_learnable(torch.tensor([[True, False]] * 4))
    training.check_learnable(torch.tensor([[True, False], [False, False]]))


def test_a_threshold_lies_between_the_scores_of_the_highest_f1() -> None:
    """Of a label with few rows it is that of all together; each is a float32 between .02 and .98."""
    labels = np.zeros((40, 2), bool)
    labels[:15, 0] = True
    labels[:3, 1] = True
    logits = np.where(labels, 1.0, -2.0)
    first, second = evidence.thresholds(logits.astype(np.float32), labels)
    between = 1 / (1 + np.exp(-np.array([1.0, -2.0])))
    assert first == pytest.approx(between.mean(), abs=1e-3)
    assert second == first
    shifted = np.where(labels, -3.0, -5.0)
    assert evidence.thresholds(shifted.astype(np.float32), labels)[0] < 0.05
    sure = np.where(labels, 9.0, 8.0)
    assert evidence.thresholds(sure.astype(np.float32), labels)[0] == pytest.approx(0.98)
    assert evidence.thresholds(logits.astype(np.float32), np.zeros_like(labels)) == (0.5, 0.5)


def test_answers_are_taken_at_each_models_thresholds() -> None:
    """Equal to the threshold is in the answer."""
    logits = np.array([[0.0, 0.0], [1.0, -1.0]])
    assert evidence.sets_of(said(logits)).tolist() == [[True, True], [True, False]]
    assert evidence.sets_of(said(logits, (0.6, 0.2))).tolist() == [[False, True], [True, True]]
    assert limits_of((0.25,), 1)[0] == pytest.approx(np.log(1 / 3))
    differs = evidence.differs(said(logits), said(logits, (0.6, 0.2)), 0.0)
    assert differs.tolist() == [True, True]


def test_figures_by_value() -> None:
    """MAP against scikit-learn's, F1 over all labels, exact sets, and the gain over one set for everything."""
    from sklearn import metrics  # noqa: PLC0415

    gate_set = drawn(200, 1.0)
    found = evidence.figures(gate_set)
    sets = evidence.sets_of(gate_set.candidate)
    assert found["map"] == pytest.approx(metrics.average_precision_score(gate_set.labels, gate_set.candidate.logits))
    assert found["f1"] == pytest.approx(metrics.f1_score(gate_set.labels, sets, average="micro"))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(gate_set.labels, sets, average="macro"))
    assert found["exact_ratio"] == pytest.approx(metrics.accuracy_score(gate_set.labels, sets))
    best = max(
        metrics.f1_score(gate_set.labels, np.tile(one, (200, 1)), average="micro")
        for one in (np.array(list(f"{number:03b}")) == "1" for number in range(1, 8))
    )
    assert found["constant_gain"] == pytest.approx(found["f1"] - best)


def test_a_candidate_that_lost_a_label_fails_and_an_equal_one_passes() -> None:
    """The gate on each label's recall names it; the drops of mAP and F1 are 0 for an equal one."""
    same = drawn(400, 2.0)
    logits = same.candidate.logits.copy()
    logits[:, 2] = -9
    lost = replace(same, candidate=said(logits))
    for gate_set, verdict in ((same, Verdict.PASS), (lost, Verdict.FAIL)):
        rules = [GateRecipe(name=name, max=0.05) for name in ("label_map_drop", "label_f1_drop", "worst_class_drop")]
        found = evidence.evidence(gate_set, NAMES, evidence.figures(gate_set), None, rules)
        judged = [gate(rule).judge(found) for rule in rules]  # type: ignore[union-attr]
        assert [one.verdict for one in judged] == [verdict] * 3
    assert "class 'c'" in judged[2].text
    assert found.figures["recall c"] == 0
    assert found.flips == int((evidence.sets_of(same.candidate) != evidence.sets_of(lost.candidate)).any(axis=1).sum())


def test_rows_of_one_source_count_once() -> None:
    """Ten copies of each row give the bound of one."""
    alone = drawn(80, 1.5, worse=0.5)
    rows = np.repeat(np.arange(80), 10)
    copied = Compared(
        labels=alone.labels[rows], slices=alone.slices[rows], sources=rows.astype(str),
        **{name: said(getattr(alone, name).logits[rows]) for name in ("baseline", "float_model", "candidate")},
    )  # fmt: skip
    for name in ("label_map_drop", "label_f1_drop"):
        one, ten = (evidence.metrics(which, ())[name] for which in (alone, copied))
        assert (one.n, one.drop) == (ten.n, pytest.approx(ten.drop))
        assert one.upper == pytest.approx(ten.upper)


def test_no_row_with_a_label_leaves_the_gates_unknown() -> None:
    """They fail with the reason; the other figures stay."""
    gate_set = drawn(30, 1.0)
    gate_set = replace(gate_set, labels=np.zeros_like(gate_set.labels))
    found = evidence.evidence(gate_set, NAMES, {}, None, ())
    assert "got none in 30" in found.unknown["label_f1_drop"]


def test_golden_rows_are_of_all_sets_and_far_from_thresholds() -> None:
    """So that rounding changes no set."""
    gate_set = drawn(300, 1.5)
    rows = evidence.golden_rows(gate_set.labels, gate_set.candidate, 8)
    sets = evidence.sets_of(gate_set.candidate)
    assert len(np.unique(sets[rows], axis=0)) == len(rows) == 8
    assert np.abs(gate_set.candidate.logits[rows]).min() > np.median(np.abs(gate_set.candidate.logits).min(axis=1))


def test_parity_counts_changed_sets() -> None:
    """Not changed largest logits."""
    forms = {"one": np.array([[1.0, 2.0], [1.0, -1.0]]), "two": np.array([[2.0, 1.0], [1.0, 0.5]])}
    (pair,) = evidence.parity({name: value.astype(np.float32) for name, value in forms.items()})
    assert (pair.flip_ratio, pair.max_abs) == (0.5, 1.5)


@pytest.mark.parametrize(
    ("low", "high", "meaning"), [(0.0, 1.0, "sigmoid"), (-0.1, 1.0, ""), (0.0, 1.2, ""), (0.3, 0.3, "")]
)
def test_outputs_of_0_to_1_are_those_of_a_sigmoid(low: float, high: float, meaning: str) -> None:
    """Whether they sum to 1 or not; a file that gives one number always is none."""
    assert evidence.meaning(np.array([[low, high], [high, low]], np.float32), 1e-3) == meaning


def test_the_report_has_a_line_for_each_label() -> None:
    """Compressed beside float."""
    cells = report.answers(drawn(60, 1.0), NAMES).figure.data[0].cells.values
    assert list(cells[0]) == list(NAMES)
    assert len(cells) == len(report._HEADS)
    assert report.bar("float", drawn(60, 1.0).float_model, drawn(60, 1.0).labels).bounds[0] < 1


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('[data]\nseparator = ";"', r"Expected \[data\] separator in a recipe of several labels"),
        ('[data]\ntask = "multi_label"\n[train]\nmixup = 0.2', r"Expected \[train\] mixup in a recipe with one answer"),
        ('[data]\ntask = "multi_label"\n[gates]\naccuracy = {min = 0.9}', "use .*label_f1_drop"),
        ('[data]\ntask = "multi_label"\nlabel = "number"', "which is of regression"),
    ],
)
def test_a_recipe_of_several_labels_has_its_own_keys_and_gates(lines: str, told: str) -> None:
    """Others are refused by name."""
    with pytest.raises(RecipeError, match=told):
        parse_recipe(f'[model]\nname = "m"\n{lines}\n'.encode())
    assert named("multi_label").several
