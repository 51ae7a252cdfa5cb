"""Helpers of front ends: options with limits, and the conversion of real numbers to 8-bit pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import SensorError
from wire.settings import nearest

Pixels: TypeAlias = "NDArray[np.uint8]"
Values: TypeAlias = "NDArray[np.float64]"

MAX_SIDE = 4096
_LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option: its default, the smallest and the largest value, and whether it must be an integer."""

    default: float
    low: float
    high: float
    whole: bool = False


class FrontEnd(Protocol):
    """A front end's module.

    ``SUFFIXES``: of the files that it reads, lower case, with dot. ``OPTIONS``: the keys of ``[data] options``.
    """

    SUFFIXES: frozenset[str]
    OPTIONS: Mapping[str, Option]

    def decode(self, data: bytes, options: Mapping[str, float]) -> Pixels:
        """Return the picture of ``data``, uint8 (H, W, 3); raises ``SensorError``."""

    def complete(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return ``options`` with all defaults filled in; raises ``SensorError``."""


def settled(
    options: Mapping[str, float], known: Mapping[str, Option], *, numbered: Sequence[str] = ()
) -> dict[str, float]:
    """Return all of ``known`` with their values from ``options`` or their defaults.

    ``numbered`` are prefixes of per-channel options, such as ``low_`` for ``low_0``: any finite value, returned
    unchanged.

    Raises:
        SensorError: If an option is unknown, not a finite number, not an integer if required, or out of range.
    """
    result = {name: option.default for name, option in known.items()}
    for name, value in options.items():
        own = next((prefix for prefix in numbered if name.startswith(prefix) and name[len(prefix) :].isdecimal()), "")
        if name not in known and not own:
            raise SensorError(f"Expected an option of {', '.join(known)}, got {name!r}{nearest(name, known)}")
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise SensorError(f"Expected the option {name} to be a finite number, got {value!r}")
        if not own:
            _check(name, value, known[name])
        result[name] = float(value)
    return result


def _check(name: str, value: float, option: Option) -> None:
    if not option.low <= value <= option.high or (option.whole and value != int(value)):
        kind = "a whole number" if option.whole else "a number"
        message = f"Expected the option {name} to be {kind} from {option.low:g} to {option.high:g}, got {value!r}"
        raise SensorError(message)


def ranges(options: Mapping[str, float], count: int) -> tuple[Values, Values]:
    """Return low and high of ``count`` columns, float64 (count,) each: ``low_0`` and so on, or else ``low``, ``high``.

    Raises:
        SensorError: If a high is not above its low, or a numbered option has no column.
    """
    for name in options:
        head, _, number = name.rpartition("_")
        if head in {"low", "high"} and number.isdecimal() and int(number) >= count:
            raise SensorError(f"Expected options for columns 0 to {count - 1}, got {name!r}")
    low = np.array([options.get(f"low_{i}", options["low"]) for i in range(count)])
    high = np.array([options.get(f"high_{i}", options["high"]) for i in range(count)])
    if not np.all(high > low):
        worst = int(np.argmin(high - low))
        raise SensorError(f"Expected high above low, got {low[worst]:g} to {high[worst]:g} for column {worst}")
    return low, high


def to_pixels(values: Values, low: Values | float, high: Values | float) -> Pixels:
    """Return real ``values`` (H, W) as uint8 (H, W, 3): ``low`` is 0, ``high`` is 255, clipped, equal channels.

    ``low`` and ``high`` broadcast against (H, W). Rounds half to even, in float64.

    Raises:
        SensorError: If a side is not 1 to ``MAX_SIDE``.
    """
    if values.ndim != 2 or not all(1 <= side <= MAX_SIDE for side in values.shape):  # noqa: PLR2004 - rows and columns
        raise SensorError(f"Expected a picture of 1 to {MAX_SIDE} rows and columns, got {values.shape}")
    levels = np.rint(np.clip((values - low) / (np.asarray(high) - low), 0, 1) * _LEVELS).astype(np.uint8)
    return np.repeat(levels[:, :, None], 3, axis=2)


def as_array(values: Any) -> Values:  # noqa: ANN401 - whatever a parser found
    """Return ``values`` as float64.

    Raises:
        SensorError: If they are not numbers, or rows differ in length.
    """
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"Expected rows of equally many numbers, got: {str(error)[:120]}"
        raise SensorError(message) from error
