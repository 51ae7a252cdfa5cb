"""Gates: the conditions that a candidate must meet before it may be signed. Pure; fail closed.

Decides PASS, FAIL or INCONCLUSIVE (needs n more labelled samples) from measurements made elsewhere. A missing
measurement fails. Does not measure, and reads no file or clock.

A gate on a drop compares a candidate with its origin, which may be equally bad, or be the very same file. Two gates
look at the candidate alone: it beats a constant answer, and its labels are in the right order. They apply to every run
with gates, unless the recipe gives a reason against them. Source of the assignment behind the order: Kuhn, The
Hungarian Method for the Assignment Problem, 1955, by scipy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment

from compressor.gates.evidence import Evidence, Gate, GateResult, Verdict, missing, more, points, sure, worst
from compressor.gates.metrics import MetricDrop
from compressor.statistics import order_statistics
from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.paired import Paired, drop_lower, drop_upper, p_value, proportion_bounds, wilson
from compressor.statistics.power import POWER, samples_for, samples_still_needed

__all__ = [
    "CONFIDENCE", "AccuracyDrop", "AllOf", "BetterThanConstant", "Evidence", "Figure", "FlipRatio", "Gate",
    "GateResult", "Judgement", "LabelOrder", "MetricDrop", "MetricEvidence", "Reordered",
    "Repeated", "Superiority", "Verdict",
    "WorstSliceDrop", "reordered",
]  # fmt: skip

CONFIDENCE = 0.95
BETTER_THAN_CONSTANT = "better_than_constant"
LABEL_ORDER = "label_order"
NO_LABELS = " (this gate needs no labels)"
_NAMED = 6
_FAR = 10
"""Times the present samples: more than that nobody labels, so the line says what these show."""
_ROUNDING = 1e-9
_FEW = 5
"""Calibration rows per class. Of exchanges of two classes with this many rows each, simulated 400 times for 2 to 10
classes, at most 3 % were missed with 5 rows, 15 % with 2 and 34 % with 1 for a model of 80 % accuracy; for a weaker
model more.
"""
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """The one-sided lower bound of the accuracy is at least ``floor`` (0..1).

    Decides by the exact (Clopper-Pearson) bound of one proportion. Does not compare with a baseline: that is
    ``AccuracyDrop``, which is paired and much sharper.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413; the number of samples by the normal
    approximation, J. L. Fleiss, Statistical Methods for Rates and Proportions, 2nd edition (1981), section 2.2.
    """

    floor: float
    confidence: float = 0.95
    name: str = "accuracy"

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when measured below the floor, else INCONCLUSIVE with the samples needed."""
        value, counts = evidence.figures.get(self.name), evidence.accuracy
        if value is None or not math.isfinite(value) or counts is None or not counts.n:
            return missing(self.name, self.floor, evidence.unknown)
        right = math.floor(value * counts.n + _ROUNDING) if counts.rows else round(value * counts.n)
        low, _ = proportion_bounds(right, counts.n, self.confidence)
        if low >= self.floor:
            verdict, needs = Verdict.PASS, 0
        elif value < self.floor:
            verdict, needs = Verdict.FAIL, 0
        else:
            verdict, needs = Verdict.INCONCLUSIVE, max(0, samples_above(value, self) - counts.n)
        text = (
            f"{points(value)}, at least {points(low)} with {sure(self.confidence)} confidence, "
            f"allowed at least {points(self.floor)} ({counts.counted}{'' if counts.rows else ' samples'}){more(needs)}"
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=value,
            bound=low,
            limit=self.floor,
            n=counts.n,
            text=text,
            needs=needs,
        )


def samples_above(accuracy: float, gate: AccuracyFloor) -> int:
    """Return about how many samples show that a true ``accuracy`` (0..1) exceeds the floor; 0: no number does."""
    floor, gap = gate.floor, accuracy - gate.floor
    if gap <= 0:
        return 0
    sure, often = (float(stats.norm.ppf(share)) for share in (gate.confidence, POWER))
    spread = sure * math.sqrt(floor * (1 - floor)) + often * math.sqrt(accuracy * (1 - accuracy))
    exact = 1 / gap  # the continuity correction of an exact bound
    return math.ceil((spread / gap) ** 2 + exact)


