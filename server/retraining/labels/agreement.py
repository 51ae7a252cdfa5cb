"""What the answers of people to one image make its label, and how far people agree. Pure.

The label of an image that two people label is the one that two have given, if no other has as many. Agreement counts
the first two people who answered an image, and of each the first answer, if it was given before the other's could be
seen: a third person is asked only where two differ.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wire.canonical import sha256_hex

PEOPLE = 2
"""So many people give an image its label where the policy wants a second person."""
MIN_IMAGES = 30
"""With fewer images of both people, no kappa is given: its interval would be wider than half of what it can be."""
_Z = 1.959964
"""The 97.5 % quantile of the normal distribution: intervals are of 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelAnswer:
    """What ``person`` labels an image as, and at first, "" if another's label was in view; times are UTC ms.

    ``seen``: with the model's answer in view.
    """

    person: str
    label: str
    first_label: str
    seen: bool
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaterAgreement:
    """How often ``people`` gave the same label to the same image, of ``images``.

    ``low``, ``high``: of the share ``agreed``, 0..1, the 95 % interval of Wilson. ``kappa``: Cohen's, with its
    interval; None where it means nothing, for which ``why_not`` has the reason.
    """

    people: tuple[str, str]
    images: int
    agreed: float
    low: float
    high: float
    kappa: float | None = None
    kappa_low: float | None = None
    kappa_high: float | None = None
    why_not: str = ""


def for_two(model: str, sha256: str, share: float) -> bool:
    """Return whether an image is one of the ``share`` (0..1) that two people label: always the same ones."""
    return int(sha256_hex(f"{model} {sha256}".encode())[:8], 16) < share * 2**32


def settled(labels: Iterable[str], people: int = PEOPLE) -> str:
    """Return the label that at least ``people`` gave, and more than any other; "" if there is none."""
    counts = Counter(labels).most_common(2)
    if not counts or counts[0][1] < people or (len(counts) > 1 and counts[1][1] == counts[0][1]):
        return ""
    return counts[0][0]


def agreements(images: Iterable[Sequence[LabelAnswer]]) -> tuple[RaterAgreement, ...]:
    """Return the agreement of each pair of people who labelled the same images, the pair with most images first.

    ``images``: the answers for each image.
    """
    pairs: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for answers in images:
        first = sorted(answers, key=lambda answer: answer.at_ms)[:PEOPLE]
        if len(first) == PEOPLE and all(answer.first_label for answer in first):
            one, other = sorted(first, key=lambda answer: answer.person)
            pairs[one.person, other.person].append((one.first_label, other.first_label))
    found = [agreement(people, labels) for people, labels in pairs.items()]
    return tuple(sorted(found, key=lambda pair: (-pair.images, pair.people)))


def agreement(people: tuple[str, str], labels: Sequence[tuple[str, str]]) -> RaterAgreement:
    """Return the agreement of two people; ``labels``: what each gave the same image, at least one.

    Source: Wilson, Probable Inference, JASA 1927; Cohen, A Coefficient of Agreement for Nominal Scales, 1960. The
    interval of kappa is that of the agreement, with the agreement by chance taken as known, as in Cohen's own standard
    error: unlike that one it is no point where the two always agree.
    """
    n = len(labels)
    agreed = sum(one == other for one, other in labels) / n
    low, high = _wilson(agreed, n)
    first, second = (Counter(pair[at] for pair in labels) for at in (0, 1))
    chance = sum(first[name] * second[name] for name in first) / n**2
    why_not = _why_not(n, first, second)
    if why_not:
        return RaterAgreement(people=people, images=n, agreed=agreed, low=low, high=high, why_not=why_not)
    kappa, kappa_low, kappa_high = ((share - chance) / (1 - chance) for share in (agreed, low, high))
    return RaterAgreement(
        people=people, images=n, agreed=agreed, low=low, high=high, kappa=kappa, kappa_low=kappa_low,
        kappa_high=kappa_high,
    )  # fmt: skip


def _why_not(n: int, first: Mapping[str, int], second: Mapping[str, int]) -> str:
    if n < MIN_IMAGES:
        return f"{n} of {MIN_IMAGES} images: too few"
    if len(first) == 1 or len(second) == 1:
        return "one of the two gave every image the same label: agreement by chance can't be told from any other"
    return ""


def _wilson(share: float, n: int) -> tuple[float, float]:
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)
