"""Images in one NumPy file (``.npz``), as in notebooks: ``x``, ``y`` and ``class_names``.

``x``: uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), range 0..255. ``y``: integers (N,), indices into
``class_names``, str (C,). Optional ``source``, str (N,): equal for views of the same object. ``[data] slices`` and
``split`` name further arrays, str (N,), like columns of a CSV elsewhere. Sizes are checked before anything is
decompressed, and nothing is unpickled.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data._npy import HEADER_BYTES, Header, check_header
from compressor.data._stored_images import kept
from compressor.data._table import DEFAULT_SHARES, Table, Texts, check_label, source_name
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "slices", "split", "orientation", "decode"})  # the last two are for the manifest
MAX_SET_BYTES = 8 * 1024 * 1024 * 1024  # the images are read one by one
_GREY, _STACK, _RGB = 3, 4, 3
_NEEDED, _SOURCE = ("x", "y", "class_names"), "source"
_FAULTS = (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError)
Array = npt.NDArray[Any]


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the images in the file ``data.path``.

    Raises:
        ArchiveError: If it is not an npz file, damaged, or too large.
        ColumnError: If it lacks an array.
        DataError: If an array has the wrong type, shape or length.
    """
    path = (root or Path()) / data.path
    wanted = [*_NEEDED, *filter(None, (data.slices, data.split))]
    found = _read(path, {*wanted, _SOURCE})
    missing = [name for name in wanted if name not in found]
    if missing:
        message = f"Expected the array {missing[0]!r} in {path}, got {', '.join(sorted(found)) or 'none of these'}"
        raise ColumnError(f"{message}: write it with numpy.savez")
    stack = found["x"]
    images = stack if isinstance(stack, _Stack) else pictures(stack, str(path))
    count = stack.shape[0]
    labels = found["y"]
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        message = f"Expected y as integers ({count},) in {path}, got {labels.dtype} {labels.shape}"
        raise DataError(f"{message}: give each row the index of its class in class_names")
    names = tuple(_texts(found, "class_names", found["class_names"].size).tolist())
    for name in names:
        check_label(name, f"{path}, class_names")
    held = kept(images)
    hashes = np.array(held.hashes)
    empty = np.full(count, "", np.str_)
    named = _texts(found, _SOURCE, count).tolist() if _SOURCE in found else [""] * count
    table = Table(
        images=held.images,
        labels=labels.astype(np.int64),
        slices=_texts(found, data.slices, count) if data.slices else empty,
        sources=np.array([source_name(own) or content for own, content in zip(named, hashes.tolist(), strict=True)]),
        hashes=hashes,
        class_names=names,
        shares=DEFAULT_SHARES,
    )
    return replace(table, told=_texts(found, data.split, count)) if data.split else table


def pictures(x: Array, where: str) -> Sequence[npt.NDArray[np.uint8]]:
    """Return the rows of ``x`` as images, uint8 (H, W, 3); a grey channel is repeated.

    Raises:
        DataError: If it has the wrong type or shape, or no rows.
    """
    grey = x.ndim == _GREY or (x.ndim == _STACK and x.shape[3] == 1)
    if x.dtype != np.uint8 or not (grey or (x.ndim == _STACK and x.shape[3] == _RGB)) or not x.size:
        message = f"Expected x as uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) in {where}, got {x.dtype} {x.shape}"
        raise DataError(f"{message}: scale it to 0..255, make it uint8 and put the channels last")
    if not grey:
        return list(x)
    return [np.repeat(row.reshape(*row.shape[:2], 1), _RGB, axis=2) for row in x]


@dataclass(frozen=True, slots=True)
class _Stack:
    """Images uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) in a file of arrays, read one by one.

    ``entry``: that of the zip; ``shape``: of all.
    """

    path: Path
    entry: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, entry: str, header: Header) -> _Stack | None:
        """Return the images of the array with this ``header``; None if it can't be read row by row, or is none."""
        shape = header.shape
        stacked = len(shape) == _GREY or (len(shape) == _STACK and shape[3] in {1, _RGB})
        if header.dtype != np.uint8 or header.fortran_order or not stacked or not math.prod(shape):
            return None
        return cls(path, entry, shape)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        with zipfile.ZipFile(self.path) as archive, archive.open(self.entry) as file:
            size_bytes = archive.getinfo(self.entry).file_size
            check_header(file, size_bytes, str(self.path))
            for _ in range(self.shape[0]):
                try:
                    read = file.read(math.prod(self.shape[1:]))
                    yield from pictures(np.frombuffer(read, np.uint8).reshape(1, *self.shape[1:]), str(self.path))
                except _FAULTS as error:
                    raise _unreadable(self.path, error) from error


def _unreadable(path: Path, error: Exception) -> ArchiveError:
    message = f"Expected a file of arrays (.npz) at {path}, got: {str(error)[:200]}"
    return ArchiveError(f"{message}: write it with numpy.savez, no objects in it")


def _texts(found: Mapping[str, Any], name: str, count: int) -> Texts:
    values: Array = found[name]
    if values.shape != (count,) or values.dtype.kind != "U":
        message = f"Expected {name!r} as texts ({count},), got {values.dtype} {values.shape}"
        raise DataError(f"{message}: write numpy.array([...], dtype=str)")
    return values.astype(np.str_)


def _read(path: Path, names: set[str]) -> dict[str, Any]:
    """Return the arrays of ``names`` that are in the file; ``x`` as a ``_Stack`` where it can be read row by row."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in names]
            size = sum(info.file_size for info in entries)
            if size > MAX_SET_BYTES:
                raise ArchiveError(f"Expected arrays of at most {MAX_SET_BYTES} bytes in {path}, got {size}")
            stack = None
            for entry in entries:
                with archive.open(entry) as file:
                    header = check_header(file, entry.file_size, f"{path}, {entry.filename[:200]}")
                if entry.filename.removesuffix(".npy") == "x":
                    stack = _Stack.of(path, entry.filename, header)
        with np.load(path, allow_pickle=False, max_header_size=HEADER_BYTES) as arrays:
            whole = names - ({"x"} if stack else set())
            found: dict[str, Any] = {name: arrays[name] for name in arrays.files if name in whole}
        return found | ({"x": stack} if stack else {})
    except _FAULTS as error:
        raise _unreadable(path, error) from error
