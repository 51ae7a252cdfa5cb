"""Helpers of front ends: settings as numbers by name, and the conversion of real numbers to 8-bit pixels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import SensorError
from wire.errors import SettingsError
from wire.settings import names_of, numbers_from

Pixels: TypeAlias = "NDArray[np.uint8]"
Values: TypeAlias = "NDArray[np.float64]"

T = TypeVar("T")
MAX_SIDE = 4096
_LEVELS = 255
_COLUMNS = "columns"


class FrontEnd(Protocol):
    """A front end's module.

    ``SUFFIXES``: of the files that it reads, lower case, with dot. ``Settings``: a frozen dataclass whose fields are
    numbers with a default and a range. With a field ``columns``, a mapping, it also takes ``low_0``, ``high_0`` and so
    on: finite numbers for single columns.
    """

    SUFFIXES: frozenset[str]
    Settings: type

    def decode(self, data: bytes, settings: Any) -> Pixels:  # noqa: ANN401 - the Settings of the same module
        """Return the picture of ``data``, uint8 (H, W, 3); raises ``SensorError``."""


def settings_from(cls: type[T], options: Mapping[str, float]) -> T:
    """Return ``cls``, a front end's ``Settings``, filled from ``options`` as in a recipe or a manifest.

    Raises:
        SensorError: If an option is unknown, not a finite number, not a whole one if required, out of range, or
            contradicts another.
    """
    name, known = cls.__module__.rpartition(".")[2], names_of(cls)
    plain: dict[str, float] = {}
    columns: dict[str, float] = {}
    for key, value in options.items():
        head, _, number = key.rpartition("_")
        if _COLUMNS in known and head in {"low", "high"} and number.isdecimal():
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise SensorError(f"Expected {name} {key} to be a finite number, got {value!r}")
            columns[key] = float(value)
        else:
            plain[key] = value
    try:
        return numbers_from(cls, plain, name, given={_COLUMNS: columns} if _COLUMNS in known else None)
    except SettingsError as error:
        raise SensorError(str(error)) from error


def as_options(settings: object) -> dict[str, float]:
    """Return every setting as a number by its name, as in a manifest; those of single columns come last."""
    plain = {
        field.name: float(getattr(settings, field.name))
        for field in dataclasses.fields(settings)  # type: ignore[arg-type]  # a dataclass, by the contract
        if field.name != _COLUMNS
    }
    return {**plain, **getattr(settings, _COLUMNS, {})}


def ranges(low: float, high: float, columns: Mapping[str, float], count: int) -> tuple[Values, Values]:
    """Return low and high of ``count`` columns, float64 (count,) each: ``low_0`` and so on, or else ``low``, ``high``.

    Raises:
        SettingsError: If a high is not above its low, or ``columns`` has a number beyond the last column.
    """
    for name in columns:
        if int(name.rpartition("_")[2]) >= count:
            raise SettingsError(f"Expected options for columns 0 to {count - 1}, got {name!r}")
    lows = np.array([columns.get(f"low_{i}", low) for i in range(count)])
    highs = np.array([columns.get(f"high_{i}", high) for i in range(count)])
    if not np.all(highs > lows):
        worst = int(np.argmin(highs - lows))
        raise SettingsError(f"Expected high above low, got {lows[worst]:g} to {highs[worst]:g} for column {worst}")
    return lows, highs


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
        raise SensorError(f"{message}: send numbers alone, as many in each row") from error
