"""Anomalies: rows that teach and rows that judge, losses on the input, figures, evidence and gates by value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor import tasks
from compressor.data._split import split
from compressor.data._table import Table, make_table
from compressor.errors import DataError, RecipeError, TrainError
from compressor.gates.evidence import Evidence, GateRecipe, GateResult, Verdict
from compressor.gates.kinds import gate
from compressor.measurement.predictions import Compared, Predictions
from compressor.recipe.model import AlarmRecipe, DataRecipe, TrainRecipe
from compressor.recipe.read import recipe_of
from compressor.tasks.anomaly import evidence, report, targets, training

DATA = DataRecipe(dataset="mine", task="anomaly", normal=("a", "b"))


def table(labels: str, sources: str = "") -> Table:
    """Return a row for each letter of ``labels``, a source for each letter of ``sources``."""
    images = [np.full((8, 8, 3), row, np.uint8) for row in range(len(labels))]
    return make_table(images, list(labels), slices=["s"] * len(labels), sources=list(sources))


def read(labels: str, sources: str = "") -> Table:
    """Return such a table as a task of anomalies reads it."""
    return replace(targets.read(table(labels, sources), DATA), task="anomaly")


def test_labels_that_are_not_normal_are_anomalies_of_the_gate_split() -> None:
    """With the whole source, so that nothing of it is learnt; all rows of a source are judged."""
    found = read("abc" + "ab" * 40, "xyz" + "".join(chr(200 + place) for place in range(39)) + "zz" + 39 * "w")
    assert found.class_names == ("normal", "anomaly")
    assert found.labels[:4].tolist() == [0, 0, 1, 0]
    parts = split(found, 0)
    assert 2 in parts.gate
    of_anomaly = np.flatnonzero(found.sources == found.sources[2])
    assert len(of_anomaly) == 3
    assert set(of_anomaly) <= set(parts.gate)
    for name in ("train", "calibration", "reference"):
        assert not found.labels[getattr(parts, name)].any()
    assert found.kinds is not None
    assert found.kinds[:4].tolist() == list("abca")  # what a classifier of normal rows may learn


def test_labels_that_nothing_has_are_refused() -> None:
    """By name, with the nearest; so are rows without a normal one, and numbers."""
    with pytest.raises(DataError, match=r"normal labels of a, c, got 'b'"):
        targets.read(table("ac"), DATA)
    with pytest.raises(DataError, match="got none: set"):
        targets.read(table("ac"), replace(DATA, normal=()))
    with pytest.raises(DataError, match="got numbers or boxes"):
        targets.read(replace(table("ab"), labels=np.zeros((2, 1), np.float32)), DATA)


RECIPE = {"model": {"name": "m", "network": "auto_encoder"}, "data": {"task": "anomaly", "normal": ["1"]}}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"alarm": {"interval_s": 5.0}}, r"\[alarm\] interval_s in a recipe of anomalies"),
        ({"data": {"normal": ["1"]}}, r"\[data\] normal in a recipe of anomalies"),
        ({"gates": {"auc": {"min": 0.5}}}, "that is for one of anomalies"),
        ({**RECIPE, "alarm": {"false_alarms_per_day": 0.0}}, "false_alarms_per_day"),
        ({**RECIPE, "train": {"mixup": 0.2}}, "mixup"),
        ({**RECIPE, "model": {"name": "m", "tflite": "a.tflite"}}, "for anomalies give an ONNX file"),
        ({**RECIPE, "gates": {"accuracy_drop": {"max": 0.1}}}, "auc"),
    ],
)
def test_settings_of_another_task_are_refused(table: dict[str, object], said: str) -> None:
    """Nothing would read them."""
    with pytest.raises(RecipeError, match=said):
        recipe_of({"model": {"name": "m"}, **table})
    assert recipe_of(RECIPE).alarm == AlarmRecipe()


def test_outputs_are_judged_against_the_input() -> None:
    """A perfect picture has no loss; a forecast is compared with the last rows alone."""
    x = torch.arange(24.0).reshape(2, 1, 4, 3)
    whole, last = x.flatten(1), x[:, :, 2:].flatten(1)
    task = tasks.named("anomaly")
    y = torch.zeros(2, dtype=torch.int64)
    for perfect in (whole, last):
        assert torch.equal(tasks.aims(task, x, y, perfect), perfect)
        loss = training.loss(TrainRecipe(), y, perfect.shape[1])
        assert float(loss(x, (perfect, torch.zeros(2, 1)), y)) == 0
        assert float(loss(x, (perfect + 2, torch.zeros(2, 1)), y)) == 4
        assert training.goodness(perfect + 2, perfect) == -4
        assert float(training.loss_sum(perfect + 2, perfect)) == 8
    assert torch.equal(tasks.aims(tasks.named("classification"), x, y, whole), y)


def test_an_anomalous_row_is_not_learnt() -> None:
    """The row is named."""
    training.check(np.zeros(3, np.int64), 9, "training")
    with pytest.raises(TrainError, match="got 1 anomalous ones, the first is row 2"):
        training.check(np.array([0, 0, 1]), 9, "training")


def said(*scores: float, fitted: float = 0.5) -> Predictions:
    """Return predictions with these scores."""
    logits = np.array(scores, np.float32)[:, None]
    return Predictions(logits, np.zeros((len(scores), 0), np.float32), fitted)


def compared(labels: str, candidate: Predictions, sources: str = "", before: Predictions | None = None) -> Compared:
    """Return a set of rows an hour apart, ``n`` or ``a``."""
    before = before or candidate
    return Compared(
        labels=np.array([letter == "a" for letter in labels]).astype(np.int64), slices=np.array(["s"] * len(labels)),
        baseline=before, float_model=before, candidate=candidate, interval_s=3600.0,
        sources=np.array(list(sources)) if sources else None,
    )  # fmt: skip


def test_figures_by_value() -> None:
    """Of four normal rows, two alarms that follow each other are one event; half of the anomalies are found."""
    gate_set = compared("nnnnaa", said(0.6, 0.7, 0.1, 0.2, 0.9, 0.15), "xxxxyz")
    found = evidence.figures(gate_set)
    assert (found["false_alarms"], found["normal_days"], found["false_alarms_per_day"]) == (1, 4 / 24, 6)
    assert (found["detected"], found["anomalies_gate"], found["threshold"]) == (0.5, 2, 0.5)
    assert found["auc"] == 0.5  # of x only the first row counts: .9 above .6, .15 below
    assert found["constant_gain"] == 0
    assert evidence.area(np.array([0.1, 0.2, 0.2, 0.3]), np.array([0, 0, 1, 1])) == pytest.approx(3.5 / 4)


def test_without_anomalies_only_false_alarms_are_known() -> None:
    """The gates that need some say what is missing; the report still has its pictures."""
    gate_set = compared("nnn", said(0.6, 0.7, 0.1))
    found = evidence.figures(gate_set)
    assert {"auc", "detected", "constant_gain"}.isdisjoint(found)
    unknown = evidence.evidence(gate_set, targets.NAMES, found).unknown
    assert "labelled anomalies" in unknown["better_than_constant"]
    assert report.bar("float", gate_set.candidate, gate_set.labels).value == 0
    assert [one.name for one in report.answers(gate_set, targets.NAMES).figure.data] == ["normal (3 rows)"]


def test_scores_below_0_are_drawn_as_well() -> None:
    """Those of a file from elsewhere: the bins reach from the lowest score, and all rows are in one."""
    picture = report.answers(compared("nnna", said(-3.0, -2.0, -2.5, -0.5, fitted=-1.0)), targets.NAMES)
    bars = picture.figure.data
    assert [sum(one.y) for one in bars] == pytest.approx([1, 1])
    assert min(bars[0].x) == pytest.approx(-3, abs=0.1)
    assert bars[0].width == pytest.approx(3 / 40, rel=0.01)


def test_the_worst_rows_are_drawn_one_of_each_source() -> None:
    """Normal ones from the highest score, anomalous ones from the lowest; small pictures are magnified and framed."""
    gate_set = compared("nnnaa", said(0.6, 0.7, 0.1, 0.9, 0.2), "xxyzw")
    found = report.drawings(gate_set, lambda row: np.full((8, 4, 3), row, np.uint8), targets.NAMES)
    assert [words for _, words in found.pictures] == [
        "normal, score 0.7, a false alarm", "normal, score 0.1", "anomaly, score 0.2, missed", "anomaly, score 0.9",
    ]  # fmt: skip
    assert "Of 3 normal rows 2 are above the threshold, of 2 anomalous ones 1." in found.text
    first, _ = found.pictures[0]
    assert first.shape == (96 + 8, 48 + 8, 3)
    assert (first[4:-4, 4:-4] == 1).all()
    assert len(set(map(tuple, first[0].tolist()))) == 1


def spread(rows: int, apart: float, seed: int = 0) -> tuple[str, Predictions]:
    """Return half normal rows, half anomalous ones whose scores are ``apart`` higher."""
    rng = np.random.default_rng(seed)
    labels = "n" * (rows // 2) + "a" * (rows // 2)
    scores = rng.standard_normal(rows) + apart * np.array([letter == "a" for letter in labels])
    return labels, said(*(scores + 10).tolist(), fitted=13.0)


def judged(name: str, limit: float, gate_set: Compared, extra: dict[str, float] | None = None) -> GateResult:
    """Return the verdict of one gate."""
    kind = "min" if name == "auc" else "max"
    rule = GateRecipe(name=name, **{kind: limit})  # type: ignore[arg-type]
    found = evidence.figures(gate_set) | (extra or {})
    made = gate(rule)
    assert made is not None
    return made.judge(evidence.evidence(gate_set, targets.NAMES, found, None, [rule]))


def test_an_auc_is_judged_by_its_lower_bound() -> None:
    """Shown, refuted, and neither with the number of rows."""
    labels, scores = spread(400, 2.0)
    gate_set = compared(labels, scores)
    area = evidence.figures(gate_set)["auc"]
    assert judged("auc", area - 0.06, gate_set).verdict is Verdict.PASS
    assert judged("auc", area + 0.06, gate_set).verdict is Verdict.FAIL
    near = judged("auc", area - 0.005, gate_set)
    assert near.verdict is Verdict.INCONCLUSIVE
    assert near.needs > 0
    assert (near.value, near.limit) == (pytest.approx(area), area - 0.005)
    assert near.bound is not None
    assert near.bound < area - 0.005


@pytest.mark.parametrize(
    ("normal", "anomalous", "missing"),
    [
        (394, 6, "of normal and anomalous sources the rarer are 6, and 20 are needed: give 14 more"),
        (60, 30, "100 sources are needed: give 10 more"),
    ],
)
def test_an_auc_of_few_sources_shows_nothing(normal: int, anomalous: int, missing: str) -> None:
    """Even if all of them are ranked wrong; the text says how many to add."""
    scores = said(*[0.9] * normal, *[0.1] * anomalous)
    result = judged("auc", 0.8, compared("n" * normal + "a" * anomalous, scores))
    assert (result.verdict, result.value) == (Verdict.INCONCLUSIVE, 0)
    assert result.text.endswith(f"rows); {missing}")
    assert result.needs == int(missing.split()[-2])


def test_a_candidate_that_ranks_worse_fails_its_drop() -> None:
    """Against the float model; one that is the same passes."""
    labels, scores = spread(400, 2.0)
    noisy = said(*(scores.logits[:, 0] + np.random.default_rng(1).normal(0, 3, 400)).tolist(), fitted=13.0)
    assert judged("auc_drop", 0.02, compared(labels, noisy, before=scores)).verdict is Verdict.FAIL
    assert judged("auc_drop", 0.03, compared(labels, scores)).verdict is Verdict.PASS


def test_false_alarms_are_judged_by_their_upper_bound() -> None:
    """Four days without one show 1 a day; two days don't, and say how many hours are missing."""
    quiet = compared("n" * 96, said(*[0.1] * 96))
    assert judged("false_alarms_per_day", 1, quiet).verdict is Verdict.PASS
    short = judged("false_alarms_per_day", 1, compared("n" * 48, said(*[0.1] * 48)))
    assert short.verdict is Verdict.INCONCLUSIVE
    assert "0 in 48.0 hours" in short.text
    assert "record 23.9 hours more of normal inputs" in short.text  # 2.9957 days in all: rounded up to a tenth
    loud = compared("n" * 96, said(*[0.1, 0.9] * 48))
    assert judged("false_alarms_per_day", 1, loud).verdict is Verdict.FAIL
    even = judged("false_alarms_per_day", 1, compared("n" * 24, said(*[0.1, 0.9, *[0.1] * 22])))
    assert even.verdict is Verdict.INCONCLUSIVE
    assert "too near the limit" in even.text


