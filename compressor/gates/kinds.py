"""Every kind of gate, one row each: the table ``KINDS``, and external gates by ``my_package.my_module:ATTRIBUTE``.

Decides which gates exist and everything that differs between them: limits, tasks, unit, where there is evidence, what
depends on the host's clock, and which are added to a recipe by default. A new gate is a row here, plus a class of its
own if it is more than a figure with a limit. Nothing else compares the name of a kind. The unit of a row determines the
valid range of its limit in a recipe, so that points or per cent by mistake are rejected, and how a report prints it.

On a device, the recipe's own gates apply to the device's measurements, and it must agree with this host. A disagreement
is more rows with another class than the allowed share, golden vectors outside their tolerance, or a gate that passes on
the device but not on this host. It fails: the two do not run the same model.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor import plugins
from compressor.errors import MeasureError, PluginError
from compressor.gates import (
    BETTER_THAN_CONSTANT,
    LABEL_ORDER,
    AccuracyDrop,
    AccuracyFloor,
    BetterThanConstant,
    Figure,
    FlipRatio,
    Gate,
    LabelOrder,
    Repeated,
    Superiority,
    WorstSliceDrop,
)
from compressor.gates.agreement import CHANGE
from compressor.gates.alarms import AUC, RATE, AucFloor, FalseAlarms
from compressor.gates.evidence import (
    AGREEMENT,
    SAMPLES,
    DeviceEvidence,
    Evidence,
    GateRecipe,
    GateResult,
    Verdict,
    missing,
    points,
)
from compressor.gates.metrics import (
    DETECTION,
    ERRORS,
    LABELS,
    VALUED,
    WORST_CLASS_MAP,
    WORST_SLICE,
    WORST_SLICE_MAP,
    ErrorCeiling,
    MetricDrop,
    PicturesDrop,
    WorstClassMapDrop,
    WorstSliceIncrease,
    WorstSliceMapDrop,
)
from compressor.gates.stream_events import (
    EVENTS,
    FALSE_ACCEPTS,
    FALSE_ACCEPTS_INCREASE,
    HOURS,
    RECALL,
    RECALL_DROP,
    EventRecall,
    EventRecallDrop,
    FalseAccepts,
    FalseAcceptsIncrease,
    rate,
)
from compressor.statistics.bootstrap import Draws, score_drop
from compressor.statistics.bounds import MetricEvidence

_NEARLY_ALL = 0.999
_LEAST = 1e-9
_ROUNDING = 1e-9
_RISK_DIGITS = 12  # 1 - .95 is not quite .05
_MEGABYTE = 1e6
_TIMES = "\N{MULTIPLICATION SIGN}"
CLASSES = ("classification",)
NUMBERS = ("regression",)
ANY_CLASSES = (*CLASSES, "unlabelled_classes")
ANY_NUMBERS = (*NUMBERS, "unlabelled_numbers")
BOXES = ("detection",)
ALARMS = ("anomaly",)
SETS = ("multi_label",)
"""Rows with several labels or none."""
STREAMS = ("stream_events",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The unit of a gate's value, bound and limit.

    ``text``: formats a value; ``low`` and ``high``: the valid range of a limit; ``hint``: added to its name in a
    message about an invalid limit; ``above_nothing``: a maximum of 0 or less is rejected, because no value is that
    small.
    """

    text: Callable[[float], str]
    low: float = -math.inf
    high: float = math.inf
    hint: str = ""
    above_nothing: bool = False

    def range_of(self, *, maximum: bool) -> tuple[float, float] | None:
        """Return the valid range of a ``maximum`` or a minimum; None if any value is valid."""
        if self.above_nothing:
            return (_LEAST, math.inf) if maximum else None
        return None if math.isinf(self.low) else (self.low, self.high)


def _per_cent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _bytes(value: float) -> str:
    return f"{value / 1000:,.1f} kB" if value < _MEGABYTE else f"{value / _MEGABYTE:,.1f} MB"


