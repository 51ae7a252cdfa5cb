"""Tests whether drift is harmful: an anytime-valid lower bound of the error rate from audit samples; pure.

Source: I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024) 1-27;
A. Podkopaev, A. Ramdas, Tracking the risk of a deployed model, arXiv:2110.06177.
"""

from __future__ import annotations

import math

_BETS = tuple((i + 0.5) / 10 for i in range(10))  # fractions of the largest bet that can't lose everything
_STEPS = 40


def log_wealth(wrong: int, n: int, risk: float) -> float:
    """Return the log wealth of betting that the error rate is above ``risk`` (0..1), after ``n`` labels.

    A mixture of constant bets: mean over b of (1 + b (1 - r) / r)^wrong (1 - b)^(n - wrong); if the error rate is at
    most ``risk``, its expectation is at most 1 at any stopping time.
    """
    if risk <= 0.0:
        return math.inf if wrong else 0.0
    terms = [wrong * math.log1p(bet * (1 - risk) / risk) + (n - wrong) * math.log1p(-bet) for bet in _BETS]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms) / len(terms))


def lower_bound(wrong: int, n: int, confidence: float = 0.95) -> float:
    """Return the lower bound of the error rate: smaller rates are rejected at ``confidence``; 0 without labels."""
    limit, low, high = -math.log(1 - confidence), 0.0, wrong / n if n else 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if log_wealth(wrong, n, middle) >= limit:
            low = middle
        else:
            high = middle
    return low
