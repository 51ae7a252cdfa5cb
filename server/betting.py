"""Bets on a mean: how surely values in [0, 1] are on average above some level, whenever one looks. Pure.

Whoever bets that the mean is above ``level`` has a wealth whose expectation is at most 1 while each value is, given
those before it, on average at most ``level``. By Ville's inequality it then ever reaches 1/a with probability a at
most.

Source: I. Waudby-Smith, A. Ramdas, Estimating means of bounded random variables by betting, JRSS B 86 (2024) 1-27;
J. Ville, 1939. The bets are constant shares of the stake, mixed evenly: for values of 0 and 1 a mixture SPRT.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

BETS = np.array([0.02, 0.04, 0.08, 0.16, 0.32, 0.48, 0.64, 0.76, 0.86, 0.95])  # fractions of the largest safe bet
_LOOKS = 1000
_FEW = 16  # different values
_STEPS = 24  # of bisection: the bound is exact to 6e-8

Values = npt.NDArray[np.float64]


def log_growth(values: Values, level: float, weights: Values | None = None) -> Values:
    """Return the log of what each bet grows by with each value, (N, bets): 1 + b w (x - level) / level.

    Args:
        values: in [0, 1], (N,).
        level: above 0, at most 1.
        weights: shares of the stake that a value is worth, above 0 and at most 1, (N,); None: 1 each.
    """
    relative = (values - level) / level
    found: Values = np.log1p(np.outer(relative if weights is None else weights * relative, BETS))
    return found


def largest(holds: Callable[[float], bool]) -> float:
    """Return the largest level below 1 for which ``holds``, which is true up to it; 0 if there is none."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low


def log_highest(values: Values, level: float) -> float:
    """Return the highest log wealth after any number of ``values`` (N,), in their order, 0 before the first.

    Of many values about a thousand prefixes are looked at, the whole always among them.
    ``level`` 0: infinite once one value is above 0.
    """
    if level <= 0.0:
        return math.inf if bool(np.any(values > 0)) else 0.0
    return _log_highest(_paths(values), level) if len(values) else 0.0


def _log_highest(paths: Callable[[float], Values], level: float) -> float:
    logs = paths(level)
    peaks = logs.max(axis=1)  # as logaddexp.reduce, which takes four times as long
    sums = peaks + np.log(np.exp(logs - peaks[:, None]).sum(axis=1))
    return max(0.0, float(sums.max()) - math.log(len(BETS)))


def _paths(values: Values) -> Callable[[float], Values]:
    """Return a function from a level to the log wealth of each bet after some prefixes of ``values``, (L, bets).

    The whole is always among the prefixes; the promise holds for any choice. Of a few different values it is enough to
    know how many of each a prefix has.
    """
    kinds, which = np.unique(values, return_inverse=True)
    step = max(1, len(values) // _LOOKS)
    if len(kinds) > _FEW:
        return lambda level: np.cumsum(log_growth(kinds, level)[which], axis=0)[::-step]
    last = len(values) - 1
    look = (np.arange(len(values)) - last % step + step - 1) // step  # the first that has the value
    counts = np.bincount(look * len(kinds) + which, minlength=(look[-1] + 1) * len(kinds))
    seen = np.cumsum(counts.reshape(-1, len(kinds)), axis=0).astype(np.float64)
    return lambda level: seen @ log_growth(kinds, level)


def at_least(values: Values, risk: float) -> float:
    """Return the least mean that ``values`` allow: it is ever too high with probability at most ``risk``."""
    if not len(values):
        return 0.0
    limit, paths = -math.log(risk), _paths(values)
    return largest(lambda level: _log_highest(paths, level) >= limit)


def at_most(values: Values, risk: float) -> float:
    """Return the largest mean that ``values`` allow: it is ever too low with probability at most ``risk``."""
    return 1.0 - at_least(1.0 - values, risk)