NUMBER = Unit(text="{:,.6g}".format)
"""A number without a unit."""
VALUES = Unit(text="{:,.4g}".format)
"""The unit of the values that a regression predicts."""
SHARE = Unit(text=_per_cent, low=0, high=1, hint=" as a share (0.01 is 1 %)")
"""A part of the whole, 0..1."""
POINTS = Unit(text=_per_cent, low=-_NEARLY_ALL, high=_NEARLY_ALL, hint=" as a share (0.01 is one point)")
"""The difference of two shares."""
PROPORTION = Unit(text=_per_cent, hint=" (nothing is of that size)", above_nothing=True)
"""The remaining share of the original size; above 1 if it grew."""
FACTOR = Unit(text=f"{{:.2f}} {_TIMES}".format, hint=" (nothing is of that size)", above_nothing=True)
"""A factor."""
PER_HOUR = Unit(text=rate, hint=" an hour", above_nothing=True)
"""A number of events an hour."""
BYTES = Unit(text=_bytes, hint=" (nothing is of that size)", above_nothing=True)
MILLISECONDS = Unit(text="{:.3f} ms".format, hint=" (nothing is of that size)", above_nothing=True)


class Place(Enum):
    """Where there is evidence for a gate.

    ``HOST``: only here, because it needs the float model, the file or the drifted samples; ``BOTH``: also on a device;
    ``DEVICE``: only on a device.
    """

    HOST = 1
    BOTH = 2
    DEVICE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKind:
    """One kind of gate.

    ``limits``: which of ``max`` and ``min`` a recipe may give. ``tasks``: the tasks that have it; empty: every task.
    ``place``: where there is evidence. ``timed``: depends on the clock or memory of a host and differs each time: not
    in bundles, and not measured for another processor. ``make``: creates the gate from its name, limit and confidence;
    None: the figure of the gate's name is compared with the limit, without a bound; ``remark``: what its line says of
    that. ``repeated``: it was measured repeatedly, and the 95 % bound of the median over repeats is compared.
    ``bounded``: the confidence is used. ``added``: the limit at which it applies by default. ``against``: the limit
    at which it applies by default to a comparison with a release. ``retrained``: only for a retraining. ``beside``:
    other figures of a certificate in the same unit. ``recorded``: it needs the float model or the samples of a
    retraining, so that of a finished bundle only the certificate has its counts. ``labelled``: more samples for it need
    labels; ``asks``: what it calls them. ``formerly``: its names in older recipes and certificates.
    ``measure``: for an external gate, computes from the labelled set under all models (``tasks.Compared``) a number
    or, if ``bounded``, a metric with its bounds. It has no ``make``: limit and bounds decide, so that a certificate
    is judged again without the module. ``score``: for a person's own metric, the score of each row, larger is better,
    from outputs and labels.
    """

    name: str = ""
    unit: Unit = NUMBER
    limits: tuple[str, ...] = ("max", "min")
    tasks: tuple[str, ...] = ()
    place: Place = Place.BOTH
    timed: bool = False
    make: Callable[[str, float, float], Gate] | None = None
    repeated: bool = False
    remark: str = ""
    bounded: bool = False
    added: float | None = None
    against: float | None = None
    retrained: bool = False
    recorded: bool = False
    labelled: bool = True
    asks: str = SAMPLES
    beside: tuple[str, ...] = ()
    formerly: tuple[str, ...] = ()
    measure: Callable[[Any], float | MetricEvidence] | None = None
    score: Callable[[Any, Any], Any] | None = None

    def rule(self, limit: float, on: str = "") -> GateRecipe:
        """Return the rule of this kind with ``limit``, on the device ``on`` or this host."""
        plain = GateRecipe(name=self.name, on=on)
        return replace(plain, max=limit) if self.limits[0] == "max" else replace(plain, min=limit)


def _of(gate: Callable[[float, float], Gate]) -> Callable[[str, float, float], Gate]:
    """Return the maker of a gate that knows its own name."""
    return lambda _name, limit, confidence: gate(limit, confidence)


