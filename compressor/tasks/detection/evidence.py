"""Evidence from the boxes of a detector: average precision, F1, and their drops against the baseline. Pure.

Decides at which threshold each model's F1 is taken (its own, fitted on calibration rows), and what is bootstrapped:
sources, with the matches of each picture made once. Slices and classes are tested together (Bonferroni). Does not
judge.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError
from compressor.gates import Evidence, Reordered, reordered
from compressor.gates.evidence import points
from compressor.gates.metrics import CLASS_MAP, DETECTION, SLICE_MAP, WORST_CLASS_MAP, WORST_SLICE_MAP, level_of
from compressor.measurement.parity import Pair
from compressor.statistics import detections
from compressor.statistics.bootstrap import Draws
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.detections import Ranked
from compressor.statistics.paired import wilson
from edge_agent.decoders import VALUES

if TYPE_CHECKING:
    from compressor.gates.evidence import GateRecipe
    from compressor.measurement.predictions import Compared, Predictions

CONFIDENCE = 0.95
REPLICATES = 1000
_HALF = (0.5,)
_SURE = 0.3
"""Where no threshold was fitted, and for parity: boxes of less come and go with the last bit."""
_NEAR = 0.05
"""A box of the other model counts as the same down to so much below the threshold."""
_ANY = 1e6
"""So wide a range that golden outputs are judged by their boxes alone: near scores change the order of boxes."""
_FLIPPED_RATIO = 0.1
_LOWEST, _HIGHEST = 0.05, 0.95
_FEWEST = 20
"""With fewer found boxes another order of the classes is not sought."""
Matched = dict[int, Ranked]
Labels = NDArray[Any]
Floats = NDArray[np.float32]


def boxes_of(said: Floats) -> Floats:
    """Return the boxes of N pictures, float32 (N, K, 6), from the outputs of a decoder, (N, 6 * K)."""
    return said.reshape(len(said), -1, VALUES)


def threshold_of(said: Predictions) -> float:
    """Return the score from which on a box of ``said`` is an answer."""
    return said.fitted if said.fitted < 1 else _SURE


def matched(said: Predictions, labels: Labels, overlaps: Sequence[float] = detections.OVERLAPS) -> Matched:
    """Return the boxes of ``said`` matched with the truth, float32 (N, M, 5), by class."""
    return detections.ranked(boxes_of(said.logits), labels, overlaps)


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return mAP and F1 of candidate, float model and baseline by the names of gates and certificate."""
    del drifted
    labels = gate_set.labels
    found = {
        "n_gate": float(len(labels)), "sources_gate": float(gate_set.independent),
        "boxes_gate": float((labels[..., 0] >= 0).sum()), "threshold": threshold_of(gate_set.candidate),
    }  # fmt: skip
    models = {"": gate_set.candidate, "float_": gate_set.float_model, "baseline_": gate_set.baseline}
    for prefix, said in models.items():
        own = matched(said, labels)
        at_half, over_all = detections.mean_average_precision(own)
        found |= {f"{prefix}map": at_half, f"{prefix}map_50_95": over_all}
        found[f"{prefix}f1"] = float(detections.counts(own, threshold_of(said), len(labels)).f1()[0])
    return {name: value for name, value in found.items() if np.isfinite(value)} | {"constant_gain": found["f1"]}


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the drops of a gate set, and the average precision of each class; other tasks' gates stay unmeasured."""
    del drifted
    after = matched(gate_set.candidate, gate_set.labels, _HALF)
    own = {
        f"ap {class_names[kind]}": float(detections.average_precision(one)[0])
        for kind, one in after.items()
        if one.positives.sum()
    }
    try:
        return Evidence(figures={**figures, **own}, metrics=metrics(gate_set, class_names, rules))
    except MeasureError as error:
        return Evidence(figures={**figures, **own}, unknown=dict.fromkeys([rule.name for rule in rules], str(error)))


