"""Input and result of gates: the limit of each, measurements and verdicts. Pure data.

Decides these types. Does not judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.paired import Paired

DEVICE_PREFIX = "device:"
AGREEMENT = "device_flip_ratio"
"""The gate on the share of rows for which a device answers differently from this host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRecipe:
    """One line of ``[gates]``: at most ``max``, at least ``min``, at this ``confidence``.

    ``on`` in a recipe: a target's name, or ``device:ID`` or ``TARGET@device:ID``: also on that device, through its
    agent. In a certificate the line belongs to one target, and ``on`` is the device on which the gate was judged, ""
    for the host.
    """

    name: str = ""
    max: float | None = None
    min: float | None = None
    confidence: float = 0.95
    on: str = ""

    @property
    def limit(self) -> float | None:
        """The given limit, ``max`` or ``min``."""
        return self.max if self.max is not None else self.min


def device_in(on: str) -> tuple[str, str]:
    """Return (device, target) of ``on``: ``device:ID`` or ``TARGET@device:ID``; ("", "") if it names no device."""
    target, at, rest = on.rpartition("@")
    if not rest.startswith(DEVICE_PREFIX) or (at and not target):
        return "", ""
    return rest.removeprefix(DEVICE_PREFIX), target


def device_for(on: str, target: str) -> str:
    """Return the device that ``on`` names for ``target``, "" for none."""
    device, only = device_in(on)
    return device if only in {"", target} else ""


class Verdict(StrEnum):
    """The verdict of a gate, from best to worst."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"

    @property
    def rank(self) -> int:
        """Its severity: 0 is the best."""
        return list(Verdict).index(self)


def worst(verdicts: Iterable[str]) -> Verdict:
    """Return the worst of ``verdicts``; FAIL if there are none."""
    return max(map(Verdict, verdicts), key=lambda verdict: verdict.rank, default=Verdict.FAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """Result of one gate. ``value`` and ``bound`` are None if the measurement is missing.

    ``limit`` is the recipe's; ``n`` the number of samples behind the value; ``needs`` how many more samples an
    inconclusive gate asks for (0: unknown); ``on`` the device on which it was measured ("": this host). ``by_width``:
    where the gate has a least number of samples, how many the width of the bound asks for in all: these alone grow at a
    look with less of the risk. None: ``needs`` is by the bound.
    """

    name: str
    verdict: Verdict
    value: float | None
    bound: float | None
    limit: float
    n: int
    text: str
    needs: int = 0
    on: str = ""
    by_width: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All measurements; what is absent was not measured.

    ``accuracy``, ``slices``, ``classes`` and ``drifted`` compare candidate and baseline on the same samples;
    ``compressed`` compares the artifact with the float model it was made from, and ``flips`` counts the samples, of
    ``compressed.n``, for which these two predict different classes; ``figures``: other numbers by the gate's name
    (``size_bytes``, ``latency_p95_ms``, ``int8_macs_ratio`` …); ``metrics``: bootstrapped metrics by the gate's name
    (``auc_drop``, ``error_increase`` …); ``devices``: measurements of devices on the same samples, by device;
    ``unknown``: why a figure or metric could not be measured, by its name: only its own gate fails; ``label_order``:
    the order of the labels that would fit best, as text.
    """

    accuracy: Paired | None = None
    slices: Mapping[str, Paired] = field(default_factory=dict)
    classes: Mapping[str, Paired] = field(default_factory=dict)
    drifted: Paired | None = None
    compressed: Paired | None = None
    flips: int | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, MetricEvidence] = field(default_factory=dict)
    devices: Mapping[str, DeviceEvidence] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    label_order: str = ""

    def beside(self, other: Evidence) -> Evidence:
        """Return this evidence with the figures, metrics and reasons of ``other`` added."""
        return replace(
            self,
            figures={**self.figures, **other.figures},
            metrics={**self.metrics, **other.metrics},
            unknown={**self.unknown, **other.unknown},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvidence:
    """Evidence of one device, or the ``problem`` that prevented the measurement.

    ``facts``: the device (runtime, CPU, agent) as text; ``order``: the id of the measurement.
    """

    problem: str = ""
    evidence: Evidence = field(default_factory=Evidence)
    facts: Mapping[str, str] = field(default_factory=dict)
    order: str = ""


class Gate(Protocol):
    """One condition on the evidence."""

    def judge(self, evidence: Evidence) -> GateResult:
        """Return the verdict on ``evidence``."""


def missing(name: str, limit: float, unknown: Mapping[str, str]) -> GateResult:
    """Return the result for an absent measurement: FAIL, with the reason from ``unknown`` if there is one."""
    why = f"unknown ({unknown[name]})" if name in unknown else "none"
    text = f"Expected a measurement, got {why}: measure it or drop the gate"
    return GateResult(name=name, verdict=Verdict.FAIL, value=None, bound=None, limit=limit, n=0, text=text)


def points(ratio: float) -> str:
    """Return a ratio as percentage points."""
    return f"{100 * ratio:.2f} %"


def sure(confidence: float) -> str:
    """Return a confidence as per cent, with as many digits as it has."""
    return f"{100 * confidence:.6g}%"


SAMPLES = "labelled samples"
"""What more gates ask for, unless they say otherwise."""


def more(needs: int, asked: str = SAMPLES) -> str:
    """Return the end of a gate's text: how many more samples (or what is ``asked``) are needed, if known."""
    return f"; needs about {needs} more {asked}" if needs else ""
