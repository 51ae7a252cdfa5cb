"""Evidence from events in recordings: which are detected, and what else is. Pure; numpy.

The windows of each recording pass, in their order, through the code that finds events on the device. Decides what is
counted: a detection is the begin of an event, at the middle of its first window; one match an event
(``statistics.stream_events``). Models are judged at a threshold that was chosen on calibration recordings. Does not
judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.data._event_windows import AT_S, CLASS, END_S, EVENT, RECORDING, START_S, TOLERANCE_S, step_s
from compressor.gates import Evidence, Reordered
from compressor.gates.stream_events import FALSE_ACCEPTS, FALSE_ACCEPTS_INCREASE, RECALL, RECALL_DROP
from compressor.measurement.predictions import Compared, Predictions, log_probabilities
from compressor.statistics.paired import Paired, drop_upper, paired, proportion_bounds
from compressor.statistics.stream_events import Points, Spans, increase_upper, matched, rate_bounds
from compressor.tasks.classification.evidence import golden_reach, meaning, parity
from compressor.tasks.classification.evidence import golden_rows as golden_of_classes
from edge_agent import smoothers

if TYPE_CHECKING:
    from compressor.gates.evidence import GateRecipe

__all__ = [
    "compared_figures", "device_figures", "differs", "evidence", "figures", "golden_reach", "golden_rows", "heard",
    "meaning", "order", "parity", "score", "temperature", "truth",
]  # fmt: skip

CONFIDENCE = 0.95
SMOOTHER = "events"
THRESHOLDS = (*np.arange(0.05, 0.951, 0.05).round(2).tolist(), 0.97, 0.98, 0.99, 0.995, 0.999)
"""Of these the best is sought first, then around it in steps of ``FINER``: else two models are judged at two points."""
FINER, _STEPS = 0.005, 9
_UNFITTED = 0.5
_HOUR_S = 3600.0
Labels = NDArray[Any]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Heard:
    """The detections of one model in some recordings. ``meets``: the event of each, int64 (M,), -1: a false accept."""

    points: Points
    meets: NDArray[np.int64]
    events: int

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which events are detected, bool (K,)."""
        return np.isin(np.arange(self.events), self.meets)

    @property
    def false(self) -> Points:
        """The false accepts."""
        return self.points.take(self.meets < 0)

    @property
    def f1(self) -> float:
        """F1 of the events; 0 if nothing is detected."""
        right = int(self.found.sum())
        return 2 * right / max(1, self.events + len(self.points))


def truth(labels: Labels) -> Spans:
    """Return the events of the recordings in ``labels``, each once, without tolerance."""
    own = np.unique(labels[labels[:, EVENT] >= 0][:, [RECORDING, EVENT, START_S, END_S]], axis=0)
    kinds: dict[tuple[float, float], int] = {}
    for row in labels[labels[:, CLASS] > 0]:
        kinds[row[RECORDING], row[EVENT]] = int(row[CLASS])
    known = np.array([(one[0], one[1]) in kinds for one in own], dtype=bool)
    own = own[known]
    return Spans(
        recordings=own[:, 0].astype(np.int64),
        labels=np.array([kinds[one[0], one[1]] for one in own], np.int64),
        starts_s=own[:, 2],
        ends_s=own[:, 3],
    )


def hours(labels: Labels) -> float:
    """Return for how long the recordings in ``labels`` were listened to: a step for each window."""
    return len(labels) * step_s(labels) / _HOUR_S


def heard(said: Predictions, labels: Labels, at_threshold: float | None = None) -> Heard:
    """Return what a model that answered ``said`` detects, by the code of the device, at its threshold or another."""
    events = truth(labels)
    wide_s = float(labels[:, TOLERANCE_S].max(initial=0.0))
    wide = replace(events, starts_s=events.starts_s - wide_s, ends_s=events.ends_s + wide_s)
    points = _points(said, labels, threshold_of(said) if at_threshold is None else at_threshold)
    return Heard(points=points, meets=matched(wide, points), events=len(events))


def threshold_of(said: Predictions) -> float:
    """Return the mean probability from which on a class is an event."""
    return said.fitted if said.fitted < 1 else _UNFITTED


