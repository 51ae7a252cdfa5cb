"""Result of a search: the forms tried, their Pareto front, the chosen one, and the reason as text. Pure.

Decides by figures only. The gates have the last word, on rows that no search has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compressor.errors import MeasureError
from compressor.recipe.model import Recipe

FP32, OWN, SAMPLED = "fp32", "recipe", "sampled"
NEAR_RATIO = 0.05
"""Latencies within this ratio count as equal, and the smaller file is chosen: repeated runs differ as much."""

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFigures:
    """Figures of one form on ``n`` search rows.

    ``drop``: of accuracy against the float baseline, 0..1, with its one-sided 95 % bounds; ``latency_ratio``: of the
    p50, measured in turns with the baseline.
    """

    drop: float
    drop_lower: float
    drop_upper: float
    accuracy: float
    n: int
    size_bytes: int
    latency_p50_ms: float
    float_latency_p50_ms: float

    @property
    def latency_ratio(self) -> float:
        """The latency as a share of the baseline's; below 1 is faster."""
        return self.latency_p50_ms / self.float_latency_p50_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One form that was tried. ``measured`` is None if it could not be made; ``error`` then gives the reason.

    ``name``: its steps as short text; ``key``: equal for equal steps; ``origin``: ``fp32``, ``recipe`` or ``sampled``;
    ``integer``: it is neither float32 nor float16; ``settings``: as the sampler uses them; ``host``: the machine that
    measured it.
    """

    number: int
    name: str
    key: str
    origin: str
    integer: bool
    measured: TrialFigures | None
    error: str = ""
    settings: tuple[tuple[str, str | float | bool], ...] = ()
    host: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen form and the reason: whole sentences, the first names the choice."""

    tried: Tried
    reason: tuple[str, ...]


def feasible(tried: Tried, allowed_drop: float) -> bool:
    """Return whether ``tried`` was measured and its drop (the point estimate, 0..1) is at most ``allowed_drop``."""
    return tried.measured is not None and tried.measured.drop <= allowed_drop + _ROUNDING


