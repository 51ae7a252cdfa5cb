"""Gates on the candidate alone: it beats a constant answer, and its labels are in the right order. Pure.

A gate on a drop compares a candidate with its origin, which may be equally bad, or be the very same file. These two
gates apply to every run with gates, unless the recipe gives a reason against them. Source of the assignment: Kuhn, The
Hungarian Method for the Assignment Problem, 1955, by scipy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from compressor.gates.evidence import Evidence, GateResult, Verdict, missing, points
from compressor.statistics.paired import wilson

BETTER_THAN_CONSTANT = "better_than_constant"
LABEL_ORDER = "label_order"
_NAMED = 6
_CONFIDENCE = 0.95
_FEW = 5
"""Calibration rows per class. Of exchanges of two classes with this many rows each, simulated 400 times for 2 to 10
classes, at most 3 % were missed with 5 rows, 15 % with 2 and 34 % with 1 for a model of 80 % accuracy; for a weaker
model more.
"""
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BetterThanConstant:
    """A classifier is more accurate than the majority class; a regression is more accurate than the mean of the values.

    Another task gives its gain over a constant answer in the figure ``constant_gain``.
    """

    gain: float
    confidence: float = _CONFIDENCE
    name: str = BETTER_THAN_CONSTANT

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS if the gain (points of accuracy, or share of the error) exceeds ``gain``, else FAIL."""
        figures = evidence.figures
        if "mae" in figures and "constant_mae" in figures:
            own, constant = figures["mae"], figures["constant_mae"]
            value, n = (1 - own / constant if constant > 0 else 0.0), int(figures.get("n_gate", 0))
            said = f"mean error {own:.4g}, that of their mean for everything {constant:.4g}"
        elif "accuracy" in figures and evidence.classes:
            sizes = {name: counts.n for name, counts in evidence.classes.items()}
            often, n = max(sizes, key=lambda name: sizes[name]), sum(sizes.values())
            share = sizes[often] / n
            value = figures["accuracy"] - share
            said = f"right on {points(figures['accuracy'])}, the answer {often!r} to everything on {points(share)}"
        elif "constant_gain" in figures:
            value, n = figures["constant_gain"], int(figures.get("n_gate", 0))
            said = f"better than one answer to everything by {points(value)}"
        else:
            return missing(self.name, self.gain, evidence.unknown)
        if value > self.gain:
            return GateResult(
                name=self.name, verdict=Verdict.PASS, value=value, bound=value, limit=self.gain, n=n, text=said
            )
        advice = "look at training, [model] labels and [data] mean and std, or give [model] allow_constant a reason"
        return GateResult(
            name=self.name,
            verdict=Verdict.FAIL,
            value=value,
            bound=value,
            limit=self.gain,
            n=n,
            text=f"{said}: {advice}",
        )


@dataclass(frozen=True, slots=True)
class LabelOrder:
    """No other order of the labels fits the rows far better, as it would for a file trained with another order."""

    limit: float
    confidence: float = _CONFIDENCE
    name: str = LABEL_ORDER

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS, or FAIL with the better order if its lower bound exceeds the upper bound of the recipe's."""
        reordered, low = (evidence.figures.get(f"reordered_accuracy{end}") for end in ("", "_low"))
        own, high = evidence.figures.get("accuracy"), evidence.figures.get("accuracy_high")
        if reordered is None or low is None or own is None or high is None:
            return missing(self.name, self.limit, evidence.unknown)
        n = int(evidence.figures.get("n_gate", 0))
        if low - high <= self.limit:
            fits = f"{points(reordered)} instead of {points(own)} in another order is within chance"
            text = f"{fits if reordered > own else 'no other order fits better'}{sought(evidence.figures)}"
            verdict = Verdict.PASS
        else:
            said = f"with labels in another order it is right on {points(reordered)} instead of {points(own)}"
            named = f" ({evidence.label_order})" if evidence.label_order else ""
            advice = "set [model] labels in the order of the outputs, or give [model] allow_constant a reason"
            text, verdict = f"{said}{named}: {advice}", Verdict.FAIL
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=reordered - own,
            bound=low - high,
            limit=self.limit,
            n=n,
            text=text,
        )


def sought(figures: Mapping[str, float]) -> str:
    """Return as the end of a sentence how many rows were searched for another order, and whether these are too few.

    "" for a certificate of a version that did not count them.
    """
    if "order_rows" not in figures:
        return ""
    rows = int(figures["order_rows"])
    if not few(figures):
        return f" (sought on {rows} calibration rows)"
    return (
        f"; but it was sought on {rows} calibration rows only, {int(figures['order_rarest_rows'])} of the rarest "
        "class: an exchange of labels may not have been found; give more calibration rows ([data] shares)"
    )


def few(figures: Mapping[str, float]) -> bool:
    """Return whether a class had too few calibration rows to detect its exchange with another."""
    return figures.get("order_rarest_rows", _FEW) < _FEW


@dataclass(frozen=True, slots=True)
class Reordered:
    """Effect of another order of the labels: ``figures`` by name, and the order as text in ``named``."""

    figures: dict[str, float]
    named: str


def reordered(fitted: tuple[Labels, Labels], judged: tuple[Labels, Labels], names: Sequence[str]) -> Reordered:
    """Return the score of the best order of the labels, found on ``fitted`` and judged on ``judged``.

    Both are (predicted, label) of rows, int64 (N,); the rows differ, so that the order is not judged by the rows that
    chose it. ``names``: the classes in the recipe's order.
    """
    predicted, labels = fitted
    classes = len(names)
    counts = np.bincount(predicted * classes + labels, minlength=classes * classes).reshape(classes, classes)
    counts = 2 * counts + np.eye(classes, dtype=counts.dtype)  # a tie leaves an output with its own label
    order = linear_sum_assignment(counts, maximize=True)[1]
    right, n = int((order[judged[0]] == judged[1]).sum()), len(judged[1])
    moved = [i for i in range(classes) if order[i] != i]
    named = ", ".join(f"{names[i]!r} is {names[order[i]]!r}" for i in moved[:_NAMED])
    more = f" and {len(moved) - _NAMED} more" if len(moved) > _NAMED else ""
    figures = {
        "reordered_accuracy": right / n,
        "reordered_accuracy_low": wilson(right, n, _CONFIDENCE)[0],
        "order_rows": float(len(labels)),
        "order_rarest_rows": float(np.bincount(labels, minlength=classes).min()),
    }
    return Reordered(figures, named + more)
