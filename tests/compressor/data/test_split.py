"""The splits are disjoint, seeded, and stable when data is added."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compressor.data._split import (
    WITHOUT_TRAIN,
    Drifted,
    Shares,
    Splits,
    absences,
    check_disjoint,
    part,
    split,
)
from compressor.data._table import Table, make_table
from compressor.errors import SplitError
from compressor.gates.looks import Look
from compressor.statistics.paired import p_value, paired


def _table(sources: int, views: int = 2) -> Table:
    rng = np.random.default_rng(0)
    rows = [(f"s{source}", f"site-{source % 3}") for source in range(sources) for _ in range(views)]
    images = [rng.integers(0, 256, (4, 4, 3), dtype=np.uint8) for _ in rows]
    return make_table(
        images,
        [str(i % 2) for i in range(len(rows))],
        slices=[row[1] for row in rows],
        sources=[row[0] for row in rows],
    )


def test_no_source_and_no_content_is_in_two_splits() -> None:
    """Every row of the wanted slices is in exactly one split, with all views of its source."""
    table = _table(400)
    splits = split(table, 1)
    check_disjoint(table, splits)
    assert len(splits.train) + len(splits.calibration) + len(splits.reference) + 2 * len(splits.gate) == len(table)


def test_the_gate_has_one_row_per_source() -> None:
    """Rows of the paired test are independent: no source is in the gate twice."""
    table = _table(400, views=3)
    gate = split(table, 1).gate
    assert len(set(table.sources[gate])) == len(gate)


def test_a_source_of_several_classes_is_judged_on_any_of_them() -> None:
    """Recordings that all begin with one class would leave that class alone in the gate split."""
    table = _table(400, views=2)  # views are of the classes 0 and 1, in this order
    gate = split(table, 1).gate
    assert 0.3 < table.labels[gate].mean() < 0.7
    assert np.array_equal(gate, split(table, 1).gate)


def test_the_same_seed_gives_the_same_splits_and_another_seed_others() -> None:
    """The seed alone decides."""
    table = _table(200)
    assert np.array_equal(split(table, 3).gate, split(table, 3).gate)
    assert not np.array_equal(split(table, 3).gate, split(table, 4).gate)


def test_added_rows_do_not_move_old_ones() -> None:
    """A retrained model is gated on the very rows of the model before."""
    small, large = _table(200), _table(300)
    before = set(small.sources[split(small, 5).gate])
    after = set(large.sources[split(large, 5).gate])
    assert before == {source for source in after if int(source[1:]) < 200}


def test_sources_that_share_content_stay_together() -> None:
    """The same picture under two names is one group: it can't train and judge."""
    table = _table(300, views=1)
    hashes = table.hashes.copy()
    hashes[150:] = hashes[:150]
    table = replace(table, hashes=hashes)
    check_disjoint(table, split(table, 2))


def test_only_the_wanted_slices_are_split() -> None:
    """Rows of other slices are in ``other`` and nowhere else."""
    table = _table(300)
    splits = split(table, 0, slices=("site-0",))
    assert set(table.slices[splits.train]) == {"site-0"}
    assert set(table.slices[splits.other]) == {"site-1", "site-2"}


def test_an_overlap_is_an_error() -> None:
    """Splits made by other means are refused when they share a row."""
    table = _table(10)
    rows = np.arange(4)
    with pytest.raises(SplitError, match="disjoint"):
        check_disjoint(table, Splits(rows, rows + 4, rows + 3, rows + 12, rows[:0]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"slices": ("site-9",)}, "site-9"), ({"shares": Shares(train=0.9)}, "sum to 1")],
)
def test_refuses_what_cannot_be_split(arguments: dict[str, object], said: str) -> None:
    """An unknown slice or shares that don't add up are named."""
    with pytest.raises(SplitError, match=said):
        split(_table(50), 0, **arguments)  # type: ignore[arg-type]


def test_refuses_an_empty_split() -> None:
    """Too little data for four splits is an error, not an empty gate."""
    with pytest.raises(SplitError, match="add data of other sources"):
        split(_table(1), 0)


