"""Detections against boxes: average precision as COCO computes it, F1, and paired bootstraps over sources. Pure.

A box is matched once per picture, class and overlap; what is kept of it (``Ranked``) is the cached match: score order,
picture, and whether it hit. A resample of pictures is then a weight for each, without a new matching. Does not decide
which drop is allowed, nor which detections a device answers with.

Source: T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, 2014, and its evaluation
(https://cocodataset.org/#detection-eval): greedy matching by score, 101 points of recall, at most 100 detections for
each class of a picture. There are neither crowds nor ignored boxes here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from compressor.statistics.bootstrap import Draws
from compressor.statistics.bounds import MetricEvidence

Floats = NDArray[np.float64]
Boxes = NDArray[np.float32]
"""float32 (N, M, 5): class, x0, y0, x1, y1 of each box of N pictures; class -1 where there is none."""
Found = NDArray[np.float32]
"""float32 (N, K, 6): class, score, x0, y0, x1, y1 of each detection; class -1 where there is none."""

OVERLAPS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MOST = 100
MIN_SOURCES = 50
"""With fewer the bootstrap's bound of mAP is too low: measured 85 % instead of 95 % at 20 pictures with a real drop."""
_DRAWS = Draws()
_RECALLS: Floats = np.linspace(0.0, 1.0, 101)
_EXACT = 1 - 1e-10  # an overlap of 1 that rounding made a little less
_BLOCK_VALUES = 4_000_000  # of a resample's cumulated weights held at once: 32 MB


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ranked:
    """The detections of one class, the surest first: ``scores`` (D,), ``pictures`` int (D,), ``hits`` bool (T, D).

    ``hits``: whether it found a box, by overlap. ``positives``: int (N,), the boxes of the class in each picture.
    """

    scores: NDArray[np.float32]
    pictures: NDArray[np.int64]
    hits: NDArray[np.bool_]
    positives: NDArray[np.int64]


