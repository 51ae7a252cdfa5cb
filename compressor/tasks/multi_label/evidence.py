"""Evidence from sets of labels: average precision, F1 at each model's own thresholds, recall of each label. Pure.

Decides how thresholds are chosen, that F1 is taken over all labels together (micro), and that the recall of a label is
a paired count of the rows that have it. Labels that no gate row has are left out of mAP. Does not judge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compressor.errors import MeasureError
from compressor.gates import Evidence, MetricEvidence, Reordered
from compressor.gates.metrics import LABELS
from compressor.measurement.parity import Pair, matrix
from compressor.statistics.bootstrap import Draws, average_precisions, label_f1_drop, label_precision_drop
from compressor.statistics.detections import PictureCounts
from compressor.statistics.paired import Paired, paired
from edge_agent.tasks.multi_label import HALF, limits_of

if TYPE_CHECKING:
    from compressor.gates.evidence import GateRecipe
    from compressor.measurement.predictions import Compared, Predictions

Floats = NDArray[np.float32]
Sets = NDArray[np.bool_]
CONFIDENCE = 0.95
REPLICATES = 1000
MIN_POSITIVES = 10
"""Of fewer rows with a label, or without it, no threshold of its own is chosen: it has the one of all labels."""
_LOWEST, _HIGHEST = 0.02, 0.98


def sets_of(said: Predictions) -> Sets:
    """Return which labels ``said`` answers with, bool (N, labels), at its thresholds."""
    return np.asarray(said.logits >= limits_of(said.thresholds, said.logits.shape[1]))


def counts_of(said: Predictions, labels: Sets) -> PictureCounts:
    """Return the right labels, the answered ones and the true ones of each row."""
    own = sets_of(said)
    return PictureCounts(*(np.asarray(part.sum(axis=1), np.int64) for part in (own & labels, own, labels)))


def figures(gate_set: Compared, drifted: Compared | None = None) -> dict[str, float]:
    """Return mean average precision and F1 of candidate, float model and baseline by the names of the certificate."""
    del drifted
    labels = gate_set.labels
    found = {
        "n_gate": float(len(labels)), "sources_gate": float(gate_set.independent), "labels_gate": float(labels.sum()),
    }  # fmt: skip
    models = {"": gate_set.candidate, "float_": gate_set.float_model, "baseline_": gate_set.baseline}
    for prefix, said in models.items():
        values = label_precisions(said, labels)
        found[f"{prefix}map"] = float(np.nanmean(values)) if np.isfinite(values).any() else math.nan
        found[f"{prefix}f1"] = float(counts_of(said, labels).f1()[0])
    found["macro_f1"] = float(np.mean([_f1(*one) for one in zip(sets_of(gate_set.candidate).T, labels.T, strict=True)]))
    found["exact_ratio"] = float((sets_of(gate_set.candidate) == labels).all(axis=1).mean())
    found["constant_gain"] = found["f1"] - _constant_f1(labels)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _f1(said: NDArray[np.bool_], there: NDArray[np.bool_]) -> float:
    both = int(said.sum() + there.sum())
    return 2 * int((said & there).sum()) / both if both else 1.0


def _constant_f1(labels: Sets) -> float:
    """Return the highest F1 of one set of labels as the answer to everything: the most frequent ones."""
    often = np.sort(labels.sum(axis=0))[::-1]
    answered = len(labels) * np.arange(1, len(often) + 1)
    return float((2 * np.cumsum(often) / (answered + labels.sum())).max())


def evidence(
    gate_set: Compared, class_names: tuple[str, ...], figures: Mapping[str, float], drifted: Compared | None = None,
    rules: Sequence[GateRecipe] = (),
) -> Evidence:  # fmt: skip
    """Return the drops of a gate set, the recall of each label, and the rows whose set of labels changed."""
    del drifted
    labels, sources = gate_set.labels, gate_set.sources
    before, plain, after = (sets_of(one) for one in (gate_set.baseline, gate_set.float_model, gate_set.candidate))
    try:
        found, unknown = metrics(gate_set, rules), {}
    except MeasureError as error:
        found, unknown = {}, dict.fromkeys(LABELS, str(error))
    same = (plain == after).all(axis=1)

    def recall(at: int) -> Paired:
        rows = labels[:, at]
        return paired(before[rows, at], after[rows, at], None if sources is None else sources[rows])

    recalls = {name: recall(at) for at, name in enumerate(class_names) if labels[:, at].any()}
    exact = [(one == labels).all(axis=1) for one in (plain, after)]
    return Evidence(
        classes=recalls,
        compressed=paired(exact[0], exact[1], sources),
        flips=paired(np.ones_like(same), same, sources).lost,
        figures={**figures, **_of_labels(gate_set, class_names)},
        metrics=found,
        unknown=unknown,
    )


def _of_labels(gate_set: Compared, class_names: tuple[str, ...]) -> dict[str, float]:
    """Return average precision, recall, precision and threshold of each label, for the certificate."""
    labels, own = gate_set.labels, sets_of(gate_set.candidate)
    thresholds = gate_set.candidate.thresholds or (HALF,) * len(class_names)
    right = (own & labels).sum(axis=0)
    areas = label_precisions(gate_set.candidate, labels)
    found: dict[str, float] = {}
    for at, (name, value) in enumerate(zip(class_names, areas, strict=True)):
        there, said = int(labels[:, at].sum()), int(own[:, at].sum())
        found |= {f"ap {name}": float(value), f"recall {name}": int(right[at]) / there} if there else {}
        found |= {f"precision {name}": int(right[at]) / said} if said else {}
        found[f"threshold {name}"] = float(thresholds[at])
    return found


def metrics(gate_set: Compared, rules: Sequence[GateRecipe]) -> dict[str, MetricEvidence]:
    """Return the drops of mAP and F1 with their bounds, at the highest confidence that one of ``rules`` needs.

    Raises:
        MeasureError: If no row has a label.
    """
    alone = gate_set.one_of_each()
    of_map, of_f1 = (
        Draws(max([CONFIDENCE, *(rule.confidence for rule in rules if rule.name == name)]), REPLICATES)
        for name in LABELS
    )
    before, after = alone.baseline, alone.candidate
    return {
        LABELS[0]: label_precision_drop(alone.labels, before.logits, after.logits, of_map),
        LABELS[1]: label_f1_drop(alone.labels, sets_of(before), sets_of(after), of_f1),
    }


def label_precisions(said: Predictions, labels: Sets) -> NDArray[np.float64]:
    """Return the average precision of each label, float64 (labels,); NaN of one that no row has."""
    return np.asarray(average_precisions(labels, said.logits)(np.ones((1, len(labels))))[0])


def device_figures(gate_set: Compared) -> dict[str, float]:
    """Return the figures of a device's answers, by the names in ``figures``."""
    return figures(gate_set)


