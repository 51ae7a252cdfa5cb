"""Inputs without labels: a folder or zip of files, or one NumPy file (``.npy``).

Without a front end the files are pictures (``.bmp .jpeg .jpg .png .webp``, other files are passed over) and an array
is uint8 (N, H, W), (N, H, W, 1) or (N, H, W, 3). With a front end each file is one input, in the bytes that a device
gets from its sensor; an array is (N, steps, channels) of numbers, each row a window.

A file ``sources.csv`` at the top of a folder or zip, with the columns ``path`` and ``source``, says which files show
the same object (frames of one scene); any other file is a source of its own. Near copies are found later, as in every
data set. Sizes are checked before anything is decoded, images are taken one by one, and nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compressor.data import _stored_images, _window_table
from compressor.data._archive import Names, opened
from compressor.data._delimited import lines_of
from compressor.data._front_end import check_corrupt, completed, options_of, preprocessing_of
from compressor.data._npy import Array, check_header
from compressor.data._table import Shares, Table, source_name
from compressor.data.arrays import pictures
from compressor.data.labelled_images import MAX_SET_BYTES
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import UNLABELLED, DataRecipe
from edge_agent import front_ends
from edge_agent.errors import ImageError, SensorError
from edge_agent.inference.preprocess import MAX_IMAGE_BYTES, decode_image
from edge_agent.pictures import sixteen_bits

READS = frozenset({"path", "allow_corrupt", "orientation", "decode", "bits", "front_end", "options"})
SOURCES = "sources.csv"
_SHARES = Shares(train=0.4, calibration=0.06, gate=0.36, reference=0.18)
"""Most rows gate: a share of changed answers below 1 % takes 300 of them. Without training 60 % do."""
_PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_MAX_SOURCES_BYTES = 256 * 1024 * 1024
_WINDOWS_RANK = 3
_NAMES_SHOWN = 5
Pixels = npt.NDArray[np.uint8]


@dataclass(slots=True)
class _Taken:
    """The names of the images that were read, and ``name: reason`` of the others; complete after the last image."""

    names: list[str] = field(default_factory=list)
    corrupt: list[str] = field(default_factory=list)

    def noted(self, name: str, images: Iterable[Pixels]) -> Iterator[Pixels]:
        """Yield the ``images`` of the input ``name``; one that can't be decoded is noted."""
        try:
            for image in images:
                self.names.append(name)
                yield image
        except (ImageError, SensorError, OSError, EOFError) as error:
            self.corrupt.append(f"{name}: {error}")


