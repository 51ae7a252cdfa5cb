"""What labels of uniform samples show: the error rate, its bounds at any look, and since when."""

from __future__ import annotations

import math

import numpy as np
import pytest

from server.retraining.harm import (
    AuditedSample,
    LabelledScene,
    log_evidence,
    log_wealth,
    lower_bound,
    risk_of,
    scenes_of,
)

DAY_MS = 86_400_000


def labels(*rates: tuple[int, float], seed: int = 0, per_day: int = 5) -> list[LabelledScene]:
    """Return labels of so many days at each error rate, one after the other."""
    chance = np.random.default_rng(seed)
    days = [rate for count, rate in rates for _ in range(count)]
    return [
        LabelledScene(day * DAY_MS + number, float(chance.random() < rate))
        for day, rate in enumerate(days) for number in range(per_day)
    ]  # fmt: skip


def test_the_lower_bound_is_right_and_useful() -> None:
    """It never exceeds the observed rate, is 0 without errors, and 20 of 30 errors refute a risk of 0.3."""
    bounds = [
        lower_bound([LabelledScene(0, float(i < wrong)) for i in range(n)])
        for wrong, n in ((0, 50), (20, 30), (200, 300))
    ]
    assert (bounds[0], lower_bound([])) == (0.0, 0.0)
    assert 0.3 < bounds[1] < 20 / 30
    assert bounds[1] < bounds[2] < 2 / 3
    assert log_wealth([LabelledScene(0, 1.0)], 0.0) == float("inf")
    assert log_wealth([LabelledScene(0, 0.0)], 0.0) == 0.0


def test_looks_through_a_year_refute_a_true_rate_in_few_of_many_years() -> None:
    """Of 60 years at the rate that is allowed, about 3 at most end with harm at a level of 5 %."""
    wealth = [
        max(log_evidence(year[: 5 * day], 0, 0.07) for day in range(5, 366, 40))
        for seed in range(60) for year in [labels((365, 0.07), seed=seed)]
    ]  # fmt: skip
    assert sum(one >= math.log(20) for one in wealth) <= 3 + 2 * 1.7


def test_a_change_after_half_a_year_is_shown_with_its_beginning() -> None:
    """From 5 to 15 % errors: not before, within 90 days after, and since about then."""
    world = labels((180, 0.05), (90, 0.15), seed=3)
    before, after = risk_of(world[: 180 * 5], 0, 0.05), risk_of(world, 0, 0.05)
    assert before.at_least < 0.05 < before.at_most < 0.1
    assert after.at_least > 0.07
    assert abs(after.since_ms - 180 * DAY_MS) < 30 * DAY_MS


@pytest.mark.parametrize("late", [False, True])
def test_labels_in_any_order_show_the_same(late: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Only the time of the image counts, and a quiet month between two scenes is no harm of its own."""
    scenes = [
        LabelledScene(0, 1.0),
        LabelledScene(40 * DAY_MS if late else 1, 0.0),
        *[LabelledScene(41 * DAY_MS, 1.0)] * 20,
    ]
    found = risk_of(scenes, 0, 0.05)
    assert (found.scenes, found.wrong, found.at_least > 0.4) == (22, 21, True)
    assert risk_of([], 7, 0.05).since_ms == 7


def test_a_scene_is_one_observation_and_its_weight_is_that_of_its_images() -> None:
    """Ten wrong frames of one scene count once; a device that took one in 100 stands for more images than one in 10."""
    frames = [AuditedSample(source="a", at_ms=i, wrong=True) for i in range(10)]
    assert scenes_of(frames) == (LabelledScene(0, 1.0),)
    busy = [AuditedSample(source=f"b{i}", at_ms=i, wrong=True, inclusion_ratio=0.01) for i in range(10)]
    quiet = [AuditedSample(source=f"q{i}", at_ms=i, wrong=False, inclusion_ratio=0.1) for i in range(10)]
    scenes = scenes_of(busy + quiet)
    assert sorted({(scene.wrong, scene.weight) for scene in scenes}) == [(0.0, pytest.approx(0.1)), (1.0, 1.0)]
    mean_image = sum(scene.wrong * scene.weight for scene in scenes) / sum(scene.weight for scene in scenes)
    assert 0.45 < lower_bound(scenes) < mean_image == pytest.approx(10 / 11)


def test_weights_keep_the_bound_where_busy_devices_are_right() -> None:
    """Two thirds of the devices' samples are wrong, yet 1.6 % of the images: the mean device would refute 5 %."""
    chance = np.random.default_rng(1)
    refuted = {True: 0, False: 0}
    for _ in range(40):
        drawn = [
            AuditedSample(source=f"{i}", at_ms=i, wrong=bool(i % 3), inclusion_ratio=(0.001, 0.1)[min(i % 3, 1)])
            for i in chance.permutation(60)
        ]
        for weighted in refuted:
            samples = (
                drawn if weighted else [AuditedSample(source=one.source, at_ms=0, wrong=one.wrong) for one in drawn]
            )
            refuted[weighted] += lower_bound(scenes_of(samples)) > 0.05
    assert refuted == {True: 0, False: 40}
