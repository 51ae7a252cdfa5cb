"""How many rows to process at a time: as many as fit into a number of bytes, never a fixed number of rows.

A fixed number costs megabytes for small inputs and gigabytes for large ones. Decides sizes only; imports none of our
modules, so that every stage can use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

TENSOR_BYTES = 64 * 1024 * 1024
"""Limit for all tensors of a model in memory at once: 1 to 4 rows at 224 x 224, which is also the fastest."""
INPUT_BYTES = 8 * 1024 * 1024
"""Limit for the inputs of one forward pass: activations are about ten times as large."""


class Inputs(Protocol):
    """Inputs of N rows, float32 (N, ...): an array, or rows that are made when they are taken."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array of all rows."""

    @property
    def nbytes(self) -> int:
        """The bytes of an array of all rows."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: slice | npt.NDArray[np.int64], /) -> Floats:
        """Return some rows, in memory."""


def rows_within(row_bytes: int, *, most: int, limit_bytes: int = INPUT_BYTES) -> int:
    """Return how many rows of ``row_bytes`` each fit into ``limit_bytes``: at least 1, at most ``most``."""
    return max(1, min(most, limit_bytes // max(1, row_bytes)))


def row_bytes(inputs: Inputs) -> int:
    """Return the bytes of one row of ``inputs``, (N, ...); 0 without rows."""
    return inputs.nbytes // len(inputs) if len(inputs) else 0


def portions(inputs: Inputs, *, most: int) -> Iterator[Floats]:
    """Yield ``inputs``, (N, ...), in parts of at most ``most`` rows and ``INPUT_BYTES``; of an array, views."""
    size = rows_within(row_bytes(inputs), most=most)
    for start in range(0, len(inputs), size):
        yield inputs[start : start + size]
