"""Is the drift harmful: a lower bound of the risk from the audit lane, valid however often one looks; pure.

Source: I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024) 1-27;
A. Podkopaev, A. Ramdas, Tracking the risk of a deployed model, arXiv:2110.06177.
"""

from __future__ import annotations

import math

_BETS = tuple((i + 0.5) / 10 for i in range(10))  # shares of the largest bet that cannot lose everything
_STEPS = 40


def log_wealth(wrong: int, n: int, risk: float) -> float:
    """Return log of the wealth of betting that the error rate is above ``risk`` (0..1), after ``n`` labels.

    A mixture of constant bets: mean over b of (1 + b (1 - r) / r)^wrong (1 - b)^(n - wrong); under a risk of at most
    ``risk`` its expectation never exceeds 1, whenever one stops.
    """
    if risk <= 0.0:
        return math.inf if wrong else 0.0
    terms = [wrong * math.log1p(bet * (1 - risk) / risk) + (n - wrong) * math.log1p(-bet) for bet in _BETS]
    top = max(terms)
    return top + math.log(sum(math.exp(term - top) for term in terms) / len(terms))


def lower_bound(wrong: int, n: int, confidence: float = 0.95) -> float:
    """Return the lower bound of the error rate: every smaller risk is refuted at ``confidence``; 0 without labels."""
    limit, low, high = -math.log(1 - confidence), 0.0, wrong / n if n else 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if log_wealth(wrong, n, middle) >= limit:
            low = middle
        else:
            high = middle
    return low
