"""Average precision, F1 and their bootstraps: equal to the reference tool, by hand, and at their bounds."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.statistics import detections
from compressor.statistics.bootstrap import Draws
from compressor.statistics.detections import Boxes, Found, Ranked

REFERENCE = [  # seed, pictures, places, noise, steps of the score: mAP at .5 and over all, by faster-coco-eval 1.8.0
    (0, 40, 30, 0.03, 0, 0.29401324040264487, 0.07244811712638899),
    (1, 80, 30, 0.01, 0, 0.466918123062297, 0.27807871741171186),
    (2, 60, 30, 0.03, 20, 0.2728777441291659, 0.07598760823686826),
    (3, 30, 200, 0.03, 0, 0.29341311495015815, 0.07552724252206082),
    (4, 1, 30, 0.03, 0, 0.20957095709570958, 0.09273927392739274),
]


def made(seed: int, pictures: int, places: int = 30, noise: float = 0.03, steps: int = 0) -> tuple[Found, Boxes]:
    """Return seeded detections of three classes, twice, wrong or not at all, and their boxes."""
    rng = np.random.default_rng(seed)
    boxes = np.full((pictures, 12, 5), -1, np.float32)
    found = np.full((pictures, places, 6), -1, np.float32)
    for true, said in zip(boxes, found, strict=True):
        count = int(rng.integers(0, 13))
        for place in range(count):
            kind = int(rng.choice(3, p=[0.6, 0.3, 0.1]))
            (x, y), (width, height) = rng.uniform(0, 0.7, 2), rng.uniform(0.05, 0.3, 2)
            true[place] = [kind, x, y, x + width, y + height]
        used = 0
        for place in range(count):
            for _ in range(int(rng.integers(0, 3))):
                if used < places:
                    x0, y0, x1, y1 = true[place, 1:] + rng.normal(0, noise, 4)
                    edges = [min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]
                    kind = true[place, 0] if rng.random() < 0.9 else rng.integers(3)
                    said[used] = [kind, rng.uniform(), *edges]
                    used += 1
        while used < places and rng.random() < 0.7:
            (x, y), (width, height) = rng.uniform(0, 0.7, 2), rng.uniform(0.05, 0.3, 2)
            said[used] = [rng.integers(3), rng.uniform(0, 0.6), x, y, x + width, y + height]
            used += 1
    if steps:
        found[..., 1] = np.where(found[..., 0] < 0, -1, np.round(found[..., 1] * steps) / steps)
    return found, boxes


@pytest.mark.parametrize(("seed", "pictures", "places", "noise", "steps", "at_half", "over_all"), REFERENCE)
def test_average_precision_is_that_of_the_reference_tool(  # noqa: PLR0913, PLR0917 - one row of the table
    seed: int, pictures: int, places: int, noise: float, steps: int, at_half: float, over_all: float
) -> None:
    """With equal scores, more than 100 detections, several on one box, and classes that a picture lacks."""
    found, boxes = made(seed, pictures, places, noise, steps)
    assert detections.mean_average_precision(detections.ranked(found, boxes)) == pytest.approx((at_half, over_all))


@pytest.mark.parametrize("row", REFERENCE, ids=lambda row: f"seed {row[0]}")
def test_the_stored_figures_are_those_of_the_reference_tool(
    row: tuple[int, int, int, float, int, float, float],
) -> None:
    """Where it is installed (pip install faster-coco-eval==1.8.0), it computes them again."""
    tool = pytest.importorskip("faster_coco_eval")
    found, boxes = made(*row[:5])
    annotations, results = [], []
    for picture, (said, true) in enumerate(zip(found, boxes, strict=True), start=1):
        for kind, x0, y0, x1, y1 in true[true[:, 0] >= 0].astype(float).tolist():
            one = {"image_id": picture, "category_id": int(kind) + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            annotations.append({**one, "id": len(annotations) + 1, "area": (x1 - x0) * (y1 - y0), "iscrowd": 0})
        for kind, score, x0, y0, x1, y1 in said[said[:, 0] >= 0].astype(float).tolist():
            one = {"image_id": picture, "category_id": int(kind) + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            results.append({**one, "score": score})
    images = [{"id": picture, "width": 1, "height": 1} for picture in range(1, len(boxes) + 1)]
    kinds = [{"id": kind, "name": str(kind)} for kind in (1, 2, 3)]
    truth = tool.COCO({"info": {}, "images": images, "annotations": annotations, "categories": kinds})
    judged = tool.COCOeval_faster(truth, truth.loadRes(results), "bbox")
    for step in (judged.evaluate, judged.accumulate, judged.summarize):
        step()
    assert (judged.stats[1], judged.stats[0]) == pytest.approx(row[5:], abs=1e-9)


def one_box() -> Boxes:
    """Return the truth of one picture with one box of class 0."""
    return np.array([[[0, 0.0, 0.0, 0.5, 0.5], [-1, 0, 0, 0, 0]]], np.float32)


def said(*rows: tuple[float, ...]) -> Found:
    """Return the detections of one picture."""
    return np.array([rows], np.float32)


def test_a_box_is_found_once() -> None:
    """The surer of two detections takes it; the other one is wrong, and lowers nothing that was reached before."""
    right, again = (0, 0.9, 0.0, 0.0, 0.5, 0.5), (0, 0.8, 0.0, 0.0, 0.5, 0.49)
    matched = detections.ranked(said(again, right), one_box())
    assert matched[0].hits[0].tolist() == [True, False]
    assert detections.mean_average_precision(matched) == (1.0, 1.0)
    assert detections.counts(matched, 0.5, 1).f1()[0] == pytest.approx(2 / 3)


def test_overlap_counts_from_its_bound_on() -> None:
    """At an intersection over union of exactly .5 a box is found, just below it is not."""
    at, below = (0, 0.9, 0.0, 0.0, 0.5, 0.25), (0, 0.9, 0.0, 0.0, 0.5, 0.2499)
    assert [bool(detections.ranked(said(one), one_box())[0].hits[0, 0]) for one in (at, below)] == [True, False]


def test_another_class_is_no_hit() -> None:
    """A class without a box has no average precision; its detections count against F1."""
    matched = detections.ranked(said((1, 0.9, 0.0, 0.0, 0.5, 0.5)), one_box())
    assert detections.mean_average_precision(matched) == (0.0, 0.0)
    counts = detections.counts(matched, 0.5, 1)
    assert (counts.hits[0], counts.said[0], counts.boxes[0]) == (0, 1, 1)


def test_pictures_without_any_box_are_no_number() -> None:
    """Neither a division by nothing nor a perfect score."""
    empty = np.array([[[-1, 0, 0, 0, 0]]], np.float32)
    matched = detections.ranked(said((0, 0.9, 0, 0, 1, 1)), empty)
    assert np.isnan(detections.mean_average_precision(matched)).all()
    nothing = detections.ranked(said((-1, -1, 0, 0, 0, 0)), empty)
    assert detections.counts(nothing, 0.5, 1).each.tolist() == [1.0]


def test_the_threshold_gives_the_highest_f1() -> None:
    """It lies between the last right detection and the next wrong one; equal scores stay together."""
    right, wrong = (0, 0.8, 0.0, 0.0, 0.5, 0.5), (0, 0.4, 0.6, 0.6, 0.9, 0.9)
    assert detections.best_threshold(detections.ranked(said(right, wrong), one_box())) == pytest.approx(0.6)
    found, boxes = made(6, 60, steps=10)
    matched = detections.ranked(found, boxes)
    best = detections.counts(matched, detections.best_threshold(matched), 60).f1()[0]
    assert best == max(detections.counts(matched, step / 20, 60).f1()[0] for step in range(20))


def test_without_a_right_detection_the_threshold_is_a_half() -> None:
    """Nothing to fit it on."""
    assert detections.best_threshold(detections.ranked(said((0, 0.9, 0.8, 0.8, 0.9, 0.9)), one_box())) == 0.5
    assert detections.best_threshold({}) == 0.5


def plain(one: Ranked, times: np.ndarray) -> float:
    """Return the average precision at .5 with each picture repeated, computed the long way."""
    rows = np.repeat(np.arange(len(one.scores)), times.astype(int)[one.pictures])
    hits, total = one.hits[0][rows], float((times * one.positives).sum())
    right = np.cumsum(hits)
    precision = np.maximum.accumulate((right / np.arange(1, len(rows) + 1))[::-1])[::-1]
    at = np.searchsorted(right, np.linspace(0, 1, 101) * total - 1e-9)
    return float(np.append(precision, 0.0)[np.minimum(at, len(rows))].mean())


def test_a_resample_is_that_of_repeated_pictures() -> None:
    """Weights on cached matches give what a new ranking of the drawn pictures gives."""
    found, boxes = made(7, 25)
    rng = np.random.default_rng(0)
    times = rng.multinomial(25, np.full(25, 1 / 25), size=8).astype(float)
    for one in detections.ranked(found, boxes).values():
        values = detections.average_precision(one, times)[:, 0]
        wanted = [plain(one, row) if (row * one.positives).sum() else np.nan for row in times]
        assert values == pytest.approx(wanted, nan_ok=True)


def pair(seed: int, pictures: int = 120) -> tuple[dict[int, Ranked], dict[int, Ranked]]:
    """Return the matches of two models that differ in a few detections."""
    found, boxes = made(seed, pictures, noise=0.02)
    rng = np.random.default_rng(seed)
    other = found.copy()
    other[..., 1] = np.where(rng.random(found.shape[:2]) < 0.1, other[..., 1] * 0.5, other[..., 1])
    return detections.ranked(found, boxes), detections.ranked(other, boxes)


def test_equal_models_have_no_drop() -> None:
    """Its bounds are 0 too: the bootstrap is paired."""
    before, _ = pair(8)
    drop = detections.map_drop(before, before, np.arange(120), Draws(replicates=100))
    assert (drop.drop, drop.lower, drop.upper, drop.n) == (0, 0, 0, 120)


def test_the_drop_lies_between_its_bounds() -> None:
    """Of mAP and of F1, both ways round."""
    before, after = pair(9)
    for one, other, sign in ((before, after, 1), (after, before, -1)):
        drop = detections.map_drop(one, other, np.arange(120), Draws(replicates=400))
        assert drop.lower < drop.drop < drop.upper
        assert drop.drop * sign > 0
        counts = [detections.counts(which, 0.5, 120) for which in (one, other)]
        of_f1 = detections.f1_drop(*counts, np.arange(120), Draws(replicates=400))
        assert of_f1.lower <= of_f1.drop <= of_f1.upper


def test_frames_of_one_scene_are_resampled_as_one() -> None:
    """120 pictures of 12 scenes are 12 sources, and their bounds are wider where frames of a scene are alike."""
    before, after = pair(10, 12)
    repeated = [
        {
            kind: Ranked(
                scores=np.repeat(one.scores, 10), pictures=(one.pictures[:, None] * 10 + np.arange(10)).ravel(),
                hits=np.repeat(one.hits, 10, axis=1), positives=np.repeat(one.positives, 10),
            )
            for kind, one in which.items()
        }
        for which in (before, after)
    ]  # fmt: skip
    alone = detections.map_drop(*repeated, np.arange(120), Draws(replicates=300))
    scenes = detections.map_drop(*repeated, np.repeat(np.arange(12), 10), Draws(replicates=300))
    assert (alone.n, scenes.n) == (120, 12)
    assert scenes.upper - scenes.lower > 2 * (alone.upper - alone.lower)


@pytest.mark.nightly
def test_the_bound_holds_its_five_per_cent() -> None:
    """Of 200 draws of 150 pictures from a population, the true drop exceeds the bound in few."""
    before, after = pair(11, 3000)
    true = np.mean([detections.average_precision(one)[0] for one in before.values()])
    true -= np.mean([detections.average_precision(one)[0] for one in after.values()])
    rng, beyond = np.random.default_rng(1), 0
    for draw in range(200):
        rows = rng.choice(3000, 150, replace=False)
        place = np.full(3000, -1)
        place[rows] = np.arange(150)
        drawn = [{kind: _of(one, place, rows) for kind, one in which.items()} for which in (before, after)]
        beyond += detections.map_drop(*drawn, np.arange(150), Draws(replicates=300, seed=draw)).upper < true
    assert beyond <= 20  # 10 are expected; more than 20 in 1 of 500 runs


def _of(one: Ranked, place: np.ndarray, rows: np.ndarray) -> Ranked:
    kept = place[one.pictures] >= 0
    return Ranked(
        scores=one.scores[kept],
        pictures=place[one.pictures[kept]],
        hits=one.hits[:, kept],
        positives=one.positives[rows],
    )
