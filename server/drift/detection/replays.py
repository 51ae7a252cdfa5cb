"""Whether a release answers inputs of the one before more otherwise than the gates of both allow; pure.

Two releases that answer one input with two labels are not both right, so the share of such inputs is at most the sum of
their error rates. These are known from the references, with their sampling error, where the gates judged; a device's
own place may be harder, so twice that is allowed, and at least a tenth. Inputs that the new release can't answer count
as other answers. The kept inputs are drawn uniformly over all that the device has seen, and are taken for independent.

Decides nothing else: what devices compared is described in ``docs/explanation/updates.md``, "The replay".
"""

from __future__ import annotations

import math

from wire.reference import Reference
from wire.shadow import ShadowCounts

_PLACE = 2.0
_LEAST = 0.1
_RISK = 0.05  # of the bounds of the error rates


def binomial_tail(hits: int, n: int, ratio: float) -> float:
    """Return P(X >= ``hits``) of ``n`` independent trials with probability ``ratio`` each."""
    if hits <= 0 or ratio >= 1:
        return 1.0
    if hits > n or ratio <= 0:
        return 0.0
    ways = math.lgamma(n + 1)
    terms = (
        math.exp(
            ways - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(ratio) + (n - k) * math.log1p(-ratio)
        )
        for k in range(hits, n + 1)
    )
    return min(math.fsum(terms), 1.0)


def error_bound(reference: Reference) -> float:
    """Return the upper bound at 95 % of the error rate of a release, from its reference; 1 without classes or labels.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413, by bisection.
    """
    n = reference.contexts[0].n_effective or reference.contexts[0].n if reference.contexts else 0
    if not reference.classes or not n or reference.error_rate is None:
        return 1.0
    wrong, low, high = round(reference.risk * n), reference.risk, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - binomial_tail(wrong + 1, n, middle) > _RISK else (low, middle)
    return high


def allowed_ratio(before: float, after: float) -> float:
    """Return which share of a device's inputs may get other answers, from the error bounds of both releases."""
    return min(max(_PLACE * (before + after), _LEAST), 1.0)


def exceeds(counts: ShadowCounts, ratio: float, log_risk: float) -> bool:
    """Return whether ``counts`` show more other answers than ``ratio``, with a risk of at most e^``log_risk``."""
    if counts.differences:
        return False
    others, n = counts.disagreed + counts.errors, counts.n + counts.errors
    return others > ratio * n and binomial_tail(others, n, ratio) <= math.exp(log_risk)