def _repeats(name: str) -> tuple[str, ...]:
    """Return the figures that come with one that is measured repeatedly."""
    return tuple(f"{name}_{end}" for end in ("lower", "upper", "repeats"))


MOST, LEAST = ("max",), ("min",)
_FOUND = (
    ("float_map", "baseline_map", "map_50_95", "float_map_50_95"),
    ("f1", "f1_low", "f1_high", "float_f1", "baseline_f1"),
)
_ANSWERED: tuple[tuple[str, ...], ...] = ((), ("macro_f1", "exact_ratio"))
_ROWS = (
    GateKind(name="accuracy_drop", make=_of(AccuracyDrop), limits=MOST, tasks=CLASSES, unit=POINTS, bounded=True,
             against=0.02, beside=("drop", "drop_upper")),
    GateKind(name="worst_slice_drop", make=_of(WorstSliceDrop), limits=MOST, tasks=CLASSES, unit=POINTS, bounded=True,
             against=0.05),
    GateKind(name="worst_class_drop", make=_of(partial(WorstSliceDrop, by_class=True)), limits=MOST,
             tasks=(*CLASSES, *SETS), unit=POINTS, bounded=True, against=0.1),
    GateKind(name="flip_ratio", make=_of(FlipRatio), limits=MOST, tasks=(*ANY_CLASSES, *SETS), unit=SHARE, bounded=True,
             recorded=True, labelled=False,
             beside=("flip_ratio_upper", "agreement", "agreement_low", "agreement_high")),
    GateKind(name="negative_flip_ratio", make=_of(partial(FlipRatio, negative=True)), limits=MOST, tasks=CLASSES,
             unit=SHARE, bounded=True, recorded=True),
    GateKind(name="auc_drop", make=MetricDrop, limits=MOST, tasks=(*CLASSES, *ALARMS), unit=POINTS, bounded=True,
             beside=("auc_drop_upper",)),
    GateKind(name=AUC, make=_of(AucFloor), limits=LEAST, tasks=ALARMS, unit=SHARE, bounded=True,
             beside=("auc_low", "float_auc", "baseline_auc", "detected", "float_detected", "baseline_detected")),
    GateKind(name=RATE, make=_of(FalseAlarms), limits=MOST, tasks=ALARMS, unit=NUMBER, bounded=True,
             beside=("float_false_alarms_per_day", "stated_false_alarms_per_day")),
    GateKind(name="ranking_precision_drop", make=MetricDrop, limits=MOST, tasks=CLASSES, unit=POINTS, bounded=True,
             formerly=("map_drop",)),
    *(GateKind(name=name, make=PicturesDrop, limits=MOST, tasks=SETS, unit=POINTS, bounded=True, against=0.02,
           beside=(f"{name}_upper", *beside)) for name, beside in zip(LABELS, _ANSWERED, strict=True)),
    GateKind(name="calibration_error_increase", make=MetricDrop, limits=MOST, tasks=CLASSES, unit=POINTS, bounded=True),
    *(GateKind(name=name, make=MetricDrop, limits=MOST, tasks=NUMBERS, unit=VALUES, bounded=True,
           beside=(f"{name}_upper",)) for name in VALUED),
    GateKind(name=CHANGE, make=ErrorCeiling, limits=MOST, tasks=ANY_NUMBERS, unit=VALUES, bounded=True, recorded=True,
             labelled=False, beside=tuple(f"{CHANGE}_{end}" for end in ("upper", "low", "high", "max"))),
    GateKind(name=WORST_SLICE, make=_of(WorstSliceIncrease), limits=MOST, tasks=NUMBERS, unit=VALUES, bounded=True),
    *(GateKind(name=name, make=ErrorCeiling, limits=MOST, tasks=NUMBERS, unit=VALUES, bounded=True,
           beside=(f"{name}_low", f"{name}_high", f"float_{name}", f"baseline_{name}", f"constant_{name}"))
      for name in ERRORS),
    *(GateKind(name=name, make=PicturesDrop, limits=MOST, tasks=BOXES, unit=POINTS, bounded=True, against=0.02,
           beside=(f"{name}_upper", *beside)) for name, beside in zip(DETECTION, _FOUND, strict=True)),
    GateKind(name=WORST_SLICE_MAP, make=_of(WorstSliceMapDrop), limits=MOST, tasks=BOXES, unit=POINTS, bounded=True),
    GateKind(name=WORST_CLASS_MAP, make=_of(WorstClassMapDrop), limits=MOST, tasks=BOXES, unit=POINTS, bounded=True),
    GateKind(name="map", tasks=(*BOXES, *SETS), unit=SHARE, limits=LEAST,
             remark="a limit on these rows, without a bound: the gates on its drop have one"),
    GateKind(name=FALSE_ACCEPTS, make=_of(FalseAccepts), limits=MOST, tasks=STREAMS, unit=PER_HOUR, bounded=True,
             asks=HOURS, beside=tuple(f"{model}{FALSE_ACCEPTS}{end}" for model in ("", "float_", "baseline_")
                 for end in ("", "_low", "_high") if model or end)),
    GateKind(name=RECALL, make=_of(EventRecall), limits=LEAST, tasks=STREAMS, unit=SHARE, bounded=True, asks=EVENTS,
             beside=(f"{RECALL}_low", f"{RECALL}_high", f"float_{RECALL}", f"baseline_{RECALL}")),
    GateKind(name=RECALL_DROP, make=_of(EventRecallDrop), limits=MOST, tasks=STREAMS, unit=POINTS, bounded=True,
             against=0.02, asks=EVENTS, beside=(f"{RECALL_DROP}_upper",)),
    GateKind(name=FALSE_ACCEPTS_INCREASE, make=_of(FalseAcceptsIncrease), limits=MOST, tasks=STREAMS, unit=PER_HOUR,
             bounded=True, asks=HOURS, beside=(f"{FALSE_ACCEPTS_INCREASE}_upper",)),
    GateKind(name="accuracy", make=_of(AccuracyFloor), limits=LEAST, tasks=CLASSES, unit=SHARE, bounded=True,
             beside=("accuracy_low", "accuracy_high", "float_accuracy", "baseline_accuracy", "reordered_accuracy",
                 "reordered_accuracy_low", "drifted_accuracy_before", "drifted_accuracy")),
    GateKind(name=BETTER_THAN_CONSTANT, make=_of(BetterThanConstant), limits=LEAST, place=Place.HOST, unit=POINTS,
             added=0.0),
    GateKind(name=LABEL_ORDER, make=_of(LabelOrder), limits=MOST, tasks=CLASSES, place=Place.HOST, unit=POINTS,
             added=0.0),
    GateKind(name="superiority", make=_of(Superiority), limits=LEAST, tasks=CLASSES, place=Place.HOST, unit=SHARE,
             bounded=True, added=0.0, retrained=True, recorded=True),
    GateKind(name=AGREEMENT, limits=MOST, place=Place.DEVICE, unit=SHARE, added=0.01),
    GateKind(name="calibration_error", tasks=CLASSES, unit=SHARE,
             remark="a limit on these rows, without a bound: calibration_error_increase has one"),
    GateKind(name="int8_macs_ratio", place=Place.HOST, unit=SHARE),
    GateKind(name="latency_p50_ms", repeated=True, unit=MILLISECONDS, timed=True,
             beside=("float_latency_p50_ms", *_repeats("latency_p50_ms"), *_repeats("float_latency_p50_ms"))),
    GateKind(name="latency_p95_ms", repeated=True, unit=MILLISECONDS, timed=True,
             beside=("float_latency_p95_ms", *_repeats("latency_p95_ms"), *_repeats("float_latency_p95_ms"))),
    GateKind(name="latency_ratio", repeated=True, place=Place.HOST, unit=FACTOR, timed=True,
             beside=_repeats("latency_ratio")),
    GateKind(name="parity_cosine", place=Place.HOST),
    GateKind(name="parity_flip_ratio", tasks=(*ANY_CLASSES, *SETS), place=Place.HOST, unit=SHARE,
             remark="a limit on these rows, without a bound: flip_ratio has one", beside=("release_flip_ratio",)),
    GateKind(name="parity_max_abs", place=Place.HOST),
    GateKind(name="peak_memory_bytes", unit=BYTES, timed=True, remark="a limit: measured once, without a bound",
             beside=("float_peak_memory_bytes",)),
    GateKind(name="size_bytes", place=Place.HOST, unit=BYTES, beside=("float_size_bytes",)),
    GateKind(name="size_ratio", place=Place.HOST, unit=PROPORTION),
    GateKind(name="speed_up_ratio", repeated=True, place=Place.HOST, unit=FACTOR, timed=True,
             beside=_repeats("speed_up_ratio")),
)  # fmt: skip
KINDS: Mapping[str, GateKind] = {kind.name: kind for kind in _ROWS}
"""Every gate that a recipe may name, by its name, except external gates."""
RENAMED: Mapping[str, str] = {old: kind.name for kind in _ROWS for old in kind.formerly}
"""Names of gates in older recipes and certificates, mapped to their present names."""
_BESIDE: Mapping[str, GateKind] = {name: kind for kind in _ROWS for name in kind.beside}