def overlaps(one: NDArray[np.floating], other: NDArray[np.floating]) -> Floats:
    """Return the intersection over union of boxes (D, 4) and (G, 4), both x0, y0, x1, y1: float64 (D, G)."""
    left, right = one.astype(np.float64)[:, None], other.astype(np.float64)[None]
    width = np.minimum(left[..., 2], right[..., 2]) - np.maximum(left[..., 0], right[..., 0])
    height = np.minimum(left[..., 3], right[..., 3]) - np.maximum(left[..., 1], right[..., 1])
    shared = np.clip(width, 0, None) * np.clip(height, 0, None)
    areas = [(boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (left, right)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def ranked(found: Found, boxes: Boxes, wanted: Sequence[float] = OVERLAPS) -> dict[int, Ranked]:
    """Return the matched detections of each class that has a box or a detection, by its index.

    Args:
        found: Detections, (N, K, 6), in any unit of length that ``boxes`` share.
        boxes: The truth, (N, M, 5).
        wanted: Overlaps at which a detection counts as a hit, T of them.
    """
    known = sorted({int(one) for values in (found, boxes) for one in np.unique(values[..., 0]) if one >= 0})
    return {kind: _ranked(found, boxes, kind, np.minimum(np.array(wanted), _EXACT)) for kind in known}


def _ranked(found: Found, boxes: Boxes, kind: int, wanted: Floats) -> Ranked:
    scores, pictures, hits = [], [], []
    positives = (boxes[..., 0] == kind).sum(axis=1).astype(np.int64)
    for picture, (said, true) in enumerate(zip(found, boxes, strict=True)):
        own = said[said[:, 0] == kind]
        own = own[np.argsort(-own[:, 1], kind="stable")[:MOST]]
        scores.append(own[:, 1])
        pictures.append(np.full(len(own), picture, np.int64))
        hits.append(_hits(overlaps(own[:, 2:], true[true[:, 0] == kind, 1:]), wanted))
    joined = np.concatenate(scores) if scores else np.zeros(0, np.float32)
    order = np.argsort(-joined, kind="stable")
    hit = np.concatenate(hits, axis=1) if hits else np.zeros((len(wanted), 0), bool)
    return Ranked(
        scores=joined[order],
        pictures=np.concatenate(pictures)[order] if pictures else order,
        hits=hit[:, order],
        positives=positives,
    )


def _hits(shared: Floats, wanted: Floats) -> NDArray[np.bool_]:
    """Return which detections of a picture, the surest first, find a box that no surer one has taken: (T, D)."""
    hits = np.zeros((len(wanted), len(shared)), bool)
    if not shared.size:
        return hits
    free = np.ones((len(wanted), shared.shape[1]), bool)
    rows = np.arange(len(wanted))
    for place in np.flatnonzero(shared.max(axis=1) >= wanted.min()).tolist():
        open_to = np.where(free, shared[place], -1.0)
        best = shared.shape[1] - 1 - open_to[:, ::-1].argmax(axis=1)  # of equal ones the last, as COCO's code takes it
        hit = open_to[rows, best] >= wanted
        hits[hit, place] = True
        free[rows[hit], best[hit]] = False
    return hits


def average_precision(one: Ranked, weights: NDArray[np.floating] | None = None) -> Floats:
    """Return the average precision of a class at each overlap, float64 (T,), or (R, T) for ``weights``, (R, N).

    ``weights``: how often each picture counts; None: once. NaN where no box of the class counts.
    """
    times = np.ones((1, len(one.positives))) if weights is None else np.asarray(weights, np.float64)
    total = times @ one.positives
    values = np.empty((len(times), len(one.hits)))
    for place, hit in enumerate(one.hits):
        at = np.flatnonzero(hit)
        before = np.zeros((len(one.positives), len(at)))  # detections of each picture since the hit before
        reached = np.searchsorted(at, np.arange(len(hit)))
        np.add.at(before, (one.pictures[reached < len(at)], reached[reached < len(at)]), 1)
        right, everything = np.cumsum(times[:, one.pictures[at]], axis=1), np.cumsum(times @ before, axis=1)
        values[:, place] = _interpolated(right, everything, total)
    values[total <= 0] = np.nan
    return values[0] if weights is None else values


def _interpolated(right: Floats, everything: Floats, total: Floats) -> Floats:
    """Return the mean precision at 101 points of recall, (R,), of weights cumulated up to each hit, (R, H).

    Precision is largest at hits, so that no other detection needs a place.
    """
    precision = right / np.maximum(everything, 1e-9)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)  # recall that is never reached
    values = np.empty(len(right))
    for row, (curve, boxes) in enumerate(zip(right, total, strict=True)):
        values[row] = precision[row, np.searchsorted(curve, _RECALLS * boxes - 1e-9)].mean()
    return values


def mean_average_precision(matched: dict[int, Ranked]) -> tuple[float, float]:
    """Return (mAP at an overlap of .5, mAP over all overlaps) of the classes that have a box; NaN if none has one."""
    values = np.array([average_precision(one) for one in matched.values() if one.positives.sum()])
    if not len(values):
        return math.nan, math.nan
    return float(values[:, 0].mean()), float(values.mean())


@dataclass(frozen=True, slots=True, eq=False)
class PictureCounts:
    """Of each of N pictures: detections that found a box, all detections, and boxes; each int64 (N,)."""

    hits: NDArray[np.int64]
    said: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def f1(self, weights: NDArray[np.floating] | None = None) -> Floats:
        """Return F1 over all pictures, float64 (1,), or (R,) for ``weights`` (R, N); 1 without boxes and detections."""
        times = np.ones((1, len(self.boxes))) if weights is None else weights
        both = times @ (self.said + self.boxes)
        return np.asarray(np.where(both > 0, 2 * (times @ self.hits) / np.maximum(both, 1e-9), 1.0))

    @property
    def each(self) -> Floats:
        """F1 of each picture, float64 (N,)."""
        both = self.said + self.boxes
        return np.asarray(np.where(both > 0, 2 * self.hits / np.maximum(both, 1), 1.0))


def counts(matched: dict[int, Ranked], threshold: float, pictures: int) -> PictureCounts:
    """Return the counts of detections of at least ``threshold`` at the first overlap of ``matched``."""
    total = np.zeros((3, pictures), np.int64)
    for one in matched.values():
        kept = one.scores >= threshold
        total[0] += np.bincount(one.pictures[kept & one.hits[0]], minlength=pictures)
        total[1] += np.bincount(one.pictures[kept], minlength=pictures)
        total[2] += one.positives
    return PictureCounts(*total)


def best_threshold(matched: dict[int, Ranked]) -> float:
    """Return the score from which on detections give the highest F1 at the first overlap, 0..1.

    It lies halfway to the next lower score, so that a little noise changes no answer of these rows; 0.5 where
    no detection is right.
    """
    scores = np.concatenate([np.zeros(0, np.float32), *(one.scores for one in matched.values())]).astype(np.float64)
    hits = np.concatenate([np.zeros(0, bool), *(one.hits[0] for one in matched.values())])
    boxes = sum(int(one.positives.sum()) for one in matched.values())
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(hits[order])
    if not len(scores) or not right[-1]:
        return 0.5
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + boxes)
    ends = np.append(scores[:-1] > scores[1:], True)  # equal scores are answered together
    best = int(np.where(ends, f1, -1).argmax())
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + below) / 2)