def told(names: list[str]) -> Table:
    """Return 400 rows of two classes, each content its own, with these splits in turn."""
    images = [np.full((4, 4, 3), row % 256, np.uint8) + np.uint8(0) for row in range(400)]
    for row, image in enumerate(images):
        image[0, 0] = (row % 256, row // 256, 7)
    table = make_table(images, [str(row % 2) for row in range(400)], slices=["s"] * 400)
    return replace(table, told=np.array([names[row % len(names)] for row in range(400)]))


def test_rows_are_in_the_split_that_the_data_set_tells() -> None:
    """Rows left to train also supply calibration and reference, and gate rows are only those assigned to it."""
    table = told(["train", "train", "gate"])
    parts = split(table, 0)
    assert set(parts.gate.tolist()) == {row for row in range(400) if row % 3 == 2}
    learnt = np.concatenate([parts.train, parts.calibration, parts.reference])
    assert sorted(learnt.tolist()) == [row for row in range(400) if row % 3 != 2]


def test_a_split_that_is_not_told_is_drawn() -> None:
    """Rows without a split fall as without the column, those with one stay."""
    table = told(["", "calibration"])
    free = split(replace(table, told=None), 0)
    parts = split(table, 0)
    assert set(parts.calibration.tolist()) == {row for row in range(400) if row % 2} | {
        row for row in free.calibration.tolist() if row % 2 == 0
    }


@pytest.mark.parametrize("given", ["calibration", "reference"])
def test_without_train_rows_one_of_calibration_and_reference_is_drawn_from_the_other(given: str) -> None:
    """A model that is only imported needs no train rows; halves, because a fourteenth would not calibrate."""
    table = told([given, given, "gate"])
    parts = split(table, 0, learns=False)
    assert not len(parts.train)
    assert set(parts.gate.tolist()) == {row for row in range(400) if row % 3 == 2}
    assert {row % 3 for row in [*parts.calibration.tolist(), *parts.reference.tolist()]} == {0, 1}
    assert 100 < len(parts.calibration) < 166
    assert len(parts.calibration) + len(parts.reference) == 267
    with pytest.raises(SplitError, match="rows in the train split, got none"):
        split(table, 0)


def test_without_train_rows_shares_that_a_recipe_gives_part_calibration_and_reference() -> None:
    """A tenth of the rows calibrates, as asked."""
    shares = Shares(train=0.0, calibration=0.05, gate=0.5, reference=0.45)
    parts = split(told(["calibration", "gate"]), 0, shares=shares, learns=False)
    assert 10 < len(parts.calibration) < 35
    assert len(parts.calibration) + len(parts.reference) == 200


def test_without_training_no_row_need_be_drawn_for_it() -> None:
    """A share of 0 for train is only for a run that trains nothing."""
    shares = Shares(train=0.0, calibration=0.2, gate=0.5, reference=0.3)
    parts = split(_table(400), 0, shares=shares, learns=False)
    assert not len(parts.train)
    assert len(parts.calibration) + 2 * len(parts.gate) + len(parts.reference) == 800
    with pytest.raises(SplitError, match="positive shares"):
        split(_table(400), 0, shares=shares)
    with pytest.raises(SplitError, match="rows in the calibration split, got none"):
        split(told(["gate"]), 0, learns=False)  # gate rows never calibrate


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["train", "gate"],
            "the same content or source twice: row 0 in train and row 1 in gate: leave one out.*near copies",
        ),
        (["train", "gatte"], "got 'gatte' for row 1: did you mean 'gate'"),
    ],
)
def test_one_content_in_two_told_splits_is_refused(names: list[str], message: str) -> None:
    """Otherwise the gate would judge rows that were trained on."""
    table = told(names)
    twice = replace(table, hashes=np.array([f"{row // 2}" for row in range(400)]))
    with pytest.raises(SplitError, match=message):
        split(twice, 0)


def test_classes_that_no_row_teaches_or_judges_are_said() -> None:
    """Their outputs would be arbitrary and the gates would pass; if each class has rows there is no message."""
    table = told(["train", "calibration", "gate", "reference"])
    table = replace(table, class_names=("a", "b", "c"), labels=np.array([0, 1, 1, 2]))
    parts = Splits(*(np.array([row]) for row in range(4)), other=np.array([], np.int64))
    assert absences(table, parts) == [
        "no train rows of b, c: nothing is learnt of them", "no gate rows of a, c: no gate looks at them"
    ]  # fmt: skip
    whole = replace(table, class_names=("a",), labels=np.zeros(4, np.int64))
    assert absences(whole, parts) == []
    untrained = absences(table, replace(parts, train=parts.other))
    assert untrained == [WITHOUT_TRAIN, "no gate rows of a, c: no gate looks at them"]


