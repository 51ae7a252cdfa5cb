"""How the counts of a window are stored: exact, in about one byte a count; the one place that knows the coding.

The first byte is the version, numbers are little-endian:

1. one byte a count; for each count above 255 (its byte is 0) its place and the count follow, uint32 each
2. the same with two bytes a count, for windows of thousands of inferences
3. ``wire.bitpack``: about a third shorter and slower, for windows that were merged and are seldom read

Versions before stored uint32 without a version, four bytes a count. They are told by their length, which no row of the
versions above has, and are read like the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire import bitpack
from wire.errors import HistogramError, MessageError

Counts = NDArray[np.int64]
_BYTES, _PAIRS, _PACKED = 1, 2, 3
_DENSE: dict[int, tuple[int, np.dtype[Any]]] = {_BYTES: (1, np.dtype(np.uint8)), _PAIRS: (2, np.dtype("<u2"))}
_UNVERSIONED = np.dtype(np.uint32)  # as the machine that wrote them has it
_LARGE = np.dtype("<u4")
_ONE_LARGE = 2 * _LARGE.itemsize
_LARGEST_BYTE = 0xFF
_FEW = 1 / 8  # of the counts: with more large ones two bytes each are shorter


def pack(words: bytes) -> bytes:
    """Return counts, given as native uint32, as a row stores them: quick to write and to read.

    Counts of an hour with 60 inferences take one byte each.
    """
    counts = np.frombuffer(words, _UNVERSIONED)
    if not counts.size or counts.max() <= _LARGEST_BYTE:
        found = b"\x01" + counts.astype(np.uint8).tobytes()
    else:
        above = int((counts > _LARGEST_BYTE).sum())
        found = _dense(counts, _BYTES if above <= _FEW * counts.size else _PAIRS)
    if len(found) == len(words):  # that is how a row of an older version is told
        found += np.array([0, counts[0]], _LARGE).tobytes()
    return found


def _dense(counts: NDArray[np.uint32], version: int) -> bytes:
    kind = _DENSE[version][1]
    large = np.flatnonzero(counts > np.iinfo(kind).max)
    small = counts.astype(kind)
    small[large] = 0
    tail = np.column_stack([large, counts[large]]).astype(_LARGE)
    return bytes([version]) + small.tobytes() + tail.tobytes()


def pack_merged(counts: Counts) -> bytes:
    """Return the counts of many windows (total,), each 0 to 2^63 - 1, in the shortest form.

    Raises:
        HistogramError: If one is out of these bounds.
    """
    try:
        found = bytes([_PACKED]) + bitpack.pack(counts.tolist())
    except MessageError as error:
        message = f"Expected counts that a merged window can hold, got: {error}"
        raise HistogramError(message) from error
    return found if len(found) != _UNVERSIONED.itemsize * len(counts) else _again(found)


def _again(found: bytes) -> bytes:
    return bytes([_PACKED, 0]) + found[1:]  # no head of bitpack begins with 0: its deflated part is never empty


def unpack(data: bytes, total: int) -> Counts:
    """Return the ``total`` counts of a row, as int64.

    Raises:
        HistogramError: If the row holds something else.
    """
    if len(data) == _UNVERSIONED.itemsize * total:
        return np.frombuffer(data, _UNVERSIONED).astype(np.int64)
    version = data[0] if data else 0
    if version in _DENSE:
        width, kind = _DENSE[version]
        end = 1 + width * total
        if len(data) >= end and (len(data) - end) % _ONE_LARGE == 0:
            counts = np.frombuffer(data[1:end], kind).astype(np.int64)
            large = np.frombuffer(data[end:], _LARGE).reshape(-1, 2)
            if not large.size or int(large[:, 0].max()) < total:
                counts[large[:, 0]] = large[:, 1]
                return counts
    elif version == _PACKED:
        try:
            return np.array(bitpack.unpack(data[2:] if data[1:2] == b"\0" else data[1:], total), np.int64)
        except MessageError as error:
            message = f"Expected {total} counts in a merged window, got: {error}"
            raise HistogramError(message) from error
    message = f"Expected a window of {total} counts, got {len(data)} bytes of version {version}: it is damaged"
    raise HistogramError(message)


def unpack_many(rows: Sequence[bytes], total: int) -> Counts:
    """Return the counts (R, ``total``) of R rows of one shape, as int64, at once where they have the same coding.

    Raises:
        HistogramError: If a row holds something else.
    """
    for length, first, read in _AT_ONCE:
        if all(len(row) == length(total) for row in rows):
            table = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), length(total))
            if first is None or bool((table[:, 0] == first).all()):
                return read(table)
    return np.stack([unpack(row, total) for row in rows])


_AT_ONCE: tuple[tuple[Callable[[int], int], int | None, Callable[[NDArray[np.uint8]], Counts]], ...] = (
    (lambda total: 1 + total, _BYTES, lambda table: table[:, 1:].astype(np.int64)),
    (lambda total: 4 * total, None, lambda table: table.view(_UNVERSIONED).astype(np.int64)),
)
"""Codings without exceptions: their length, their first byte, and how a table (R, length) of such rows is read."""


def is_whole(data: bytes, total: int) -> bool:
    """Return whether a row holds ``total`` counts."""
    if len(data) == 1 + total and data[0] == _BYTES:
        return True
    try:
        unpack(data, total)
    except HistogramError:
        return False
    return True