def map_drop(
    before: dict[int, Ranked], after: dict[int, Ranked], sources: NDArray[np.generic], draws: Draws = _DRAWS
) -> MetricEvidence:
    """Return the drop of mAP at the first overlap, with percentile bounds of a paired bootstrap over ``sources``.

    Args:
        before: The matched detections of the baseline.
        after: Those of the candidate, for the same pictures and boxes.
        sources: (N,), equal for pictures that are not independent.
        draws: Confidence of each bound, replicates and seed.

    Returns:
        ``n``: sources; ``rarest``: the fewest sources that have a box of one class.
    """
    names = np.unique(sources, return_inverse=True)[1]
    kinds = [kind for kind, one in after.items() if one.positives.sum()]
    values = [np.array([_first(which, kind, None)[0] for kind in kinds]).mean() for which in (before, after)]
    drops = []
    for times in _resamples(
        names, draws, max((len(one.scores) for one in [*before.values(), *after.values()]), default=1)
    ):
        pair = [np.array([_first(which, kind, times) for kind in kinds]) for which in (before, after)]
        drops.append(np.nanmean(pair[0], axis=0) - np.nanmean(pair[1], axis=0))
    rarest = min(len(np.unique(names[after[kind].positives > 0])) for kind in kinds)
    return _bounded(values[0], values[1], np.concatenate(drops), draws, (int(names.max()) + 1, rarest))


def _first(which: dict[int, Ranked], kind: int, times: Floats | None) -> Floats:
    """Return the average precision of a class at the first overlap; a class without a detection has 0."""
    if kind not in which:
        return np.zeros(1 if times is None else len(times))
    one = which[kind]
    first = replace(one, hits=one.hits[:1])
    return average_precision(first, times)[..., 0] if times is not None else average_precision(first)


def f1_drop(
    before: PictureCounts, after: PictureCounts, sources: NDArray[np.generic], draws: Draws = _DRAWS
) -> MetricEvidence:
    """Return the drop of F1 with percentile bounds of a paired bootstrap over ``sources``, (N,)."""
    names = np.unique(sources, return_inverse=True)[1]
    drops = [before.f1(times) - after.f1(times) for times in _resamples(names, draws, len(names))]
    with_boxes = len(np.unique(names[before.boxes > 0]))
    values = float(before.f1()[0]), float(after.f1()[0])
    return _bounded(*values, np.concatenate(drops), draws, (int(names.max()) + 1, with_boxes))


def _resamples(names: NDArray[np.intp], draws: Draws, size: int) -> Iterator[Floats]:
    """Yield weights of the pictures, (R, N), block by block; ``names``: the source of each, ``size``: per replicate."""
    rng, sources = np.random.default_rng(draws.seed), int(names.max()) + 1
    block = int(np.clip(_BLOCK_VALUES // max(size, 1), 1, 250))
    for start in range(0, draws.count, block):
        drawn = rng.multinomial(sources, np.full(sources, 1 / sources), size=min(block, draws.count - start))
        yield drawn[:, names].astype(np.float64)


def _bounded(before: float, after: float, drops: Floats, draws: Draws, size: tuple[int, int]) -> MetricEvidence:
    lower, upper = np.quantile(drops, [1 - draws.confidence, draws.confidence])
    return MetricEvidence(
        drop=float(before - after), lower=float(lower), upper=float(upper), confidence=draws.confidence, n=size[0],
        rarest=size[1], baseline=float(before), candidate=float(after),
    )  # fmt: skip