def kind_of(name: str) -> GateKind | None:
    """Return the kind of the gate ``name`` in a recipe or certificate; None if this version has none.

    An external one, ``my_package.my_module:ATTRIBUTE``, is imported and keeps its whole name. A plain function is a
    person's own metric: the drop of its mean is bounded.

    Raises:
        PluginError: If the module of an external gate can't be imported, or the attribute is neither a ``GateKind`` nor
            a function.
    """
    if ":" not in name:
        found = _own(name)
        return None if found is None else replace(found, name=name)
    made = plugins.attribute(name)
    if isinstance(made, FunctionType):
        return GateKind(name=name, limits=MOST, bounded=True, score=made)
    if not isinstance(made, GateKind):
        message = f"Expected as the gate {name!r} a compressor.gates.kinds.GateKind, got {type(made).__name__}"
        raise PluginError(f"{message}: or name a function of outputs and labels that returns a score a row")
    if made.measure is None or made.make is not None:
        message = f"Expected the gate {name!r} with measure and without make, got others: say what it looks at"
        raise PluginError(message)
    if made.limits not in ((MOST,) if made.bounded else (MOST, LEAST, (*MOST, *LEAST))):
        message = f"Expected limits of the gate {name!r} to be ('max',), ('min',) or both, got {made.limits}"
        raise PluginError(f"{message}: of a bounded one ('max',)")
    return replace(made, name=name, timed=False)


