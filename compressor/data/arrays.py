"""Images or features in a NumPy file (``.npz``) or a folder of ``.npy``: ``x``, ``y`` and ``class_names``.

``x``: uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3), range 0..255; with ``[data] front_end = "window"`` real numbers
(N, T), (N, T, C) or (N, T, C, 1): features, MFCC frames, thermal or radar images, of ``steps`` T and ``channels`` C.
(N, F) are also rows of features, with ``steps`` 1 and ``channels`` F.
``y``: integers (N,), indices into ``class_names``, str (C,), which may be missing: then classes are called 0, 1 and so
on. Of several labels ``y`` is 0 and 1, (N, L), and ``class_names`` (L,); of numbers to predict real numbers, (N,) or
(N, D), and ``class_names`` their names (D,), or missing. Optional ``source``, str (N,): equal for views of the same
object. ``[data] slices`` and ``split`` name further arrays, str (N,), like columns of a CSV elsewhere. Sizes are
checked before anything is decompressed, and nothing is unpickled.
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

from compressor import tasks
from compressor.data import check_options
from compressor.data._front_end import Ranged, SensorSample, ranged, tabled
from compressor.data._front_end import window_front_end as front_end
from compressor.data._npy import HEADER_BYTES, Header, check_header
from compressor.data._stored_images import kept
from compressor.data._table import DEFAULT_SHARES, Table, Texts, align, check_label, source_name
from compressor.data._window_table import encoded
from compressor.data.labelled_images import safe_path
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe
from wire.settings import is_given

READS = frozenset({"path", "slices", "split", "orientation", "decode", "front_end", "options"})
MAX_SET_BYTES = 8 * 1024 * 1024 * 1024  # the images are read one by one
_GREY, _STACK, _RGB = 3, 4, 3
_MOST_UNNAMED = 10_000
"""Classes without names: an id or a date as y is no index of one."""
_NEEDED, _SOURCE, _NAMES = ("x", "y"), "source", "class_names"
_FAULTS = (OSError, zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, RuntimeError)
Array = npt.NDArray[Any]


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the images in the file ``data.path``, or the pictures of its features.

    Raises:
        ArchiveError: If it is not an npz file, damaged, or too large.
        ColumnError: If it lacks an array.
        CorruptImageError: If the front end rejects a row of features.
        DataError: If an array has the wrong type, shape or length, or a key is about the other kind of ``x``.
        SplitError: If the array ``data.split`` has an unknown split, or one content is in two, of features.
    """
    path = (root or Path()) / data.path
    _check_keys(data)
    found = _checked(path, data)
    names = _names(found, data)
    for name in names:
        check_label(name, f"{path}, class_names")
    if data.front_end:
        table = tabled(data, path, front_end(data), _samples(found, data, path), what="rows that can't be used")
        return align(table, names)
    stack = found["x"]
    held = kept(stack if isinstance(stack, _Stack) else pictures(stack, str(path)))
    count, hashes = len(held.images), np.array(held.hashes)
    named = _texts(found, _SOURCE, count).tolist() if _SOURCE in found else [""] * count
    table = Table(
        images=held.images,
        labels=_columns_of(found).astype(np.float32) if tasks.of(data).by_columns else found["y"].astype(np.int64),
        slices=_texts(found, data.slices, count) if data.slices else np.full(count, "", np.str_),
        sources=np.array([source_name(own) or content for own, content in zip(named, hashes.tolist(), strict=True)]),
        hashes=hashes,
        class_names=names,
        shares=DEFAULT_SHARES,
    )
    return replace(table, told=_texts(found, data.split, count)) if data.split else table


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the features before conversion to 8 bits, (steps, channels), to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``, or if there is no front end: images have no ranges.
    """
    path = (root or Path()) / data.path
    return ranged(_samples(_checked(path, data), data, path, text=True), *front_end(data))


def _check_keys(data: DataRecipe) -> None:
    """Check that no key is given that only images, or only features, read."""
    other = ("orientation", "decode") if data.front_end else ("options",)
    given = next((key for key in other if is_given(data, key)), None)
    if given is not None:
        kind = f"front_end = {data.front_end!r}" if data.front_end else "images"
        message = f"Expected no {given} in [data] with arrays and {kind}, got {getattr(data, given)!r}"
        raise DataError(f"{message}: leave it out{'' if data.front_end else ', or give the front_end that reads it'}")
    check_options(data, ("stride", "source_windows"), "a sample in each row")


def _checked(path: Path, data: DataRecipe) -> dict[str, Any]:
    """Return the arrays at ``path`` that are read: all that are needed, as many labels as rows."""
    wanted = [*_NEEDED, *filter(None, (data.slices, data.split))]
    found = _read(path, {*wanted, _SOURCE, _NAMES}, stacked=not data.front_end)
    missing = [name for name in wanted if name not in found]
    if missing:
        message = f"Expected the array {missing[0]!r} in {path}, got {', '.join(sorted(found)) or 'none of these'}"
        raise ColumnError(f"{message}: write it with numpy.savez")
    x, labels = found["x"], found["y"]
    if data.front_end:
        _check_features(x, str(path))
    elif not isinstance(x, _Stack):
        _check_images(x, str(path))
    _check_labels(labels, x.shape[0], data, path)
    return found


def _check_labels(labels: Array, count: int, data: DataRecipe, path: Path) -> None:
    """Check type and shape of ``labels``, the array y, for ``count`` rows.

    Raises:
        DataError: If they are not those of the task; what other tasks have is named.
    """
    got = f"got {labels.dtype} {labels.shape}"
    if not tasks.of(data).by_columns:
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            message = f"Expected y as integers ({count},) in {path}, {got}"
            other = 'several labels (N, L) take task = "multi_label", numbers label = "number"'
            raise DataError(f"{message}: give each row the index of its class in class_names; {other}")
        return
    flat = tasks.of(data).columns and labels.shape == (count,)
    there = labels.size > 0 and labels.shape == (count, labels.size // max(count, 1))
    if labels.dtype.kind not in "iufb" or not (flat or there):
        message = f"Expected y as numbers ({count}, columns) in {path}, {got}"
        raise DataError(f"{message}: give each row a column for each label, 0 or 1, or the numbers to predict")
    finite = np.isfinite(labels.astype(np.float64))
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise DataError(f"Expected finite numbers as y in {path}, got another in row {row}: mend it or leave it out")


def _columns_of(found: Mapping[str, Any]) -> Array:
    """Return y as (N, columns)."""
    labels: Array = found["y"]
    return labels.reshape(len(labels), -1)


def _names(found: Mapping[str, Any], data: DataRecipe) -> tuple[str, ...]:
    """Return the names of the classes, labels or numbers; without any the classes are called by their index.

    Raises:
        DataError: If they are not texts, or not as many as y has columns.
    """
    columns = _columns_of(found).shape[1] if tasks.of(data).by_columns else 0
    if _NAMES in found:
        names = tuple(_texts(found, _NAMES, found[_NAMES].size).tolist())
        if columns and len(names) != columns:
            message = f"Expected in class_names a name for each of {columns} columns of y, got {len(names)}"
            raise DataError(f"{message}: write numpy.array([...], dtype=str)")
        return names
    if columns:
        return tuple(f"label_{place}" for place in range(columns)) if columns > 1 else ("target",)
    highest = int(found["y"].max(initial=0))
    if highest >= _MOST_UNNAMED:
        message = f"Expected y below {_MOST_UNNAMED} without class_names, got {highest}"
        raise DataError(f"{message}: give the index of each row's class, or label = 'number' for numbers to predict")
    return tuple(map(str, range(highest + 1)))


def _check_features(x: Array, where: str) -> None:
    if x.dtype.kind not in "fiu" or x.ndim not in {2, 3, 4} or (x.ndim == _STACK and x.shape[3] != 1) or not x.size:
        message = f"Expected x as numbers (N, T), (N, T, C) or (N, T, C, 1) in {where}, got {x.dtype} {x.shape}"
        raise DataError(f"{message}: a row is a sample of T steps and C channels")


def _samples(found: Mapping[str, Any], data: DataRecipe, path: Path, *, text: bool = False) -> list[SensorSample]:
    x = found["x"].reshape(*found["x"].shape[:2], -1)
    if x.shape[2] == 1 and data.options.get("steps") == 1:
        x = x.reshape(len(x), 1, -1)  # rows of features
    count, names = len(x), _names(found, data)
    labels, numbers = [""] * count, _columns_of(found).tolist() if tasks.of(data).by_columns else []
    if not numbers:
        indices = found["y"].tolist()
        wrong = next((label for label in indices if not 0 <= label < len(names)), None)
        if wrong is not None:
            message = f"Expected y from 0 to {len(names) - 1}, the rows of class_names, in {path}, got {wrong}"
            raise DataError(f"{message}: mend the label or name its class")
        labels = [names[label] for label in indices]
    binary = bool(data.options.get("binary", 0)) and not text
    sources, slices, splits = (
        _texts(found, name, count).tolist() if name and name in found else [""] * count
        for name in (_SOURCE, data.slices, data.split)
    )
    return [
        SensorSample(
            name=f"{path.name} row {row}",
            data=encoded(values.astype(np.float64), binary=binary),
            label=labels[row],
            slice=slices[row],
            source=source_name(sources[row]) or f"{path.name} row {row}",
            split=splits[row],
            values=dict(zip(names, map(float, numbers[row]), strict=True)) if numbers else {},
        )
        for row, values in enumerate(x)
    ]


def pictures(x: Array, where: str) -> Sequence[npt.NDArray[np.uint8]]:
    """Return the rows of ``x`` as images, uint8 (H, W, 3); a grey channel is repeated.

    Raises:
        DataError: If it has the wrong type or shape, or no rows.
    """
    _check_images(x, where)
    if x.ndim == _STACK and x.shape[3] == _RGB:
        return list(x)
    return [np.repeat(row.reshape(*row.shape[:2], 1), _RGB, axis=2) for row in x]


def _check_images(x: Array, where: str) -> None:
    grey = x.ndim == _GREY or (x.ndim == _STACK and x.shape[3] == 1)
    if x.dtype != np.uint8 or not (grey or (x.ndim == _STACK and x.shape[3] == _RGB)) or not x.size:
        message = f"Expected x as uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3) in {where}, got {x.dtype} {x.shape}"
        remedy = "scale it to 0..255, make it uint8 and put the channels last"
        raise DataError(f'{message}: {remedy}, or read features with front_end = "window"')


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

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """The type of all, for messages about an array that is none of texts."""
        return np.dtype(np.uint8)

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


def _read(path: Path, names: set[str], *, stacked: bool) -> dict[str, Any]:
    """Return the arrays of ``names`` that are in the file or folder.

    ``stacked``: ``x`` is images, a ``_Stack`` where it can be read row by row.
    """
    try:
        if path.is_dir():
            return _read_folder(path, names)
        with zipfile.ZipFile(path) as archive:
            entries = [info for info in archive.infolist() if info.filename.removesuffix(".npy") in names]
            size = sum(info.file_size for info in entries)
            if size > MAX_SET_BYTES:
                raise ArchiveError(f"Expected arrays of at most {MAX_SET_BYTES} bytes in {path}, got {size}")
            stack = None
            for entry in entries:
                with archive.open(entry) as file:
                    header = check_header(file, entry.file_size, f"{path}, {entry.filename[:200]}")
                if stacked and entry.filename.removesuffix(".npy") == "x":
                    stack = _Stack.of(path, entry.filename, header)
        with np.load(path, allow_pickle=False, max_header_size=HEADER_BYTES) as arrays:
            whole = names - ({"x"} if stack else set())
            found: dict[str, Any] = {name: arrays[name] for name in arrays.files if name in whole}
        return found | ({"x": stack} if stack else {})
    except _FAULTS as error:
        raise _unreadable(path, error) from error


def _read_folder(path: Path, names: set[str]) -> dict[str, Array]:
    """Return the arrays in the files ``NAME.npy`` of a folder."""
    inside = path.resolve()
    files = {name: path / f"{name}.npy" for name in sorted(names) if safe_path(f"{name}.npy")}
    files = {name: file for name, file in files.items() if file.is_file() and file.resolve().is_relative_to(inside)}
    size = sum(file.stat().st_size for file in files.values())
    if size > MAX_SET_BYTES:
        raise ArchiveError(f"Expected arrays of at most {MAX_SET_BYTES} bytes in {path}, got {size}")
    for file in files.values():
        with file.open("rb") as opened:
            check_header(opened, file.stat().st_size, str(file))
    return {name: np.load(file, allow_pickle=False, max_header_size=HEADER_BYTES) for name, file in files.items()}