def metrics(
    gate_set: Compared, class_names: tuple[str, ...], rules: Sequence[GateRecipe], *, seed: int = 0
) -> dict[str, MetricEvidence]:
    """Return the drops of mAP and F1 with their bounds, and those of slices and classes that ``rules`` name.

    Raises:
        MeasureError: If no picture has a box.
    """
    if not (gate_set.labels[..., 0] >= 0).any():
        raise MeasureError("Expected pictures with boxes to judge, got none: add some to the gate split")
    wanted = {name: max(rule.confidence for rule in rules if rule.name == name) for name in {r.name for r in rules}}
    sources = np.arange(len(gate_set.labels)) if gate_set.sources is None else gate_set.sources
    before, after = (matched(said, gate_set.labels, _HALF) for said in (gate_set.baseline, gate_set.candidate))
    of_map, of_f1 = DETECTION
    found = {of_map: detections.map_drop(before, after, sources, _draws(wanted.get(of_map), seed))}
    counts = [
        detections.counts(own, threshold_of(said), len(sources))
        for own, said in ((before, gate_set.baseline), (after, gate_set.candidate))
    ]
    found[of_f1] = detections.f1_drop(counts[0], counts[1], sources, _draws(wanted.get(of_f1), seed))
    if WORST_SLICE_MAP in wanted:
        parts = {f"{SLICE_MAP}{name}": gate_set.slices == name for name in np.unique(gate_set.slices).tolist()}
        draws = _draws(level_of(wanted[WORST_SLICE_MAP], len(parts)), seed)
        found |= {
            name: detections.map_drop(_within(before, rows), _within(after, rows), sources[rows], draws)
            for name, rows in parts.items()
            if any(one.positives[rows].sum() for one in after.values())
        }
    if WORST_CLASS_MAP in wanted:
        kinds = [kind for kind, one in after.items() if one.positives.sum()]
        draws = _draws(level_of(wanted[WORST_CLASS_MAP], len(kinds)), seed)
        found |= {
            f"{CLASS_MAP}{class_names[kind]}": detections.map_drop(
                {kind: before[kind]}, {kind: after[kind]}, sources, draws
            )
            for kind in kinds
        }
    return found


def _draws(confidence: float | None, seed: int) -> Draws:
    return Draws(max(CONFIDENCE, confidence or 0.0), REPLICATES, seed)


