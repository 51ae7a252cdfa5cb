"""How a data set whose samples are not images names its front end and options.

Decides which of a recipe's ``[data] options`` belong to the front end and which to the loader. Ranges (``low_0``,
``high_0``, ``floor_db``, ...) are constants of the recipe, never taken from the rows that ``load`` returns: those are
split afterwards, so a range seen there would have seen the gate rows. ``compressor data fit`` prints ranges from the
train rows alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.errors import DataError
from compressor.recipe import DataRecipe
from edge_agent import front_ends
from edge_agent.errors import SensorError

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample before its front end: the bytes a device would get, and what is known of it."""

    name: str
    data: bytes
    label: str
    slice: str
    source: str


@dataclass(frozen=True, slots=True)
class Ranged:
    """A sample's real numbers before they become 8 bits, float64 (T, C), with its source."""

    values: Values
    source: str


def chosen(data: DataRecipe, known: tuple[str, ...]) -> tuple[str, dict[str, float]]:
    """Return the front end that ``data`` names, one of ``known``, and all its options, defaults written out.

    Raises:
        DataError: If it names none (the device would not know how to read its sensor) or another, or an option is
            unknown or out of range.
    """
    if data.front_end not in known:
        message = f"Expected in [data] front_end one of {', '.join(known)}, got {data.front_end or 'none'}"
        raise DataError(f"{message}: device and data set {data.dataset!r} must read a sensor alike")
    return data.front_end, completed(data.front_end, options_of(data))


def options_of(data: DataRecipe) -> dict[str, float]:
    """Return ``[data] options`` as numbers."""
    return {name: float(value) for name, value in data.options.items()}


def completed(name: str, options: Mapping[str, float]) -> dict[str, float]:
    """Return ``options`` of the front end ``name`` with every default written out.

    Raises:
        DataError: If an option is unknown or out of range.
    """
    try:
        return front_ends.complete(name, options)
    except SensorError as error:
        message = f"[data] options: {error}"
        raise DataError(message) from error


def pictures(
    samples: list[Sample], name: str, options: Mapping[str, float]
) -> tuple[list[npt.NDArray[np.uint8]], list[Sample], list[str]]:
    """Return the pictures, their samples, and ``name: reason`` of what the front end refused."""
    images, kept, corrupt = [], [], []
    for sample in samples:
        try:
            images.append(front_ends.decode(name, sample.data, options))
        except SensorError as error:
            corrupt.append(f"{sample.name}: {error}")
        else:
            kept.append(sample)
    return images, kept, corrupt
