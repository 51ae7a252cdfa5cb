"""Arrays in NumPy's own file format (``.npy``), read without unpickling; a header can't ask for more than there is."""

from __future__ import annotations

import io
import math
import tokenize
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from compressor.errors import ArchiveError, DataError

HEADER_BYTES = 4096
_VERSIONS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FAULTS = (ValueError, TypeError, EOFError, OSError, SyntaxError, RecursionError, MemoryError)
Array = npt.NDArray[Any]


class Header(NamedTuple):
    """The shape, order and type of the numbers in a ``.npy`` file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def check_header(file: IO[bytes], size_bytes: int, where: str) -> Header:
    """Return the header of the ``.npy`` file in ``file``, which has ``size_bytes`` in all; its numbers follow.

    No array is allocated.

    Raises:
        ArchiveError: If it is none, is of objects, or its shape needs other bytes than follow.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in _VERSIONS:
            message = f"format {version[0]}.{version[1]}"
            raise ValueError(message)
        shape, fortran_order, dtype = _VERSIONS[version](file, max_header_size=HEADER_BYTES)
        wanted = math.prod(shape) * dtype.itemsize
    except (*_FAULTS, tokenize.TokenError) as error:  # NumPy parses an old header as Python text
        message = f"Expected a NumPy array (.npy) in {where}, got: {str(error)[:120]}"
        raise ArchiveError(f"{message}: write it with numpy.save") from error
    if dtype.hasobject:
        message = f"Expected numbers or texts in {where}, got Python objects"
        raise ArchiveError(f"{message}, which are not unpickled: write it with numpy.save, no objects in it")
    if wanted != size_bytes - file.tell():
        message = f"Expected {wanted} bytes of {dtype} {shape} in {where}, got {size_bytes - file.tell()}"
        raise ArchiveError(f"{message}: the file is cut off or damaged; write it again")
    return Header(tuple(shape), fortran_order, dtype)


def read_npy(data: bytes, where: str) -> Array:
    """Return the array in ``data``, the bytes of a ``.npy`` file named ``where``.

    Raises:
        ArchiveError: If it is none, or damaged.
    """
    check_header(io.BytesIO(data), len(data), where)
    return np.asarray(np.lib.format.read_array(io.BytesIO(data), allow_pickle=False, max_header_size=HEADER_BYTES))


def samples_of(x: Array, where: str) -> npt.NDArray[np.float64]:
    """Return one sample ``x``, (T,) or (T, C) of real numbers, as float64 (T, C).

    Raises:
        DataError: If it has another shape or type.
    """
    if x.dtype.kind not in "fiu" or x.ndim not in {1, 2} or not x.size:
        message = f"Expected real numbers (T,) or (T, C) in {where}, got {x.dtype} {x.shape}"
        raise DataError(f"{message}: one file is one sample, a row a step, a column a channel")
    return x.astype(np.float64).reshape(len(x), -1)
