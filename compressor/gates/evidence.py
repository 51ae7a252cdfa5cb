"""What gates judge and what they say. Pure data.

Decides the words: measurements in, verdicts out. Does not judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from compressor.statistics.bounds import MetricEvidence
from compressor.statistics.paired import Paired

AGREEMENT = "device_flip_ratio"
"""The gate on the share of rows on which a device answers otherwise than this host."""


class Verdict(StrEnum):
    """What a gate says, from the best to the worst."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    FAIL = "fail"

    @property
    def rank(self) -> int:
        """How bad it is: 0 is the best."""
        return list(Verdict).index(self)


def worst(verdicts: Iterable[str]) -> Verdict:
    """Return the worst of ``verdicts``; of none, that nothing passed."""
    return max(map(Verdict, verdicts), key=lambda verdict: verdict.rank, default=Verdict.FAIL)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate said. ``value`` and ``bound`` are None where the measurement is missing.

    ``limit`` is the recipe's; ``n`` the number of samples behind the value; ``needs`` how many more samples an
    inconclusive gate asks for (0: unknown); ``on`` the device it was measured on ("": this host).
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


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was measured; what is absent was not measured.

    ``accuracy``, ``slices``, ``classes`` and ``drifted`` compare candidate and baseline on the same samples;
    ``compressed`` compares the artifact with the float model it was made from, and ``flips`` counts the samples, of
    ``compressed.n``, where these two predict different classes; ``figures`` holds the rest by the gate's name
    (``size_bytes``, ``latency_p95_ms``, ``int8_macs_ratio`` …); ``metrics`` what was bootstrapped, by the gate's name
    (``auc_drop``, ``error_increase`` …); ``devices`` what devices said of the same samples, by device; ``unknown``
    why a figure or metric could not be measured, by its name: only its own gate fails for it; ``label_order`` the order
    of the labels that would fit best, in words.
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
        """Return this evidence with the figures, metrics and reasons of ``other`` too."""
        return replace(
            self,
            figures={**self.figures, **other.figures},
            metrics={**self.metrics, **other.metrics},
            unknown={**self.unknown, **other.unknown},
        )


@dataclass(frozen=True, slots=True)
class DeviceEvidence:
    """What one device said, or the ``problem`` for which there is nothing to judge.

    ``facts`` are words about the device (runtime, CPU, agent); ``order`` names the measurement.
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
    """Return what a gate says when its measurement is absent: FAIL, with the reason that ``unknown`` has for it."""
    why = f"unknown ({unknown[name]})" if name in unknown else "none"
    text = f"Expected a measurement, got {why}: measure it or drop the gate"
    return GateResult(name, Verdict.FAIL, None, None, limit, 0, text)


def points(ratio: float) -> str:
    """Return a ratio as percentage points."""
    return f"{100 * ratio:.2f} %"


def more(needs: int) -> str:
    """Return the end of a gate's text: how many samples are still needed, if known."""
    return f"; needs about {needs} more labelled samples" if needs else ""
