"""The shadow phase: what a server orders, and what a device counts while a challenger runs beside the champion.

The champion is the release that serves, the challenger the one that an update would switch to. Counts add up: those of
two periods, or of two devices, merge to those of both. They count how often two models *differ*. Which of them is right
no count here can tell, and inputs of one scene depend on each other, so no confidence interval is derived from ``n``.

Histograms have fixed edges, so that they merge by addition.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from wire.codec import Json, encode
from wire.errors import MessageError

MAX_PAIRS = 48
"""At most so many pairs of labels are kept; the rarest beyond it are only counted (``other_pairs``)."""
MAX_SHADOW_S = 366 * 86_400
_STEPS_AN_OCTAVE = 4
_LEAST_STEP, _LAST_STEP = -40, 80  # 1 microsecond and 17 minutes, in steps of a quarter of an octave of milliseconds
_OCTAVES = 32  # differences from 2^-32 to 2^32; beyond, the last bin


@dataclass(frozen=True, slots=True)
class ShadowOrder:
    """``desired.shadow``: for how long a device compares a release with the one that serves, before it switches.

    ``max_ratio``: more disagreement than this share of the inputs compared refuses the release; 1: none does.
    ``required``: a device that can't compare (no memory for two models, too few inputs) refuses the release; otherwise
    it goes on without, and says so.
    """

    seconds: float = 0.0
    max_ratio: float = 1.0
    required: bool = field(default=False, kw_only=True)
    extra: Mapping[str, Json] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        """Reject an impossible order.

        Raises:
            MessageError: If a number is out of range.
        """
        if not 0 <= self.seconds <= MAX_SHADOW_S:
            message = f"Expected seconds of a shadow from 0 to {MAX_SHADOW_S} (a year), got {self.seconds}"
            raise MessageError(message)
        if not 0 <= self.max_ratio <= 1:
            message = f"Expected max_ratio of a shadow from 0 to 1, got {self.max_ratio}"
            raise MessageError(message)


@dataclass(frozen=True, slots=True)
class ShadowPair:
    """How often the champion answered one label and the challenger another; "" for outputs that were not numbers."""

    champion: str = ""
    challenger: str = ""
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCounts:
    """What a device counted in ``seconds`` of a shadow.

    ``n``: inputs that both answered. ``disagreed``: those with two labels; ``pairs``: which, the most frequent first,
    and ``other_pairs`` the rest. ``differences``: of each value of a regression, challenger less champion, by
    ``difference_bin``. ``errors``: inputs that only the champion could answer. ``skipped``: inputs that were not
    compared, to leave the processor to the champion. ``run_steps``: the challenger's runs by ``run_step``.
    """

    seconds: float = 0.0
    n: int = 0
    disagreed: int = 0
    errors: int = 0
    skipped: int = 0
    pairs: tuple[ShadowPair, ...] = ()
    other_pairs: int = 0
    differences: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    run_steps: Mapping[str, int] = field(default_factory=dict)
    extra: Mapping[str, Json] = field(default_factory=dict)

    @property
    def disagreement_ratio(self) -> float | None:
        """The share of the inputs compared with two labels; None while there are none, or if there are no labels."""
        return self.disagreed / self.n if self.n and not self.differences else None

    @property
    def error_ratio(self) -> float:
        """The share of the inputs given to the challenger that it could not answer."""
        return self.errors / (self.n + self.errors) if self.n + self.errors else 0.0

    def run_ms(self, share: float) -> float:
        """Return the time that at least ``share`` of the challenger's runs kept to; at most a fifth too high."""
        ordered = sorted((_whole(step), count) for step, count in self.run_steps.items())
        seen, wanted = 0, share * sum(count for _, count in ordered)
        for step, count in ordered:
            seen += count
            if seen >= wanted:
                return float(2.0 ** (step / _STEPS_AN_OCTAVE))
        return 0.0


def run_step(run_ms: float) -> str:
    """Return the bin of a run: the least step, a quarter of an octave, that ``run_ms`` does not exceed."""
    step = math.ceil(_STEPS_AN_OCTAVE * math.log2(run_ms)) if run_ms > 0 else _LEAST_STEP
    return str(min(max(step, _LEAST_STEP), _LAST_STEP))


def difference_bin(difference: float) -> str:
    """Return the bin of a difference: ``0``, or the octave of its size, 1 to 65, with its sign; ``nan`` if it is none.

    Bin k holds sizes above 2^(k-34) up to 2^(k-33).
    """
    if math.isnan(difference):
        return "nan"
    if difference == 0:
        return "0"
    size = abs(difference)
    octave = _OCTAVES if math.isinf(size) else min(max(math.ceil(math.log2(size)), -_OCTAVES), _OCTAVES)
    return str(int(math.copysign(octave + _OCTAVES + 1, difference)))


def kept_pairs(counted: Mapping[tuple[str, str], int]) -> tuple[tuple[ShadowPair, ...], int]:
    """Return the most frequent pairs, and how many inputs the others are."""
    ordered = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    pairs = tuple(ShadowPair(*labels, count) for labels, count in ordered[:MAX_PAIRS])
    return pairs, sum(count for _, count in ordered[MAX_PAIRS:])


def shortened(counts: ShadowCounts, limit_bytes: int) -> ShadowCounts:
    """Return ``counts`` with the most frequent pairs of labels that fit in ``limit_bytes`` when they are encoded.

    The others are only counted. Without any pair they may still be longer: the bins of a regression are kept.
    """
    pairs = counts.pairs
    while True:
        others = counts.other_pairs + sum(pair.n for pair in counts.pairs[len(pairs) :])
        found = replace(counts, pairs=pairs, other_pairs=others)
        excess = len(encode(found)) - limit_bytes
        if excess <= 0 or not pairs:
            return found
        pairs = pairs[: -max(1, excess // 64)]


def merge_shadow(parts: Iterable[ShadowCounts]) -> ShadowCounts:
    """Return the counts of all ``parts``: of one device over time, or of several devices.

    Sums are exact. A pair that one part left out is counted in ``other_pairs`` for that part.
    """
    found = list(parts)
    labels: Counter[tuple[str, str]] = Counter()
    steps: Counter[str] = Counter()
    differences: dict[str, Counter[str]] = {}
    for part in found:
        for pair in part.pairs:
            labels[pair.champion, pair.challenger] += pair.n
        steps.update(part.run_steps)
        for name, bins in part.differences.items():
            differences.setdefault(name, Counter()).update(bins)
    pairs, others = kept_pairs(labels)
    return ShadowCounts(
        seconds=sum(part.seconds for part in found),
        n=sum(part.n for part in found),
        disagreed=sum(part.disagreed for part in found),
        errors=sum(part.errors for part in found),
        skipped=sum(part.skipped for part in found),
        pairs=pairs,
        other_pairs=others + sum(part.other_pairs for part in found),
        differences={name: dict(bins) for name, bins in differences.items()},
        run_steps=dict(steps),
    )


def _whole(text: str) -> int:
    """Return a bin's number; those of later versions, which are none, are the last."""
    return int(text) if text.removeprefix("-").isdecimal() and len(text) < len("-1000") else _LAST_STEP