@dataclass(frozen=True, slots=True)
class AccuracyDrop:
    """Paired non-inferiority: the upper bound of the drop in accuracy is at most ``margin`` (0..1)."""

    margin: float
    confidence: float = CONFIDENCE
    name: str = "accuracy_drop"

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when rejected or when enough samples still show a drop above the margin."""
        counts = evidence.accuracy
        if counts is None or not counts.n:
            return missing(self.name, self.margin, evidence.unknown)
        bound = drop_upper(counts, self.confidence)
        verdict, needs = _three(counts, bound, self.margin, self.confidence)
        far = (
            f"; these samples show a margin of {points(bound)} and not less: rows on which the two models disagree "
            "carry the power (disagreements.tsv lists them; compressor gate --against OLD.tfb --disagreements FILE; "
            "if the inputs are pictures, --unlabelled FOLDER adds those without labels)"
            if needs > _FAR * counts.n
            else ""
        )
        text = (
            f"drop {points(counts.drop)}, at most {points(bound)} with {sure(self.confidence)} confidence, "
            f"allowed {points(self.margin)} ({counts.lost} lost, {counts.won} won of {counts.counted}){more(needs)}"
            f"{far}{_planned(counts, self)}"
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=counts.drop,
            bound=bound,
            limit=self.margin,
            n=counts.n,
            text=text,
            needs=needs,
        )


def _planned(counts: Paired, gate: AccuracyDrop) -> str:
    planned = samples_for(gate.margin, counts.discordance, confidence=gate.confidence)
    if not planned:
        return ""
    return f"; {planned} samples show an equal model with {POWER:.0%} power at {points(counts.discordance)} discordance"


@dataclass(frozen=True, slots=True)
class WorstSliceDrop:
    """Non-inferiority of every slice (or class) at ``margin``.

    It passes only if each of them is shown, so each is tested at the full risk: one that is worse by the margin passes
    with at most that risk, and the others can only make a pass rarer. A refutation of any one of them would be enough
    for FAIL, so that one is tested at the Bonferroni level.

    Source: R. L. Berger, Multiparameter hypothesis testing and acceptance sampling, Technometrics 24 (1982) 295-300,
    theorem 1 (intersection-union tests).
    """

    margin: float
    confidence: float = CONFIDENCE
    by_class: bool = False

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict of the slice farthest from passing, with the bound that decided it."""
        kind = "class" if self.by_class else "slice"
        groups = evidence.classes if self.by_class else evidence.slices
        slices = {name: counts for name, counts in groups.items() if counts.n}
        if not slices:
            return missing(f"worst_{kind}_drop", self.margin, evidence.unknown)
        refuting = 1 - (1 - self.confidence) / len(slices)
        verdicts, risks = {}, {}
        for name, counts in slices.items():
            risks[name] = p_value(counts, self.margin, 1 - self.confidence)
            shown = risks[name] <= 1 - self.confidence
            verdicts[name] = (
                (Verdict.PASS, 0) if shown else _three(counts, 1.0, self.margin, self.confidence, refuting=refuting)
            )
        worst = max(slices, key=lambda name: (verdicts[name][0].rank, risks[name], slices[name].drop))
        verdict, needs = verdicts[worst]
        counts, bound = slices[worst], drop_upper(slices[worst], self.confidence)
        text = (
            f"{kind} {worst!r}: drop {points(counts.drop)}, at most {points(bound)} with {sure(self.confidence)} "
            f"confidence, allowed {points(self.margin)} ({counts.lost} lost, {counts.won} won of {counts.counted}; "
            f"the worst of {len(slices)}){more(needs)}"
        )
        return GateResult(
            name=f"worst_{kind}_drop",
            verdict=verdict,
            value=counts.drop,
            bound=bound,
            limit=self.margin,
            n=counts.n,
            text=text,
            needs=needs,
        )