def test_too_few_calibration_rows_are_inconclusive_and_name_the_hours() -> None:
    """Whatever the gate rows show."""
    quiet = compared("n" * 96, said(*[0.1] * 96))
    few = {"calibration_days": 1.0, "calibration_days_needed": 1.0 + 10.5 / 24}
    result = judged("false_alarms_per_day", 1, quiet, few)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "rests on 24.0 hours of calibration rows" in result.text
    assert result.text.endswith("record 10.5 hours more for calibration")  # the data set told the splits
    assert judged("false_alarms_per_day", 1, quiet, {**few, "calibration_days": 2.0}).verdict is Verdict.PASS


def test_the_hours_of_a_rate_are_those_that_it_was_divided_by() -> None:
    """14 in 1.1 hours are 305 a day: rounded up to 2 hours nobody could check it; short times are in minutes."""
    loud = said(*[0.9, 0.1] * 14)
    found = replace(compared("n" * 28, loud), interval_s=1.1 * 3600 / 28)
    assert "14 in 1.1 hours of normal inputs, 305 a day" in judged("false_alarms_per_day", 1, found).text
    brief = replace(compared("n" * 28, loud), interval_s=3594 / 28)
    assert "14 in 1.0 hours of" in judged("false_alarms_per_day", 1, brief).text
    assert "14 in 54 minutes of" in judged("false_alarms_per_day", 1, replace(brief, interval_s=3240 / 28)).text


