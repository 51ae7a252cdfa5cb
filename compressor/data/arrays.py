"""Images in one NumPy file (``.npz``), as in notebooks: ``x``, ``y`` and ``class_names``.

``x``: uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), range 0..255. ``y``: integers (N,), indices into
``class_names``, str (C,). Optional ``source``, str (N,): equal for views of the same object. ``[data] slices`` and
``split`` name further arrays, str (N,), like columns of a CSV elsewhere. Sizes are checked before anything is
decompressed, and nothing is unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.data._npy import HEADER_BYTES, check_header
from compressor.data._stored_images import kept
from compressor.data._table import DEFAULT_SHARES, Table, Texts, check_label, source_name
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "slices", "split", "orientation", "decode"})  # the last two are for the manifest
MAX_SET_BYTES = 8 * 1024 * 1024 * 1024  # a set is held in memory
_GREY, _STACK, _RGB = 3, 4, 3
_NEEDED, _SOURCE = ("x", "y", "class_names"), "source"
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
    images = pictures(found["x"], str(path))
    count = len(images)
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


def _texts(found: Mapping[str, Array], name: str, count: int) -> Texts:
    values = found[name]
    if values.shape != (count,) or values.dtype.kind != "U":
        message = f"Expected {name!r} as texts ({count},), got {values.dtype} {values.shape}"
        raise DataError(f"{message}: write numpy.array([...], dtype=str)")
    return values.astype(np.str_)


def _read(path: Path, names: set[str]) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in names]
            size = sum(info.file_size for info in entries)
            if size > MAX_SET_BYTES:
                raise ArchiveError(f"Expected arrays of at most {MAX_SET_BYTES} bytes in {path}, got {size}")
            for entry in entries:
                with archive.open(entry) as file:
                    check_header(file, entry.file_size, f"{path}, {entry.filename[:200]}")
        with np.load(path, allow_pickle=False, max_header_size=HEADER_BYTES) as arrays:
            return {name: arrays[name] for name in arrays.files if name in names}
    except (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        message = f"Expected a file of arrays (.npz) at {path}, got: {str(error)[:200]}"
        raise ArchiveError(f"{message}: write it with numpy.savez, no objects in it") from error