@dataclass(frozen=True, slots=True)
class Superiority:
    """The candidate is better than the baseline on the drifted samples by more than ``gain`` (0..1)."""

    gain: float = 0.0
    confidence: float = CONFIDENCE
    name: str = "superiority"

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when the lower bound of the gain exceeds ``gain``, FAIL when the candidate is not better."""
        counts = evidence.drifted
        if counts is None or not counts.n:
            return missing(self.name, self.gain, evidence.unknown)
        bound = -drop_upper(counts, self.confidence)
        verdict, needs = _three(counts, -bound, -self.gain, self.confidence, strict=True)
        text = (
            f"gain {points(-counts.drop)}, at least {points(bound)} with {sure(self.confidence)} confidence, "
            f"wanted more than {points(self.gain)} ({counts.won} won, {counts.lost} lost of {counts.counted})"
            f"{more(needs)}"
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=-counts.drop,
            bound=bound,
            limit=self.gain,
            n=counts.n,
            text=text,
            needs=needs,
        )


@dataclass(frozen=True, slots=True)
class FlipRatio:
    """The share of samples that compression flips; ``negative``: from right to wrong. Clopper and Pearson's bound."""

    limit: float
    confidence: float = CONFIDENCE
    negative: bool = False

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when the upper bound is at most ``limit``, FAIL when the share is above it."""
        name = "negative_flip_ratio" if self.negative else "flip_ratio"
        counts = evidence.compressed
        flips = counts.lost if counts and self.negative else evidence.flips
        if counts is None or flips is None or not counts.n:
            return missing(name, self.limit, evidence.unknown)
        bound = proportion_bounds(flips, counts.n, self.confidence)[1]
        share = flips / counts.n
        verdict = Verdict.PASS if bound <= self.limit else Verdict.INCONCLUSIVE
        verdict = Verdict.FAIL if share > self.limit else verdict
        needs = _more_flips(share, counts.n, self) if verdict is Verdict.INCONCLUSIVE else 0
        text = (
            f"{flips} of {counts.counted} {'got worse' if self.negative else 'changed'}: {points(share)}, "
            f"at most {points(bound)} with {sure(self.confidence)} confidence, "
            f"allowed {points(self.limit)}{more(needs)}{NO_LABELS if needs and not self.negative else ''}"
        )
        return GateResult(
            name=name, verdict=verdict, value=share, bound=bound, limit=self.limit, n=counts.n, text=text, needs=needs
        )


def _more_flips(share: float, n: int, gate: FlipRatio) -> int:
    """Return how many more samples pass at the same ``share``; 0 if 4096 times as many as there are do not."""
    low, high = n, 2 * n
    while not _few_flips(share, high, gate):
        if high >= n << 12:
            return 0
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _few_flips(share, middle, gate) else (middle, high)
    return high - n


def _few_flips(share: float, n: int, gate: FlipRatio) -> bool:
    return proportion_bounds(math.ceil(share * n), n, gate.confidence)[1] <= gate.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """A limit: a measured figure is at most ``maximum`` and at least ``minimum``. It has no bound.

    ``remark``: for a figure that other rows or another hour would change: that it says nothing of them.
    """

    name: str
    maximum: float | None = None
    minimum: float | None = None
    remark: str = field(default="", kw_only=True)

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS or FAIL; a figure that is missing or not finite fails."""
        limit = self.maximum if self.maximum is not None else self.minimum
        value = evidence.figures.get(self.name)
        if value is None or not math.isfinite(value) or limit is None or not math.isfinite(limit):
            return missing(self.name, math.nan if limit is None else limit, evidence.unknown)
        above = self.maximum is not None and value > self.maximum
        below = self.minimum is not None and value < self.minimum
        verdict = Verdict.FAIL if above or below else Verdict.PASS
        allowed = " and ".join(
            f"at {word} {edge:g}"
            for word, edge in (("most", self.maximum), ("least", self.minimum))
            if edge is not None
        )
        return GateResult(
            name=self.name,
            verdict=verdict,
            value=value,
            bound=value,
            limit=limit,
            n=0,
            text=f"{value:.6g}, allowed {allowed}{f' ({self.remark})' if self.remark else ''}",
        )