def risks_of(rules: Sequence[GateRecipe]) -> tuple[float, ...]:
    """Return the different risks, 1 - confidence, of those of ``rules`` that have a bound, the largest first.

    Raises:
        PluginError: As in ``kind_of``.
    """
    kinds = [(rule, kind_of(rule.name)) for rule in rules]
    risks = {round(1 - rule.confidence, _RISK_DIGITS) for rule, kind in kinds if kind is not None and kind.bounded}
    return tuple(sorted(risks, reverse=True))


def _own(name: str) -> GateKind | None:
    return KINDS.get(RENAMED.get(name, name))


def gate(rule: GateRecipe) -> Gate | None:
    """Return the gate of ``rule``; None if there is no such gate or its limit is missing.

    An external one is judged by its recorded measurement: the name in a certificate must not cause an import.
    """
    if ":" in rule.name and rule.limit is not None:
        return Measured(rule)
    kind = _own(rule.name)
    if kind is None or rule.limit is None:
        return None
    if kind.make is None:
        limit_on = Figure(rule.name, rule.max, rule.min, remark=kind.remark)
        return Repeated(limit_on) if kind.repeated else limit_on
    limit: float | None = getattr(rule, kind.limits[0])
    return kind.make(rule.name, limit, rule.confidence) if limit is not None else None


