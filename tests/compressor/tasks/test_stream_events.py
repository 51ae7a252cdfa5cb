"""Events in streams: what is counted, at which threshold, and what training and targets need."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compressor.data._event_windows import COLUMNS
from compressor.data._split import split
from compressor.data._table import Table, make_table
from compressor.errors import DataError, RecipeError, TrainError
from compressor.gates import Verdict
from compressor.gates.kinds import KINDS
from compressor.measurement.predictions import Compared, Predictions
from compressor.recipe.model import DataRecipe, TrainRecipe
from compressor.recipe.read import parse_recipe
from compressor.tasks.classification import training as of_classes
from compressor.tasks.stream_events import evidence, report, targets, training

NAMES = ("background", "one", "two")
STEP_S = 0.5
SMOOTHING = {"refractory_ms": 0.0, "gap_ms": 0.0}


def labels(*recordings: list[tuple[int, float, float]], windows: int = 20) -> np.ndarray:
    """Return the labels of recordings of ``windows`` windows, each with events of (class, start, end)."""
    rows = []
    for number, events in enumerate(recordings):
        for at_s in (np.arange(windows) * STEP_S).tolist():
            inside = [(n, *event) for n, event in enumerate(events) if event[1] <= at_s <= event[2]]
            event, kind, start, end = inside[0] if inside else (-1, 0, 0.0, 0.0)
            rows.append([kind, number, at_s, event, start, end, 0.5])
    return np.array(rows, float)


def said(rows: np.ndarray, active: dict[int, tuple[int, float]], fitted: float = 0.5) -> Predictions:
    """Return predictions that are sure of the background but for ``active``: the class and its probability by row."""
    chances = np.full((len(rows), 3), 1e-6)
    chances[:, 0] = 1
    for row, (kind, chance) in active.items():
        chances[row] = 1e-6
        chances[row, [0, kind]] = 1 - chance + 1e-6, chance
    return Predictions(
        np.log(chances).astype(np.float32), np.zeros((len(rows), 0), np.float32), fitted, smoothing=SMOOTHING
    )


ROWS = labels([(1, 2.0, 2.5), (2, 6.0, 6.0)], [(1, 1.0, 1.0)])
"""40 windows of two recordings with three events, 20 seconds in all."""
RIGHT = {4: (1, 0.9), 5: (1, 0.9), 12: (2, 0.782), 22: (1, 0.7)}


def compared(before: dict[int, tuple[int, float]], after: dict[int, tuple[int, float]]) -> Compared:
    """Return the gate set of a float model and its compressed form."""
    one, other = said(ROWS, before), said(ROWS, after)
    slices, sources = np.array(["all"] * 40), np.array(["a"] * 20 + ["b"] * 20)
    return Compared(labels=ROWS, slices=slices, baseline=one, float_model=one, candidate=other, sources=sources)


def test_events_are_counted_once_and_hours_by_windows() -> None:
    """All three are found; nothing else is."""
    found = evidence.figures(compared(RIGHT, RIGHT))
    assert (found["events"], found["events_found"], found["false_accepts"]) == (3, 3, 0)
    assert found["hours"] == pytest.approx(40 * STEP_S / 3600)
    assert (found["event_recall"], found["constant_gain"], found["window_accuracy"]) == (1, 1, 1)
    assert found["event_recall_low"] == pytest.approx(0.05 ** (1 / 3), abs=1e-3) or found["event_recall_low"] < 0.4


def test_a_wrong_label_a_second_time_and_a_wrong_place_are_false_accepts() -> None:
    """And the event of the wrong label is missed."""
    for active, right, false in (
        ({**RIGHT, 12: (1, 0.9)}, 2, 1),
        ({4: (1, 0.9), 6: (1, 0.9), 12: (2, 0.8), 22: (1, 0.7)}, 3, 1),
        ({**RIGHT, 35: (2, 0.9)}, 3, 1),
        ({13: (2, 0.9)}, 1, 0),
        ({14: (2, 0.9)}, 0, 1),
    ):
        found = evidence.figures(compared(RIGHT, active))
        assert (found["events_found"], found["false_accepts"]) == (right, false), active


def test_false_accepts_of_both_models_cancel_out() -> None:
    """At about the same time; what one has alone is new or gone."""
    before, after = {**RIGHT, 30: (2, 0.9), 36: (1, 0.9)}, {**RIGHT, 31: (2, 0.9), 16: (1, 0.9)}
    found = evidence.figures(compared(before, after))
    assert (found["false_accepts"], found["false_accepts_new"], found["false_accepts_gone"]) == (2, 1, 1)
    assert found["false_accepts_most"] == 1
    made = evidence.compared_figures(evidence.evidence(compared(before, after), NAMES, found))
    assert made["false_accepts_increase"] == 0
    assert made["false_accepts_increase_upper"] > 0
    assert made["event_recall_drop"] == 0


def test_evidence_pairs_events_and_names_the_recall_of_each_kind() -> None:
    """One lost of three."""
    gate_set = compared(RIGHT, {row: one for row, one in RIGHT.items() if row != 12})
    made = evidence.evidence(gate_set, NAMES, evidence.figures(gate_set))
    assert made.accuracy is not None
    assert (made.accuracy.lost, made.accuracy.won, made.accuracy.n) == (1, 0, 3)
    assert (made.figures["recall one"], made.figures["recall two"]) == (1, 0)
    judged = {name: KINDS[name].make for name in ("event_recall", "event_recall_drop", "false_accepts_per_hour")}
    verdicts = {name: make(name, 0.3, 0.95).judge(made).verdict for name, make in judged.items() if make is not None}
    assert verdicts["false_accepts_per_hour"] is Verdict.INCONCLUSIVE


def test_the_threshold_is_chosen_by_f1_or_for_a_number_of_false_accepts() -> None:
    """Of equals it is the higher; where each has too many false accepts it is the highest of all."""
    active = {**RIGHT, 22: (1, 0.522), 30: (2, 0.622)}
    assert evidence.event_threshold(said(ROWS, active), ROWS) == np.float32(0.52)  # 3 of 3, and a false accept
    worse = {**active, 22: (1, 0.322), 35: (1, 0.622)}
    assert evidence.event_threshold(said(ROWS, worse), ROWS) == np.float32(0.78)  # not worth two false ones

    def chosen(rate: float) -> float:
        own = replace(said(ROWS, active), smoothing={**SMOOTHING, "false_accepts_per_hour": rate})
        return evidence.event_threshold(own, ROWS)

    assert chosen(180.0) == np.float32(0.52)  # one in 20 seconds
    assert chosen(179.0) == np.float32(0.78)
    always = {**RIGHT, 30: (2, 0.9999), 35: (1, 0.9999)}
    own = replace(said(ROWS, always), smoothing={**SMOOTHING, "false_accepts_per_hour": 1.0})
    assert evidence.event_threshold(own, ROWS) == np.float32(0.999)
    assert 0 < evidence.temperature(said(ROWS, active).logits + 3, ROWS) < 1


def test_recordings_stay_whole_in_the_gate_split() -> None:
    """Where other tasks have one row of each source."""
    rng = np.random.default_rng(0)
    every = labels(*([(1, 2.0, 2.5)] for _ in range(40)))
    images = [rng.integers(0, 255, (4, 4, 3)).astype(np.uint8) for _ in every]
    sources = [f"r{int(row[1])}" for row in every]
    made = make_table(images, ["one"] * len(every), slices=["all"] * len(every), sources=sources)
    table = replace(made, labels=every, class_names=NAMES, task="stream_events")
    parts = split(table, 0)
    assert len(parts.gate) == 20 * len(np.unique(table.sources[parts.gate]))
    assert targets.grouped(table)[0].labels.tolist() == every[:, 0].astype(int).tolist()
    _fits(table)


def _fits(table: Table) -> None:
    recipe = parse_recipe(RECIPE)
    assert targets.fitted(recipe, table, table) is table
    other = replace(recipe, smoothing=replace(recipe.smoothing, interval_ms=200))
    with pytest.raises(DataError, match=r"Expected \[smoothing\] interval_ms = 500, .* got 200"):
        targets.fitted(other, table, table)
    with pytest.raises(DataError, match="Expected 'background' as the first class"):
        targets.read(replace(table, class_names=NAMES[::-1]), DataRecipe())
    with pytest.raises(DataError, match="Expected calibration recordings with events"):
        targets.check_calibration([table.take(table.labels[:, 0] == 0)])


RECIPE = b"""
[model]
name = "m"
[data]
dataset = "sound_events"
path = "x"
task = "stream_events"
[smoothing]
kind = "events"
interval_ms = 500
"""


@pytest.mark.parametrize(
    ("before", "after", "said_of_it"),
    [
        (b'kind = "events"', b'kind = "mean"', r"Expected \[smoothing\] kind = 'events' .* got 'mean'"),
        (
            b'[smoothing]\nkind = "events"\ninterval_ms = 500',
            b"",
            r"Expected \[smoothing\] kind = 'events' .* got 'none'",
        ),
        (b'task = "stream_events"', b"", r"Expected another \[smoothing\] kind in a recipe .*, got 'events'"),
        (b"interval_ms = 500", b"interval_ms = 500\n[gates]\naccuracy_drop = {max = 0.1}", "use .*event_recall"),
        (b"interval_ms = 500", b"interval_ms = 500\n[train]\nmixup = 0.2", r"Expected \[train\] mixup in"),
    ],
)
def test_a_recipe_of_events_needs_its_smoother_and_no_other_has_it(
    before: bytes, after: bytes, said_of_it: str
) -> None:
    """The smoother makes events; gates and mixes of classes belong elsewhere."""
    parse_recipe(RECIPE)
    with pytest.raises(RecipeError, match=said_of_it):
        parse_recipe(RECIPE.replace(before, after))


def test_windows_are_learnt_as_their_classes() -> None:
    """The same loss, divisor, score and errors."""
    outputs, y = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), torch.from_numpy(ROWS)
    kinds, recipe = y[:, 0].long(), TrainRecipe(class_weights="balanced")
    own, plain = training.loss(recipe, y, 3), of_classes.loss(recipe, kinds, 3)
    assert float(own(None, (outputs, outputs), y)) == float(plain(None, (outputs, outputs), kinds))
    assert own.mass(y) == plain.mass(kinds)
    assert float(own.towards(outputs, outputs + 1, 2.0, 0.5)) == pytest.approx(0, abs=1e-6)
    assert training.goodness(outputs, y) == of_classes.goodness(outputs, kinds)
    assert float(training.loss_sum(outputs, y)) == float(of_classes.loss_sum(outputs, kinds))
    with pytest.raises(TrainError, match="at least two classes"):
        training.check_learnable(y[y[:, 0] == 0])
    with pytest.raises(TrainError, match="labels of 0 to 1, got 2"):
        training.check(ROWS, 2, "training")


def test_the_report_shows_the_recording_in_which_most_went_wrong() -> None:
    """With its name, what each model detected, and crosses for false accepts."""
    gate_set = compared(RIGHT, {**RIGHT, 30: (2, 0.9)})
    picture = report.answers(gate_set, NAMES)
    assert "Recording b:" in picture.title
    crosses = [trace for trace in picture.figure.data if getattr(trace.marker, "symbol", "") == "x"]
    assert [list(trace.x) for trace in crosses] == [[], [5.0]]
    assert report.bar("float", gate_set.candidate, ROWS).told.endswith("(3 of 3)")
    figures = evidence.figures(gate_set)
    assert {name for name, _, _ in report.tiles({**figures, "event_recall_drop": 0.0})} >= {"false accepts, compressed"}
    assert len(COLUMNS) == ROWS.shape[1]