def dominates(first: TrialFigures, second: TrialFigures) -> bool:
    """Return whether ``first`` dominates: at least as good in latency ratio, bytes and drop bound, better in one."""
    pairs = list(zip(_costs(first), _costs(second), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def points(measured: TrialFigures) -> str:
    """Return the drop as text, with its one-sided 95 % bound, in points of accuracy (of 100)."""
    lost = 100 * measured.drop
    what = f"{-lost:.2f} points gained" if lost < 0 else f"{lost:.2f} points lost"
    return f"{what} (lost at most {100 * measured.drop_upper:z.2f} at 95 %)"


def front(tried: Sequence[Tried], allowed_drop: float) -> tuple[Tried, ...]:
    """Return the feasible forms that no other dominates, fastest first; of forms with equal steps the first."""
    known: dict[str, Tried] = {}
    for item in tried:
        if feasible(item, allowed_drop):
            known.setdefault(item.key, item)
    best = [
        item
        for item in known.values()
        if not any(dominates(_of(other), _of(item)) for other in known.values() if other is not item)
    ]
    return tuple(sorted(best, key=lambda item: _costs(_of(item))))


def chosen(tried: Sequence[Tried], allowed_drop: float) -> Choice:
    """Return the fastest feasible form, or the smallest that is within 5 % of its latency.

    Raises:
        MeasureError: If nothing feasible was measured.
    """
    best = front(tried, allowed_drop)
    if not best:
        failures = "; ".join(f"{item.name}: {item.error}" for item in tried if item.error) or "nothing was measured"
        raise MeasureError(
            f"Expected a form within {100 * allowed_drop:z.2f} points of the float model, got {failures}"
        )
    fastest = best[0]
    limit = (1 + NEAR_RATIO) * _of(fastest).latency_ratio
    near = [item for item in best if _of(item).latency_ratio <= limit]
    taken = min(near, key=lambda item: (_of(item).size_bytes, *_costs(_of(item)), item.number))
    return Choice(taken, _reason(taken, fastest, tried, allowed_drop))


def _reason(taken: Tried, fastest: Tried, tried: Sequence[Tried], allowed_drop: float) -> tuple[str, ...]:
    able = len({item.key for item in tried if feasible(item, allowed_drop)})
    figures, allowed = _of(taken), f"{100 * allowed_drop:z.2f} points"
    what = (
        f"{taken.name}: {figures.latency_ratio:.2f} x the latency of the float baseline, {figures.size_bytes} bytes, "
        f"{points(figures)}, on {figures.n} rows."
    )
    said = [what]
    if taken is fastest:
        said.append(f"It is the fastest of {able} forms that lose no more than {allowed}.")
    else:
        said.append(
            f"The fastest of {able} forms that lose no more than {allowed} is {fastest.name} at "
            f"{_of(fastest).latency_ratio:.2f} x; this one is within 5 % of it and smaller: "
            f"{figures.size_bytes} against {_of(fastest).size_bytes} bytes."
        )
    said += [] if taken.integer else _why_float(taken, tried, allowed_drop)
    if figures.drop_upper > allowed_drop:
        said.append(f"{figures.n} search rows can't show that it keeps {allowed} at 95 %: the gate split has to.")
    return tuple(said)


def _why_float(taken: Tried, tried: Sequence[Tried], allowed_drop: float) -> list[str]:
    """Return why no integer form is chosen, if any was measured."""
    integers = [item for item in tried if item.integer and item.measured is not None]
    if not integers:
        return ["No integer form could be measured."]
    able = [item for item in integers if feasible(item, allowed_drop)]
    if not able:
        least = min(integers, key=lambda item: _of(item).drop)
        lost = f"{100 * _of(least).drop:z.2f} points ({least.name})"
        return [f"Every integer form loses too much, the least of them {lost}: {taken.name} is kept."]
    quickest = min(able, key=lambda item: _of(item).latency_ratio)
    plain = next((item for item in tried if item.origin == FP32 and item.measured is not None), taken)
    for other in (plain, taken):
        if _of(quickest).latency_ratio > _of(other).latency_ratio:
            ratios = f"{_of(quickest).latency_ratio:.2f} x against {_of(other).latency_ratio:.2f} x"
            said = f"int8 is slower than {other.name} here: the quickest, {quickest.name}, takes {ratios}"
            return [f"{said}, so {taken.name} is kept."]
    return [f"The quickest integer form, {quickest.name}, takes {_of(quickest).latency_ratio:.2f} x."]


def _costs(measured: TrialFigures) -> tuple[float, float, float]:
    return measured.latency_ratio, measured.size_bytes, measured.drop_upper


def _of(tried: Tried) -> TrialFigures:
    if tried.measured is None:
        raise MeasureError(f"Expected a measured trial, got {tried.name!r} without figures: {tried.error}")
    return tried.measured


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Result of a search. ``front`` and ``choice`` are among ``tried``; ``recipe`` is the chosen one, ready to run.

    ``release``: model and version; ``allowed_drop``: 0..1, the limit for a form to be chosen.
    """

    release: str
    target: str
    allowed_drop: float
    tried: tuple[Tried, ...]
    front: tuple[Tried, ...]
    choice: Choice
    recipe: Recipe

    def document(self) -> dict[str, Any]:
        """Return everything except the recipe as JSON values; drops are 0..1, times milliseconds."""
        best = {item.number for item in self.front}
        trials = [
            {
                **asdict(item),
                "settings": dict(item.settings),
                "feasible": feasible(item, self.allowed_drop),
                "front": item.number in best,
                "latency_ratio": item.measured.latency_ratio if item.measured else None,
            }
            for item in self.tried
        ]
        return {
            "release": self.release, "target": self.target, "allowed_drop": self.allowed_drop, "trials": trials,
            "front": [item.number for item in self.front], "chosen": self.choice.tried.number,
            "reason": list(self.choice.reason),
        }  # fmt: skip
