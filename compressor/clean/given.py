"""What is known of an ONNX file beside its bytes. Loads no onnx, so that any format can be asked to clean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Constant: TypeAlias = float | tuple[float, ...]
PARITY = "parity"
"""The name of the note on the difference of answers before and after; it depends on the processor."""
_SEED, _ROWS = 0, 3
_MATRIX = 2


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Given:
    """``rows``: some inputs as a device feeds them, float32 (N, C, H, W), at least one; the first three are used.

    ``compressed``: steps follow, so that what quantizers need is mended too; else types and computation of the file
    stay as they are. ``constants``: values of inputs that are no data, by name. ``factor`` and ``offset``: a pixel
    (0..255) is its value in a row times ``factor``, plus ``offset``; one number, or one for each channel.
    Empty: the device's images have no pixels of 8 bits.
    """

    rows: npt.NDArray[np.float32]
    compressed: bool = True
    constants: Mapping[str, Constant] = field(default_factory=dict)
    factor: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)

    @property
    def to_pixels(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """``factor`` and ``offset`` as float32: numbers () if all channels have the same, else (C, 1, 1)."""
        found = (np.array(own or (0.0,), np.float32) for own in (self.factor, self.offset))
        factor, offset = (own[0] if np.all(own == own[0]) else own.reshape(-1, 1, 1) for own in found)
        return np.asarray(factor), np.asarray(offset)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row, without the batch."""
        return tuple(self.rows.shape[1:])


def random_rows(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return three rows of normal noise of ``shape`` each, the same every time: for a check without data."""
    return np.random.default_rng(_SEED).standard_normal((_ROWS, *shape)).astype(np.float32)


def flat_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return (N, values) of a row of values that has further axes of size 1; every other shape as it is.

    An unknown size is 0, and no row of values. A shape of two axes is one already.
    """
    sizes = [size for size in shape[1:] if size != 1]
    if len(shape) <= _MATRIX or len(sizes) > 1 or 0 in sizes:
        return tuple(shape)
    return (shape[0], *(sizes or [1]))