def _within(which: Matched, rows: NDArray[np.bool_]) -> Matched:
    """Return the matches of the pictures ``rows`` alone."""
    place = np.cumsum(rows) - 1
    found = {}
    for kind, one in which.items():
        kept = rows[one.pictures]
        found[kind] = Ranked(
            scores=one.scores[kept], pictures=place[one.pictures[kept]], hits=one.hits[:, kept],
            positives=one.positives[rows],
        )  # fmt: skip
    return found


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the figures of a device's answers, by the names in ``figures``."""
    return figures(gate_set)


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the drops of mAP and F1 and their upper bounds."""
    found = {name: evidence.metrics[name] for name in DETECTION if name in evidence.metrics}
    return {name: one.drop for name, one in found.items()} | {f"{name}_upper": one.upper for name, one in found.items()}


def differs(one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
    """Return which pictures have an answer of one model, a box, that the other lacks; edges may differ a little."""
    del allowed_abs
    sides = [(boxes_of(said.logits), threshold_of(said)) for said in (one, other)]
    return np.array(
        [
            not (_covered(left[left[:, 1] >= sides[0][1]], right[right[:, 1] >= sides[1][1] - _NEAR])
                 and _covered(right[right[:, 1] >= sides[1][1]], left[left[:, 1] >= sides[0][1] - _NEAR]))
            for left, right in zip(sides[0][0], sides[1][0], strict=True)
        ],
        dtype=bool,
    )  # fmt: skip


def _covered(wanted: Floats, there: Floats) -> bool:
    """Return whether each box of ``wanted``, (K, 6), has one of its class in ``there`` at an overlap of .5 or more."""
    same = (wanted[:, None, 0] == there[None, :, 0]) & (detections.overlaps(wanted[:, 2:], there[:, 2:]) >= _HALF[0])
    return bool(same.any(axis=1).all())


def score(said: Predictions, labels: Labels) -> float:
    """Return the mean over pictures of their F1."""
    return float(detections.counts(matched(said, labels, _HALF), threshold_of(said), len(labels)).each.mean())


def order(fitted: tuple[Predictions, Labels], judged: tuple[Predictions, Labels], names: tuple[str, ...]) -> Reordered:
    """Return a remark if the boxes that were found have the right classes far more often in another order of these.

    The order is sought on the calibration rows and judged on others, as for a classifier. A box of the truth is found
    by the surest detection, of any class, that overlaps it by half.
    """
    sought, (predicted, labels) = _kinds(*fitted, len(names)), _kinds(*judged, len(names))
    if min(len(sought[1]), len(labels)) < _FEWEST:
        return Reordered({}, "")
    found = reordered(sought, (predicted, labels), names)
    right, n = int((predicted == labels).sum()), len(labels)
    if found.figures["reordered_accuracy_low"] <= wilson(right, n, CONFIDENCE)[1]:
        return Reordered({}, "")
    better = f"{points(found.figures['reordered_accuracy'])} instead of {points(right / n)}"
    said = f"Of {n} boxes that were found, {better} have the right class with labels in another order ({found.named})"
    return Reordered({}, found.named, f"{said}: set [model] labels in the order of the outputs.")


def _kinds(said: Predictions, truth: Labels, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the class of the surest detection of each found box of ``truth``, and the box's own, int64 (B,) each."""
    pairs: list[tuple[int, int]] = []
    for every, rows in zip(boxes_of(said.logits), truth, strict=True):
        found, boxes = every[(every[:, 0] >= 0) & (every[:, 0] < classes)], rows[rows[:, 0] >= 0]
        near = detections.overlaps(found[:, 2:], boxes[:, 1:]) >= _HALF[0]
        scores = np.where(near, found[:, 1:2], -1.0)
        there = np.flatnonzero(near.any(axis=0)).tolist()
        pairs += [(int(found[scores[:, place].argmax(), 0]), int(boxes[place, 0])) for place in there]
    both = np.array(pairs, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def parity(forms: Mapping[str, Floats]) -> tuple[Pair, ...]:
    """Return for every two forms how far the scores of their boxes differ, and how many pictures lack one.

    A box without a counterpart of its class, at an overlap of .5, counts with a score of 0 on the other side.

    Raises:
        MeasureError: If two forms differ in shape or there are no inputs.
    """
    return tuple(_pair(one, other, forms) for one, other in itertools.combinations(forms, 2))


def _pair(one: str, other: str, forms: Mapping[str, Floats]) -> Pair:
    if forms[one].shape != forms[other].shape or not len(forms[one]):
        message = f"Expected boxes of one shape from {one} and {other}, got {forms[one].shape} and {forms[other].shape}"
        raise MeasureError(message)
    scores: list[tuple[float, float]] = []
    flipped = 0
    for left, right in zip(boxes_of(forms[one]), boxes_of(forms[other]), strict=True):
        own = _score_pairs(left, right) + [(b, a) for a, b in _score_pairs(right, left) if not b]
        scores += own
        flipped += any(min(pair) < _SURE - _NEAR for pair in own)
    wide = np.array(scores or [(1.0, 1.0)])
    norms = np.linalg.norm(wide, axis=0)
    cosine = float(wide[:, 0] @ wide[:, 1] / max(float(norms.prod()), 1e-12))
    return Pair(
        first=one, second=other, max_abs=float(np.abs(wide[:, 0] - wide[:, 1]).max()), cosine=cosine,
        flip_ratio=flipped / len(forms[one]),
    )  # fmt: skip


def _score_pairs(left: Floats, right: Floats) -> list[tuple[float, float]]:
    """Return the score of each sure box of ``left`` with that of its counterpart in ``right``, 0 without one.

    Of several it is the one with the nearest score.
    """
    sure, there = left[left[:, 1] >= _SURE], right[right[:, 0] >= 0]
    same = (sure[:, None, 0] == there[None, :, 0]) & (detections.overlaps(sure[:, 2:], there[:, 2:]) >= _HALF[0])
    pairs = []
    for score, own in zip(sure[:, 1].tolist(), same, strict=True):
        others = there[own, 1]
        pairs.append((score, float(others[np.abs(others - score).argmin()]) if len(others) else 0.0))
    return pairs


def meaning(said: Floats, slack: float) -> str:
    """Return "": boxes have their usual meaning."""
    del said, slack
    return ""


def golden_rows(labels: Labels, said: Predictions, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` pictures from those with the fewest boxes to those with the most, evenly by rank."""
    del labels
    ranked = np.argsort((boxes_of(said.logits)[..., 1] >= _SURE).sum(axis=1), kind="stable")
    places = np.unique(np.linspace(0, len(ranked) - 1, most).round().astype(np.int64))
    return np.sort(ranked[places]).astype(np.int64)


def golden_reach(said: Floats) -> tuple[float, int]:
    """Return a range that never binds, and how many pictures may lack a box: a tenth, or one."""
    return _ANY, max(1, int(_FLIPPED_RATIO * len(said)))


def temperature(said: Floats, labels: Labels) -> float:
    """Return the threshold of the scores with the highest F1 on these rows, between .05 and .95."""
    best = detections.best_threshold(detections.ranked(boxes_of(said), labels, _HALF))
    return float(np.float32(np.clip(best, _LOWEST, _HIGHEST)))


def with_threshold(said: Predictions, labels: Labels) -> Predictions:
    """Return ``said`` with its threshold fitted on ``labels``."""
    return replace(said, fitted=temperature(said.logits, labels))