def _points(said: Predictions, labels: Labels, at_threshold: float) -> Points:
    found: list[tuple[float, int, float]] = []
    chances = np.exp(said.logits.astype(np.float64))
    at_ms = np.round(labels[:, AT_S] * 1000).astype(np.int64).tolist()
    for recording in np.unique(labels[:, RECORDING]).tolist():
        spotter = smoothers.spotter(SMOOTHER, said.smoothing, at_threshold)
        rows = np.flatnonzero(labels[:, RECORDING] == recording)
        for row, own in zip(rows.tolist(), chances[rows].tolist(), strict=True):
            spotted = () if spotter is None else spotter.add(own, at_ms[row])
            found += [(recording, one.label, one.start_ms / 1000) for one in spotted if not one.ended]
    columns = np.array(found).reshape(-1, 3)
    return Points(
        recordings=columns[:, 0].astype(np.int64), labels=columns[:, 1].astype(np.int64), at_s=columns[:, 2]
    )  # fmt: skip


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the events that baseline and candidate detect, in pairs; what gates count is in ``figures``."""
    del drifted, rules
    before, after = (heard(said, gate_set.labels).found for said in (gate_set.baseline, gate_set.candidate))
    kinds = truth(gate_set.labels).labels
    own = {
        f"recall {class_names[kind]}": float(after[kinds == kind].mean()) for kind in np.unique(kinds).tolist()
    }  # fmt: skip
    return Evidence(accuracy=paired(before, after), figures={**figures, **own})


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return the counts and rates of candidate, float model and baseline, by the names of gates and certificate."""
    del drifted
    labels, lasted = gate_set.labels, hours(gate_set.labels)
    after, before = heard(gate_set.candidate, labels), heard(gate_set.baseline, labels)
    models = {"": after, "float_": heard(gate_set.float_model, labels), "baseline_": before}
    right, false = int(after.found.sum()), len(after.false)
    found = {
        "n_gate": float(len(labels)), "sources_gate": float(gate_set.independent), "hours": lasted,
        "events": float(after.events), "events_found": float(right), "false_accepts": float(false),
        "threshold": threshold_of(gate_set.candidate), "float_threshold": threshold_of(gate_set.float_model),
        "window_accuracy": score(gate_set.candidate, labels), "constant_gain": after.f1,
    }  # fmt: skip
    for prefix, one in models.items():
        found[f"{prefix}{FALSE_ACCEPTS}"] = len(one.false) / lasted if lasted else np.nan
        found[f"{prefix}{RECALL}"] = float(one.found.mean()) if one.events else np.nan
    if after.events:
        found[f"{RECALL}_low"], found[f"{RECALL}_high"] = proportion_bounds(right, after.events, CONFIDENCE)
    if lasted:
        found[f"{FALSE_ACCEPTS}_low"], found[f"{FALSE_ACCEPTS}_high"] = rate_bounds(false, lasted, CONFIDENCE)
    found["false_accepts_most"] = float(np.bincount(after.false.recordings, minlength=1).max())
    shared = matched(before.false.spans(float(labels[:, TOLERANCE_S].max(initial=0.0))), after.false)
    found["false_accepts_new"] = float((shared < 0).sum())
    found["false_accepts_gone"] = float(len(before.false) - (shared >= 0).sum())
    return {name: value for name, value in found.items() if np.isfinite(value)}


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the figures of a device's answers, by the names in ``figures``."""
    return figures(gate_set)


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the drop of the recall and the increase of false accepts, with their upper bounds."""
    counts, known, found = evidence.accuracy, evidence.figures, dict[str, float]()
    if counts is not None and counts.n:
        found |= _drop(counts)
    new, gone, lasted = (known.get(name) for name in ("false_accepts_new", "false_accepts_gone", "hours"))
    if new is not None and gone is not None and lasted:
        found[FALSE_ACCEPTS_INCREASE] = (new - gone) / lasted
        found[f"{FALSE_ACCEPTS_INCREASE}_upper"] = increase_upper(round(new), round(gone), lasted, CONFIDENCE)
    return found


def _drop(counts: Paired) -> dict[str, float]:
    return {RECALL_DROP: counts.drop, f"{RECALL_DROP}_upper": drop_upper(counts, CONFIDENCE)}


def differs(one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
    """Return which windows have different classes after smoothing."""
    del allowed_abs
    return np.asarray(one.classes != other.classes)


def score(said: Predictions, labels: Labels) -> float:
    """Return the share of windows whose class is right."""
    return float((said.classes == labels[:, CLASS]).mean())


def order(fitted: tuple[Predictions, Labels], judged: tuple[Predictions, Labels], names: tuple[str, ...]) -> Reordered:
    """Return nothing: another order of the classes is not sought."""
    del fitted, judged, names
    return Reordered({}, "")


def golden_rows(labels: Labels, said: Predictions, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` windows, the most confident right ones of each class in turn, as of classes."""
    return golden_of_classes(labels[:, CLASS].astype(np.int64), said, most)


def temperature(said: Floats, labels: Labels) -> float:
    """Return the threshold for answers that no smoother made, at its default settings."""
    alone = np.asarray(log_probabilities(said), np.float32)
    return event_threshold(Predictions(alone, np.zeros((len(said), 0), np.float32)), labels)


def event_threshold(said: Predictions, labels: Labels) -> float:
    """Return the threshold chosen for ``said`` on these recordings.

    With ``[smoothing] false_accepts_per_hour`` it is that with the most events detected among those with at most so
    many false accepts in these hours; else the one with the highest F1. Of equals it is the higher one.
    """
    wanted, lasted = said.smoothing.get("false_accepts_per_hour", 0.0), hours(labels)
    tried: dict[float, Heard] = {}

    def best_of(values: Iterable[float]) -> float:
        tried.update({value: heard(said, labels, value) for value in values if value not in tried})
        allowed = [value for value, one in tried.items() if not wanted or len(one.false) <= wanted * lasted]
        right = {value: tried[value].found.sum() if wanted else tried[value].f1 for value in allowed}
        return max(allowed, key=lambda value: (right[value], value)) if allowed else max(tried)

    rough = best_of(THRESHOLDS)
    near = (round(rough + step * FINER, 3) for step in range(-_STEPS, _STEPS + 1))
    return float(np.float32(best_of(value for value in near if THRESHOLDS[0] <= value <= THRESHOLDS[-1])))