@pytest.mark.parametrize(
    ("share", "needed", "advice"),
    [(0.25, 1.3, ", or set calibration = 0.35 in [data] shares (it has 0.25)"), (0.5, 1.2, ""), (0.25, 9.0, "")],
)
def test_too_small_a_share_of_calibration_rows_is_told(share: float, needed: float, advice: str) -> None:
    """1.3 times the rows, and a twentieth to spare; no share that would leave nothing to learn from."""
    quiet = compared("n" * 96, said(*[0.1] * 96))
    few = {"calibration_days": 1.0, "calibration_days_needed": needed, "calibration_share": share}
    text = judged("false_alarms_per_day", 1, quiet, few).text
    assert text.endswith(f"hours more for calibration{advice}")


def test_a_rate_that_was_not_counted_fails() -> None:
    """Fail closed."""
    made = gate(GateRecipe(name="false_alarms_per_day", max=1.0))
    assert made is not None
    assert made.judge(Evidence()).verdict is Verdict.FAIL


def test_the_threshold_follows_from_the_rate_and_the_calibration_rows() -> None:
    """As float32, as a device reads it; its figures say what it rests on."""
    rows = said(*np.linspace(0, 1, 24 * 5).tolist())
    alarm = AlarmRecipe(false_alarms_per_day=1.0, interval_s=3600.0)
    sources = np.arange(24 * 5).astype(str)
    level = evidence.threshold(rows, sources, alarm)
    assert level == float(np.float32(level))
    found = evidence.threshold_figures(rows, sources, alarm)
    assert (found["calibration_days"], found["stated_false_alarms_per_day"]) == (5, 1)
    assert found["calibration_days_needed"] == pytest.approx(2.996, abs=1e-3)
    assert int((rows.logits[:, 0] > np.float32(level)).sum()) == found["calibration_false_alarms"] == 1
    assert evidence.temperature(rows.logits, np.zeros(24 * 5)) == 1.0


def test_alarms_of_one_model_alone_differ() -> None:
    """Each by its own threshold; a score within the tolerance of a device is none."""
    one, other = said(0.6, 0.4, 0.52), said(0.7, 0.3, 0.48, fitted=0.5)
    assert evidence.differs(one, other, 0.0).tolist() == [False, False, True]
    assert evidence.differs(one, other, 0.05).tolist() == [False, False, False]
    assert evidence.differs(one, replace(one, fitted=0.45), 0.0).tolist() == [False, False, False]
    assert evidence.differs(one, replace(one, fitted=0.55), 0.0).tolist() == [False, False, True]


def test_parity_is_the_largest_difference_of_scores() -> None:
    """And their correlation; constant scores agree with constant ones alone."""
    [pair] = evidence.parity({"x": said(0.1, 0.5, 0.9).logits, "y": said(0.2, 0.6, 1.1).logits})
    assert pair.max_abs == pytest.approx(0.2)
    assert 0.99 < pair.cosine < 1
    assert np.isnan(pair.flip_ratio)
    assert evidence.parity({"x": said(1, 1).logits, "y": said(1, 1).logits})[0].cosine == 1
    assert evidence.parity({"x": said(1, 1).logits, "y": said(1, 2).logits})[0].cosine == 0