def compared_figures(evidence: Evidence) -> dict[str, float]:
    """Return the drops of mAP and F1 and their upper bounds."""
    found = {name: evidence.metrics[name] for name in LABELS if name in evidence.metrics}
    return {name: one.drop for name, one in found.items()} | {f"{name}_upper": one.upper for name, one in found.items()}


def differs(one: Predictions, other: Predictions, allowed_abs: float) -> NDArray[np.bool_]:
    """Return which rows have different sets of labels, each at its model's thresholds."""
    del allowed_abs
    return np.asarray((sets_of(one) != sets_of(other)).any(axis=1))


def score(said: Predictions, labels: Sets) -> float:
    """Return the mean over rows of their F1."""
    return float(counts_of(said, labels).each.mean())


def order(fitted: tuple[Predictions, Sets], judged: tuple[Predictions, Sets], names: tuple[str, ...]) -> Reordered:
    """Return nothing: another order of the labels is not sought."""
    del fitted, judged, names
    return Reordered({}, "")


def parity(forms: Mapping[str, Floats]) -> tuple[Pair, ...]:
    """Return the largest difference and the lowest cosine of every two forms' logits, and the share of changed sets.

    Raises:
        MeasureError: If two forms differ in shape or there are no inputs.
    """
    return tuple(
        replace(pair, flip_ratio=float(((forms[pair.first] > 0) != (forms[pair.second] > 0)).any(axis=1).mean()))
        for pair in matrix(forms)
    )


def meaning(said: Floats, slack: float) -> str:
    """Return ``sigmoid`` if all outputs are 0 to 1: the file ends in a sigmoid."""
    return "sigmoid" if said.min() >= -slack and said.max() <= 1 + slack and np.ptp(said) > 0 else ""


def golden_rows(labels: Sets, said: Predictions, most: int) -> NDArray[np.int64]:
    """Return up to ``most`` rows: of each set of labels in turn those farthest from any threshold."""
    del labels
    margin = np.abs(said.logits - limits_of(said.thresholds, said.logits.shape[1])).min(axis=1)
    kinds = np.unique(sets_of(said), axis=0, return_inverse=True)[1].reshape(-1)
    turns: dict[int, int] = {}
    keyed = []
    for row in np.argsort(-margin, kind="stable").tolist():
        kind = int(kinds[row])
        turns[kind] = turns.get(kind, 0) + 1
        keyed.append((turns[kind], -float(margin[row]), row))
    return np.array(sorted(row for _, _, row in sorted(keyed)[:most]), dtype=np.int64)


def golden_reach(said: Floats) -> tuple[float, int]:
    """Return the largest logit, and that no flip is allowed."""
    return float(np.abs(said).max()), 0


def temperature(said: Floats, labels: Sets) -> float:
    """Return 1: a probability is the sigmoid of its logit, and each label has a threshold."""
    del said, labels
    return 1.0


def thresholds(said: Floats, labels: Sets) -> tuple[float, ...]:
    """Return for each label the probability from which it is answered: that of the highest F1 on these rows.

    A label with fewer than ``MIN_POSITIVES`` rows with it, or without it, has the threshold of all labels together.
    """
    wide = 1 / (1 + np.exp(-said.astype(np.float64)))
    together = _best(wide.ravel(), labels.ravel())
    counts = labels.sum(axis=0)
    enough = np.minimum(counts, len(labels) - counts) >= MIN_POSITIVES
    own = [_best(wide[:, at], labels[:, at]) if enough[at] else together for at in range(labels.shape[1])]
    return tuple(float(np.float32(np.clip(round(one, 4), _LOWEST, _HIGHEST))) for one in own)


def _best(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """Return the threshold of the highest F1, halfway between two scores; ``HALF`` if nothing is there."""
    if not there.any():
        return HALF
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], np.cumsum(there[order])
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + int(there.sum()))
    ends = np.append(scores[:-1] > scores[1:], True)  # equal scores are answered together
    best = int(np.where(ends, f1, -1).argmax())
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    return float((scores[best] + below) / 2)