@dataclass(frozen=True, slots=True)
class Measured:
    """An external gate: the number, or the metric with its bounds, that was measured under its name."""

    rule: GateRecipe

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict of the limit on the number, or on the bounds; FAIL if neither was measured."""
        rule = self.rule
        if rule.name in evidence.metrics and rule.max is not None:
            return MetricDrop(rule.name, rule.max, rule.confidence).judge(evidence)
        return Figure(rule.name, rule.max, rule.min).judge(evidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """A gate on the measurements of ``device``."""

    gate: Gate
    device: str
    name: str
    limit: float

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the gate's verdict on the device's evidence; FAIL with the reason if there is none."""
        said = evidence.devices.get(self.device)
        if said is None or said.problem:
            return _unmeasured(self.name, self.limit, self.device, said)
        return replace(self.gate.judge(said.evidence), on=self.device)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Device and host give the same answers for the same rows. ``gates`` are those judged on both."""

    device: str
    limit: float
    gates: Sequence[Gate] = ()

    def judge(self, evidence: Evidence) -> GateResult:
        """Return PASS, or FAIL with all disagreements; what was not compared also fails."""
        said = evidence.devices.get(self.device)
        if said is None or said.problem:
            return _unmeasured(AGREEMENT, self.limit, self.device, said)
        figures = said.evidence.figures
        share, rows, flips = figures.get(AGREEMENT), figures.get("device_rows", 0.0), figures.get("device_flips", 0.0)
        if share is None or not rows:
            return replace(missing(AGREEMENT, self.limit, said.evidence.unknown), on=self.device)
        compared = f"{flips:.0f} of {rows:.0f} rows answer otherwise than here: {points(share)}, at most "
        reasons = [] if share <= self.limit else [f"{compared}{points(self.limit)} allowed"]
        reasons += _golden(figures)
        reasons += [
            reason for gate in self.gates if (reason := _better_there(gate.judge(said.evidence), gate.judge(evidence)))
        ]
        text = f"{compared}{points(self.limit)} (a limit on these rows); golden vectors agree"
        if reasons:
            text = f"device and host disagree: {'; '.join(reasons)}: not to be trusted before it is known why"
        verdict = Verdict.FAIL if reasons else Verdict.PASS
        return GateResult(
            name=AGREEMENT,
            verdict=verdict,
            value=share,
            bound=share,
            limit=self.limit,
            n=int(rows),
            text=text,
            on=self.device,
        )


def _unmeasured(name: str, limit: float, device: str, said: DeviceEvidence | None) -> GateResult:
    text = said.problem if said is not None else f"Expected a measurement of {device}, got none: give --server"
    return GateResult(name=name, verdict=Verdict.FAIL, value=None, bound=None, limit=limit, n=0, text=text, on=device)


def _golden(figures: Mapping[str, float]) -> list[str]:
    names = ("max_abs", "allowed_abs", "flips", "allowed_flips")
    difference, allowed, flips, allowed_flips = (figures.get(f"golden_{name}") for name in names)
    if difference is None or allowed is None or flips is None or allowed_flips is None:
        return ["golden vectors were not run there"]
    if difference <= allowed and flips <= allowed_flips:
        return []
    return [f"golden vectors differ by {difference:.3g} (at most {allowed:.3g}) with {flips:.0f} flips"]


def _better_there(there: GateResult, here: GateResult) -> str:
    """Return the text for a gate that passes only on the device, "" if none; figures unmeasurable here don't count."""
    unmeasurable = here.value is None and is_timed(here.name)
    if there.verdict is not Verdict.PASS or here.verdict is Verdict.PASS or unmeasurable:
        return ""
    return f"{here.name} passes there and is {here.verdict.value} here"


def added_to(*tasks: str) -> tuple[str, ...]:
    """Return the gates on the candidate alone that apply to one of ``tasks`` by default."""
    return tuple(
        kind.name
        for kind in _ROWS
        if kind.added is not None and not kind.retrained and kind.place is Place.HOST and holds_for(kind, *tasks)
    )