@dataclass(frozen=True, slots=True)
class Repeated:
    """A figure that was measured repeatedly: the bound of its median over repeats is within the limits of ``figure``.

    Without repeats, as in the certificate of an older version or the report of an older agent, the figure itself is.

    Source: ``compressor.statistics.order_statistics``.
    """

    figure: Figure

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS when shown, FAIL when shown to be beyond a limit, else INCONCLUSIVE with what is missing."""
        name, most, least = self.figure.name, self.figure.maximum, self.figure.minimum
        plain = self.figure.judge(evidence)
        repeats = evidence.figures.get(f"{name}_repeats", 0.0)
        low, high = (evidence.figures.get(f"{name}_{end}") for end in ("lower", "upper"))
        if plain.value is None or not math.isfinite(plain.limit) or not repeats:
            return plain
        n = int(repeats)
        if low is None or high is None:
            needed = order_statistics.least_repeats()
            text = f"{plain.value:.6g} in {n} repeats; at least {needed} are needed for a bound: measure again"
            return replace(plain, verdict=Verdict.INCONCLUSIVE, bound=None, n=n, text=text)
        within = (most is None or high <= most) and (least is None or low >= least)
        beyond = (most is not None and low > most) or (least is not None and high < least)
        verdict = Verdict.FAIL if beyond else Verdict.PASS if within else Verdict.INCONCLUSIVE
        bound = low if most is None else high
        text = (
            f"{plain.value:.6g}, at {'least' if most is None else 'most'} {bound:.6g} "
            f"with {sure(order_statistics.CONFIDENCE)} confidence, allowed {plain.limit:g} (median of {n} repeats)"
        )
        text += "; measure again while the machine does nothing else" if verdict is Verdict.INCONCLUSIVE else ""
        return replace(plain, verdict=verdict, bound=bound, n=n, text=text)


@dataclass(frozen=True, slots=True)
class BetterThanConstant:
    """A classifier is more accurate than the majority class; a regression is more accurate than the mean of the values.

    Another task gives its gain over a constant answer in the figure ``constant_gain``.
    """

    gain: float
    confidence: float = CONFIDENCE
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
    confidence: float = CONFIDENCE
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
    """Effect of another order of the labels: ``figures`` by name, and the order as text in ``named``.

    ``remark``: of a task without a gate on it, a sentence if another order fits far better.
    """

    figures: dict[str, float]
    named: str
    remark: str = ""


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
        "reordered_accuracy_low": wilson(right, n, CONFIDENCE)[0],
        "order_rows": float(len(labels)),
        "order_rarest_rows": float(np.bincount(labels, minlength=classes).min()),
    }
    return Reordered(figures, named + more)


@dataclass(frozen=True, slots=True)
class Judgement:
    """All gates together."""

    verdict: Verdict
    results: tuple[GateResult, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Passes when every gate passes; fails without gates."""

    gates: Sequence[Gate]

    def judge(self, evidence: Evidence) -> Judgement:
        """Return the worst verdict and all results, in the order of the gates."""
        results = tuple(gate.judge(evidence) for gate in self.gates)
        return Judgement(worst(result.verdict for result in results), results)


def _three(
    counts: Paired, upper: float, margin: float, confidence: float, *, strict: bool = False, refuting: float = 0.0
) -> tuple[Verdict, int]:
    if upper < margin or (upper == margin and not strict):
        return Verdict.PASS, 0
    if drop_lower(counts, max(refuting, confidence)) > margin:
        return Verdict.FAIL, 0
    if counts.drop >= margin:
        planned = samples_for(margin, counts.discordance, confidence=confidence)
        return (Verdict.FAIL, 0) if counts.n >= planned else (Verdict.INCONCLUSIVE, planned - counts.n)
    return Verdict.INCONCLUSIVE, samples_still_needed(counts, margin, confidence=confidence)
