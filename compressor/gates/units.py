"""Units of figures and limits: which limits make sense, and how a person reads a value. Pure.

Decides the range of a limit in a recipe, lest points or per cent let everything pass or nothing, and the words of a
figure in a report. Which figure has which unit is told by its row (``kinds``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_NEARLY_ALL = 0.999
_LEAST = 1e-9
_MEGABYTE = 1e6
_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The unit of a gate's value, bound and limit.

    ``text``: a value in words; ``low`` and ``high``: between which a limit must be; ``hint``: what a message about a
    limit out of range adds to its name; ``above_nothing``: a maximum of 0 or less is refused, for nothing is so small.
    """

    text: Callable[[float], str]
    low: float = -math.inf
    high: float = math.inf
    hint: str = ""
    above_nothing: bool = False

    def range_of(self, *, maximum: bool) -> tuple[float, float] | None:
        """Return between which two numbers a ``maximum`` or a minimum must be; None where any is as good."""
        if self.above_nothing:
            return (_LEAST, math.inf) if maximum else None
        return None if math.isinf(self.low) else (self.low, self.high)


def _per_cent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _bytes(value: float) -> str:
    return f"{value / 1000:,.1f} kB" if value < _MEGABYTE else f"{value / _MEGABYTE:,.1f} MB"


NUMBER = Unit(text="{:,.6g}".format)
"""A number without a unit."""
VALUES = Unit(text="{:,.4g}".format)
"""The unit of the values that a regression predicts."""
SHARE = Unit(text=_per_cent, low=0, high=1, hint=" as a share (0.01 is 1 %)")
"""A part of the whole, 0..1."""
POINTS = Unit(text=_per_cent, low=-_NEARLY_ALL, high=_NEARLY_ALL, hint=" as a share (0.01 is one point)")
"""The difference of two shares."""
PROPORTION = Unit(text=_per_cent, hint=" (nothing is of that size)", above_nothing=True)
"""How much of the size before is left; above 1 where it grew."""
FACTOR = Unit(text=f"{{:.2f}} {_TIMES}".format, hint=" (nothing is of that size)", above_nothing=True)
"""How many times as much."""
BYTES = Unit(text=_bytes, hint=" (nothing is of that size)", above_nothing=True)
MILLISECONDS = Unit(text="{:.3f} ms".format, hint=" (nothing is of that size)", above_nothing=True)