def fleet(frames: int, scenes: int, lanes: list[str]) -> tuple[Table, Table]:
    """Return labelled samples of ``frames`` frames of ``scenes`` scenes in these lanes, and the rows of the base."""
    images = [np.full((4, 4, 3), row % 256, dtype=np.uint8) + np.uint8(row // 256) for row in range(frames)]
    known = make_table(images[:2], ["0", "1"], slices=["a", "a"])
    table = make_table(
        images, [str(row % 2) for row in range(frames)], slices=["a"] * frames,
        sources=[f"d/{row % scenes}" for row in range(frames)],
    )  # fmt: skip
    fresh = [f"{row:064d}" for row in range(frames)]
    return replace(table, hashes=np.array(fresh), lanes=np.array(lanes) if lanes else None), known


def drifted(frames: int = 400, scenes: int = 400, *, lanes: tuple[str, ...] = ()) -> Drifted:
    """Return their parts; ``lanes`` repeat."""
    return part(*fleet(frames, scenes, [lanes[row % len(lanes)] for row in range(frames)] if lanes else []))


def test_samples_that_were_chosen_teach_and_uniform_ones_judge() -> None:
    """Half of the uniform ones are held; without lanes 30 % of all are, and no source is in both parts."""
    found = drifted(lanes=("audit", "drift", "correction", "drift"))
    assert set(found.held.lanes.tolist()) == {"audit"}  # type: ignore[union-attr]
    assert 35 <= len(found.held) <= 65
    assert len(found.train) == 400 - len(found.held)
    assert 90 <= len(drifted().held) <= 150
    assert 90 <= len(drifted(lanes=("audit",)).held) <= 150
    scenes = drifted(scenes=40, lanes=("audit", "drift", "drift"))
    assert not set(scenes.held.sources.tolist()) & set(scenes.train.sources.tolist())


def test_samples_of_which_none_was_drawn_uniformly_judge_nothing() -> None:
    """The message says which to label."""
    with pytest.raises(SplitError, match=r"got 400, 0 of them drawn uniformly \(lane audit\)"):
        drifted(lanes=("drift",))


def _passed(held: Table, before: np.ndarray, after: np.ndarray) -> bool:
    """Return whether the model of ``after`` is shown to be better at a first look, as by ``Superiority``."""
    risk = 0.05 * Look(number=1).share
    return p_value(paired(before, after, held.sources), 0.0, risk) < risk


def test_an_equal_model_is_not_better_for_samples_of_the_doubt_of_the_one_before() -> None:
    """Two models of one accuracy, 200 times: the old one is wrong more often where it was unsure, not the new one."""
    random, passed, gained = np.random.default_rng(3), {"lanes": 0, "none": 0}, []
    for _ in range(200):
        base, _ = fleet(400, 400, ["audit", "drift", "drift", "drift"] * 100)
        wrong_before = np.where(base.lanes == "audit", 0.15, 0.25)
        before, after = random.random(400) > wrong_before, random.random(400) > 0.15
        gained.append(after[base.lanes == "drift"].mean() - before[base.lanes == "drift"].mean())
        for name, table in (("lanes", base), ("none", replace(base, lanes=None))):
            held = part(table, fleet(2, 2, [])[1]).held
            rows = np.array([int(content) for content in held.hashes.tolist()])
            passed[name] += _passed(held, before[rows], after[rows])
    assert np.mean(gained) > 0.08
    assert passed["lanes"] / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5 < passed["none"] / 200


def test_a_model_that_knows_its_scenes_by_heart_does_not_pass() -> None:
    """300 frames of 20 scenes: right on every frame of a scene it was trained on, on others no better than before."""
    random, passed = np.random.default_rng(4), 0
    for _ in range(100):
        table, known = fleet(300, 20, (["audit"] * 20 + ["drift"] * 20) * 7 + ["audit"] * 20)
        found = part(
            replace(table, sources=np.array([f"{random.random()}{row % 20}" for row in range(20)] * 15)), known
        )
        scenes = np.unique(found.held.sources, return_inverse=True)[1]
        before = (random.random(20) < 0.49)[scenes]
        learnt = np.isin(found.held.sources, found.train.sources)
        passed += _passed(found.held, before, learnt | (random.random(20) < 0.49)[scenes])
    assert passed <= 100 * (0.05 + 2 * (0.05 * 0.95 / 100) ** 0.5)
