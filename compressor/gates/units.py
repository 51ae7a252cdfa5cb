"""Units of figures and limits: valid limits, and the text of a value. Pure.

Decides the valid range of a limit in a recipe, so that points or per cent by mistake are rejected, and how a report
prints a figure. The row of a gate (``kinds``) gives the unit of a figure.
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

    ``text``: formats a value; ``low`` and ``high``: the valid range of a limit; ``hint``: added to its name in a
    message about an invalid limit; ``above_nothing``: a maximum of 0 or less is rejected, because no value is that
    small.
    """

    text: Callable[[float], str]
    low: float = -math.inf
    high: float = math.inf
    hint: str = ""
    above_nothing: bool = False

    def range_of(self, *, maximum: bool) -> tuple[float, float] | None:
        """Return the valid range of a ``maximum`` or a minimum; None if any value is valid."""
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
"""The remaining share of the original size; above 1 if it grew."""
FACTOR = Unit(text=f"{{:.2f}} {_TIMES}".format, hint=" (nothing is of that size)", above_nothing=True)
"""A factor."""
BYTES = Unit(text=_bytes, hint=" (nothing is of that size)", above_nothing=True)
MILLISECONDS = Unit(text="{:.3f} ms".format, hint=" (nothing is of that size)", above_nothing=True)
