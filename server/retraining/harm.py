"""Whether the answers are wrong more often than allowed, by labels of samples that were drawn uniformly. Pure.

A label is a bet: whoever bets that the error rate is above ``risk`` has a wealth whose expectation is at most 1 while
it is not, whenever one looks. Labels of one scene are one observation. A change may begin at any time, so the wealth
is shared out over the days on which it may have begun: half for the first day, half over the days of a year.

Source: I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024) 1-27;
A. Podkopaev, A. Ramdas, Tracking the risk of a deployed model, arXiv:2110.06177; J. Shin, A. Ramdas, A. Rinaldo,
E-detectors, New England J. Statistics in Data Science 2 (2024), for the mixture over the beginnings; D. Horvitz,
D. Thompson, JASA 47 (1952) 663-685, for the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from server.betting import BETS, Values, largest, log_growth

DEVICE = "device"
"""The attribute of a group of one device, and no cohort's: an attribute of that name is left out."""
_DAY_MS = 86_400_000
_DAYS = 365
_WEIGHTY = 0.95  # the largest twentieth of the weights is cut, so that the largest weight is not one sample's


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedSample:
    """One labelled sample: its scene, and whether the model was wrong.

    ``inclusion_ratio``: the probability with which the device took it; 0: it counts as each other.
    """

    source: str
    at_ms: int
    wrong: bool
    inclusion_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class LabelledScene:
    """The labels of one source. ``wrong``: their share of errors, 0..1; ``weight``: above 0, at most 1."""

    at_ms: int
    wrong: float
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """An error rate: at least ``at_least`` and at most ``at_most``, whenever one looks, each at its confidence.

    ``scenes`` were labelled, of which ``wrong`` were wrong (as shares). ``since_ms``: since when the error rate is
    ``at_least`` that, by the beginning that explains the labels best.
    """

    scenes: int = 0
    wrong: float = 0.0
    at_least: float = 0.0
    at_most: float = 1.0
    since_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRisk:
    """The error rate of a model on some of its devices.

    ``attribute`` and ``value`` name the group as a pool: ``site west``; "device" and its id; "" and "" for all devices.
    ``allowed``: the error rate on the reference split, plus the margin; ``harmful``: ``risk`` is shown to be above it.
    """

    attribute: str
    value: str
    devices: tuple[str, ...]
    risk: Risk
    allowed: float

    @property
    def harmful(self) -> bool:
        """Whether the error rate is shown to be above what is allowed."""
        return self.risk.at_least > self.allowed

    @property
    def name(self) -> str:
        """The group in words: "all devices", "site west"."""
        return f"{self.attribute} {self.value}" if self.attribute else "all devices"


def scenes_of(samples: Iterable[AuditedSample]) -> tuple[LabelledScene, ...]:
    """Return the scenes in order of time, weighted so that they stand for the mean image."""
    found: dict[str, list[AuditedSample]] = {}
    for sample in samples:
        found.setdefault(sample.source, []).append(sample)
    weights = {source: sum(_weight(sample) for sample in own) for source, own in found.items()}
    weighted = {source for source, own in found.items() if any(sample.inclusion_ratio for sample in own)}
    largest = [weights[source] for source in weighted]
    limit = float(np.quantile(largest, _WEIGHTY, method="inverted_cdf")) if largest else 1.0
    scenes = [
        LabelledScene(
            min(sample.at_ms for sample in own),
            sum(_weight(sample) for sample in own if sample.wrong) / weights[source],
            min(1.0, weights[source] / limit) if source in weighted else 1.0,
        )
        for source, own in found.items()
    ]
    return tuple(sorted(scenes, key=lambda scene: scene.at_ms))


def _weight(sample: AuditedSample) -> float:
    return 1 / sample.inclusion_ratio if sample.inclusion_ratio > 0 else 1.0


def log_wealth(scenes: Sequence[LabelledScene], risk: float) -> float:
    """Return the log wealth of betting that the error rate is above ``risk`` (0..1), with one beginning.

    If the error rate is at most ``risk``, its expectation is at most 1 at any stopping time.
    """
    if risk <= 0.0:
        return math.inf if any(scene.wrong for scene in scenes) else 0.0
    return float(np.logaddexp.reduce(_log_growth(scenes, risk).sum(axis=0)) - math.log(len(BETS)))


def lower_bound(scenes: Sequence[LabelledScene], confidence: float = 0.95) -> float:
    """Return the lower bound of the error rate: smaller rates are rejected at ``confidence``; 0 without labels."""
    limit = -math.log(1 - confidence)
    return largest(lambda risk: log_wealth(scenes, risk) >= limit) if scenes else 0.0


def upper_bound(scenes: Sequence[LabelledScene], confidence: float = 0.95) -> float:
    """Return the upper bound of the error rate: larger rates are rejected at ``confidence``; 1 without labels."""
    return 1 - lower_bound([replace(scene, wrong=1 - scene.wrong) for scene in scenes], confidence)


def risk_of(scenes: Sequence[LabelledScene], begun_ms: int, level: float) -> Risk:
    """Return what ``scenes``, in order of time, show since ``begun_ms``.

    The risk that ``at_least`` is ever too high is ``level`` in the first year and half of it in each further one; that
    of ``at_most``, which is of the mean over the whole time, is ``level``.
    """
    if not scenes:
        return Risk(since_ms=begun_ms)
    limit = -math.log(level)
    least = largest(lambda risk: log_evidence(scenes, begun_ms, risk) >= limit)
    since = int(np.argmax(_by_beginning(scenes, begun_ms, least))) if least > 0.0 else 0
    return Risk(
        scenes=len(scenes),
        wrong=sum(scene.wrong for scene in scenes),
        at_least=least,
        at_most=upper_bound(scenes, 1 - level),
        since_ms=scenes[since].at_ms if since else begun_ms,
    )


def log_evidence(scenes: Sequence[LabelledScene], begun_ms: int, risk: float) -> float:
    """Return the log wealth of betting that the error rate has been above ``risk`` from some day on.

    While it never is, the wealth reaches 1/level in at most a share ``level`` of all first years.
    """
    return float(np.logaddexp.reduce(_by_beginning(scenes, begun_ms, risk)))


def _by_beginning(scenes: Sequence[LabelledScene], begun_ms: int, risk: float) -> Values:
    """Return the log wealth of each beginning (N,): from each scene to the last."""
    days = np.array([max(scene.at_ms - begun_ms, 0) // _DAY_MS for scene in scenes])
    new = np.diff(days, prepend=-1)  # days that may have been the beginning since the scene before
    share = np.where(np.arange(len(days)) == 0, 0.5 + (new - 1) / (2 * _DAYS), new / (2 * _DAYS))
    with np.errstate(divide="ignore"):
        shares = np.log(share)
    grown = np.logaddexp.reduce(np.cumsum(_log_growth(scenes, risk)[::-1], axis=0)[::-1], axis=1)
    found: Values = shares + grown - math.log(len(BETS))
    return found


def _log_growth(scenes: Sequence[LabelledScene], risk: float) -> Values:
    """Return the log of what each bet grows by with each scene, (N, bets); at most the whole stake is bet."""
    wrong = np.array([scene.wrong for scene in scenes])
    return log_growth(wrong, risk, np.array([scene.weight for scene in scenes]))