def without_labels(data: DataRecipe) -> DataRecipe:
    """Return the ``[data]`` of the inputs that ``data`` names beside its labelled rows, preprocessed as these."""
    told = ("slices", "split", "train_slices", "label", "shares", "task", "needs", "stand_in", "columns", "calibration",
            "separator", "label_columns", "ignore", "missing", "near_copies", "target_mean", "target_std")  # fmt: skip
    usual = DataRecipe()
    plain = {name: getattr(usual, name) for name in told}
    return replace(data, dataset=UNLABELLED, path=data.unlabelled, unlabelled="", **plain)


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the inputs in ``data.path`` as images, in the order of their names; the table has no labels.

    Raises:
        ArchiveError: If it can't be opened, is too large, has unsafe paths, or no inputs.
        ColumnError: If ``sources.csv`` lacks a column.
        CorruptImageError: If more inputs than ``data.allow_corrupt`` are broken.
        DataError: If an array has the wrong type or shape, or ``sources.csv`` can't be read.
        StorageError: If the images can't be written to the disk.
    """
    path, read = (root or Path()) / data.path, _Taken()
    named: Mapping[str, str] = {}
    if path.suffix.lower() == ".npy":
        held = _stored_images.kept(_of_array(_array(path), path, data, read))
    else:
        with opened(path) as store:
            held, named = _stored_images.kept(_of_files(store, path, data, read)), _sources(store)
    check_corrupt(read.corrupt, data, path, "broken inputs")
    if not read.names:
        raise ArchiveError(f"Expected inputs that can be read in {path}, got none: mend what is broken")
    sources = [named.get(name) or own for name, own in zip(read.names, held.hashes, strict=True)]
    return Table(
        images=held.images,
        labels=np.zeros((len(sources), 0), np.float32),
        slices=np.full(len(sources), "all"),
        sources=np.array(sources),
        hashes=np.array(held.hashes),
        class_names=(),
        corrupt=tuple(text.split(": ", 1)[0] for text in read.corrupt),
        shares=_SHARES,
        names=np.array(read.names, dtype=np.str_),
    )


def _of_files(store: Names, path: Path, data: DataRecipe, read: _Taken) -> Iterator[Pixels]:
    """Yield the image of each file in ``store``."""
    listed = [name for name in store.names() if not _hidden(name) and name != SOURCES]
    preprocessing, held_bytes = preprocessing_of(data), 0
    pictures = tuple(sorted(sixteen_bits.SUFFIXES)) if preprocessing.deep else _PICTURES
    suffixes = tuple(sorted(_suffixes(data))) if data.front_end else pictures
    found = [name for name in listed if name.lower().endswith(suffixes)]
    if not found:
        got = ", ".join(listed[:_NAMES_SHOWN]) or "nothing"
        wanted = f"files of the front end {data.front_end!r}" if data.front_end else "pictures"
        raise ArchiveError(f"Expected {wanted} ({' '.join(suffixes)}) in {path}, got {got}: check [data] unlabelled")

    def decoded(content: bytes) -> Iterator[Pixels]:
        if data.front_end:
            yield front_ends.decode(data.front_end, content, preprocessing.front_end_options)
        else:
            yield decode_image(content, preprocessing)

    for name in found:
        for image in read.noted(name, decoded(store.read(name, MAX_IMAGE_BYTES))):
            held_bytes += image.nbytes
            if held_bytes > MAX_SET_BYTES:
                message = f"Expected images of at most {MAX_SET_BYTES} bytes of pixels in all, got more at {name!r}"
                raise ArchiveError(f"{message}: make them smaller, the device scales them down too")
            yield image


def _suffixes(data: DataRecipe) -> frozenset[str]:
    try:
        return front_ends.suffixes(data.front_end)
    except SensorError as error:
        raise DataError(f"[data] front_end: {error}") from error


def _hidden(name: str) -> bool:
    """Return whether ``name`` is what systems leave in folders and zips (``.DS_Store``, ``__MACOSX/``)."""
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _array(path: Path) -> Array:
    """Return the array in the file at ``path``, mapped: its rows are read when they are used."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_SET_BYTES:
            raise ArchiveError(f"Expected an array of at most {MAX_SET_BYTES} bytes in {path}, got {size_bytes}")
        with path.open("rb") as file:
            check_header(file, size_bytes, str(path))
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        message = f"Expected a NumPy array (.npy) at {path}, got: {str(error)[:200]}"
        raise ArchiveError(f"{message}: write it with numpy.save") from error


def _of_array(found: Array, path: Path, data: DataRecipe, read: _Taken) -> Iterator[Pixels]:
    """Yield the image of each row of an array."""
    if not data.front_end:
        pictures(found[:1], str(path))  # its type and shape, before the first row
        for row in range(len(found)):
            yield from read.noted(str(row), pictures(found[row : row + 1], str(path)))
        return
    if found.ndim != _WINDOWS_RANK or found.dtype.kind not in "fiu" or not found.size:
        message = f"Expected windows (N, steps, channels) of numbers in {path}, got {found.dtype} {found.shape}"
        raise DataError(f"{message}: a front end reads one window a row; leave front_end out if these are pictures")
    options = completed(data.front_end, options_of(data))

    def decoded(window: Array) -> Iterator[Pixels]:
        content = _window_table.encoded(np.asarray(window, np.float64), binary=bool(options.get("binary", 0)))
        yield front_ends.decode(data.front_end, content, options)

    for row, window in enumerate(found):
        yield from read.noted(str(row), decoded(window))


def _sources(store: Names) -> Mapping[str, str]:
    """Return the source of each file that ``sources.csv`` names; none without that file."""
    known = set(store.names())
    if SOURCES not in known:
        return {}
    table = lines_of(store.read(SOURCES, _MAX_SOURCES_BYTES), SOURCES, ("path", "source"), {}, strict=True)
    for column in ("path", "source"):
        if column not in table.head:
            message = f"Expected the column {column!r} in {SOURCES}, got {', '.join(table.head) or 'none'}"
            raise ColumnError(f"{message}: a row names a file and what it shows")
    found = {}
    for place in range(len(table.cells)):
        where = f"{SOURCES}, row {place + 2}"
        line = table.line(place, where)
        if line["path"] not in known:
            message = f"Expected in {where} the path of a file beside it, got {line['path'][:200]!r}"
            raise DataError(f"{message}: write it relative to the folder, with forward slashes")
        found[line["path"]] = source_name(line.get("source", ""))
    return found