def holds_for(kind: GateKind, *tasks: str) -> bool:
    """Return whether one of ``tasks`` has gates of ``kind``."""
    return not kind.tasks or not set(tasks).isdisjoint(kind.tasks)


def is_timed(figure: str) -> bool:
    """Return whether the figure or gate depends on a host's clock or memory, and so differs from run to run."""
    kind = _behind(figure)
    return kind is not None and kind.timed


def text_of(figure: str, value: float) -> str:
    """Return the value of a gate or figure with its unit."""
    kind = _behind(figure)
    return (NUMBER if kind is None or figure.endswith("_repeats") else kind.unit).text(value)


def _behind(figure: str) -> GateKind | None:
    """Return the kind of gate with the unit of ``figure``; None if no gate here uses it."""
    if ":" not in figure:
        return _BESIDE.get(figure) or KINDS.get(figure)
    module, _, attribute = figure.partition(":")
    found = getattr(sys.modules.get(module), attribute, None)  # loaded by the run's recipe, or not at all
    return found if isinstance(found, GateKind) else None


def measured(rules: Sequence[GateRecipe], compared: object, share: float = 1.0) -> Evidence:
    """Return the measurements of external gates among ``rules`` on ``compared``; failures are unknown, with a reason.

    ``compared``: the labelled set under all models (``tasks.Compared``). ``share``: what this look at the gate split
    has of the risk; a bound that was made for the whole risk is moved away by the ratio of the normal quantiles.

    Raises:
        PluginError: As in ``kind_of``.
    """
    figures: dict[str, float] = {}
    metrics: dict[str, MetricEvidence] = {}
    unknown: dict[str, str] = {}
    for name, confidence in {rule.name: rule.confidence for rule in rules}.items():
        kind = kind_of(name)
        try:
            if kind is not None and kind.score is not None:
                value: float | MetricEvidence = _scored(kind.score, compared, confidence)
            elif kind is not None and kind.measure is not None:
                value = _taken(kind.measure, compared)
            else:
                continue
        except MeasureError as error:
            unknown[name] = str(error)
            continue
        if isinstance(value, MetricEvidence):
            whole = 1 - (1 - confidence) / share
            fits = whole - _ROUNDING <= value.confidence < confidence
            metrics[name] = value.at(confidence) if fits else value
        else:
            figures[name] = value
    return Evidence(figures=figures, metrics=metrics, unknown=unknown)


def _scored(score: Callable[[Any, Any], Any], compared: Any, confidence: float) -> MetricEvidence:  # noqa: ANN401
    """Return the drop of a person's own score, from the baseline to the candidate."""
    before, after = (
        _scores(score, said.logits, compared.labels) for said in (compared.baseline, compared.candidate)
    )  # fmt: skip
    return score_drop(before, after, compared.sources, Draws(confidence))


def _scores(score: Callable[[Any, Any], Any], outputs: Any, labels: Any) -> NDArray[np.float64]:  # noqa: ANN401
    try:
        made = np.asarray(score(outputs, labels), dtype=np.float64)
    except MeasureError:
        raise
    except Exception as error:  # foreign code may raise anything
        raise MeasureError(plugins.failure(error)) from error
    if made.shape != (len(labels),):
        message = f"Expected a score for each of {len(labels)} rows, got {made.shape}: return one number a row"
        raise MeasureError(message)
    if not np.isfinite(made).all():
        row = int(np.flatnonzero(~np.isfinite(made))[0])
        raise MeasureError(f"Expected finite scores, got {made[row]} for row {row}: return a number for each row")
    return made


def _taken(measure: Callable[[Any], float | MetricEvidence], compared: object) -> float | MetricEvidence:
    try:
        value = measure(compared)
        if isinstance(value, MetricEvidence) or math.isfinite(value):
            return value if isinstance(value, MetricEvidence) else float(value)
    except MeasureError:
        raise
    except Exception as error:  # foreign code may raise anything
        raise MeasureError(plugins.failure(error)) from error
    message = f"Expected a finite number, got {value}"
    raise MeasureError(message)
