"""A zip or folder of images with a CSV: ``path``, ``label`` and, if the recipe names one, a slice column.

The CSV is UTF-8 with or without a byte-order mark, its delimiter a comma, a semicolon or a tab; paths may have the
separators of Windows. ``[data] columns`` gives the names of columns that are called otherwise. Of several labels,
``label_columns`` names a column of 0 and 1 for each.

With a column ``source``, rows of one source (frames of one scene) are never split between train and gate and are
gated once; blanks around a name and the form of its accents don't make another source, and a row without a name is a
source of its own. A column ``lane`` says how a sample from the fleet was drawn. Everything is checked before it is
decoded: the number and size of entries, their paths, the columns.
"""

from __future__ import annotations

import itertools
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt

from compressor import tasks
from compressor.data import FLOOR
from compressor.data import _stored_images as stored_images
from compressor.data._delimited import Lines, check_columns, flags, lines_of, name_it
from compressor.data._front_end import check_corrupt, preprocessing_of
from compressor.data._layout import IMAGES, is_hidden
from compressor.data._split import told_groups
from compressor.data._table import Table, check_label, check_spelled, make_table, make_value_table, source_name
from compressor.errors import ArchiveError, ColumnError, CorruptImageError, DataError
from compressor.recipe.model import DataRecipe
from edge_agent.errors import ImageError
from edge_agent.inference.preprocess import MAX_IMAGE_BYTES, decode_image
from wire.manifest import Preprocessing

READS = frozenset({
    "path", "slices", "split", "allow_corrupt", "orientation", "decode", "bits", "columns", "label_columns", FLOOR,
})  # fmt: skip
COLUMNS = ("path", "label", "source", "lane")
MAX_ENTRIES = 500_000
MAX_CSV_BYTES = 256 * 1024 * 1024
MAX_SET_BYTES = 8 * 1024 * 1024 * 1024  # of all pixels, which are kept decoded
_SOURCE, _LANE = "source", "lane"
_LISTS = (".csv", ".tsv")
TABLES = (*_LISTS, ".parquet")
_NOT_THERE = ": not there"
_FORM = "submission"
_TEST = re.compile(r"(^|[^a-z])test([^a-z]|$)")


class Store(Protocol):
    """Reads entries; paths are relative, with forward slashes."""

    def csv_names(self) -> list[str]:
        """Return the names of the CSV files at the top."""

    def names(self) -> list[str]:
        """Return the paths of all files."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Return the entry ``name``; raises ``KeyError`` if it does not exist, ``ArchiveError`` above the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """One line of the CSV; ``values``: 0 or 1 for each of several labels that have a column of their own."""

    path: str
    label: str
    slice: str
    split: str = ""
    source: str = ""
    lane: str = ""
    values: tuple[float, ...] = ()


def load(data: DataRecipe, root: Path | None = None, listing: str = "") -> Table:
    """Return the images that the CSV in ``data.path`` (a zip or a folder) lists; ``listing``: that CSV, and no other.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, or too many or too large entries.
        ColumnError: If the CSV lacks a column.
        CorruptImageError: If more images than ``data.allow_corrupt`` are missing or broken.
        DataError: If a label does not fit ``data.label`` or has surrounding blanks, or a path has two labels.
        SplitError: If the column ``data.split`` has an unknown split, or one content is in two.
    """
    path = (root or Path()) / data.path
    with _opened(path) as store:
        names, passed = with_labels([listing] if listing else store.csv_names(), store.read, labels_in(data))
        rows = _read_rows(store, data, path, names)
        rows, remark = _as_they_lie(store, rows)
    table = listed(data, path, rows)
    return replace(table, remarks=(*table.remarks, *filter(None, [remark]), *passed))


def with_labels(
    names: Sequence[str],
    read: Callable[[str, int], bytes],
    labels: Callable[[Sequence[str]], Collection[str]],
    head_of: Callable[[str], Sequence[str]] | None = None,
) -> tuple[list[str], list[str]]:
    """Return the files ``names`` without tables that a competition adds and that have no labels; remarks on these.

    They are forms for answers, called so, as ``sample_submission.csv``, and a ``test.csv`` whose columns are those of
    another table beside it without its labels. Where there is nothing else, they stay.

    Args:
        names: Files, some of which are tables.
        read: Returns a file of at most so many bytes.
        labels: Returns those of a table's columns that are labels.
        head_of: Returns the columns of a table; None: all are text.
    """
    names, forms = _without_forms(names)
    said = [f"not read: {', '.join(forms)[:200]}, by its name a form for answers"] if forms else []
    tables = [name for name in names if name.lower().endswith(TABLES)]
    tests = [name for name in tables if _TEST.search(PurePosixPath(name).stem.casefold())]
    if not tests or len(tests) == len(tables):
        return names, said
    heads = {name: list((head_of or partial(_head_of, read))(name)) for name in tables if _beside(name, tests)}
    for test in tests:
        others = [name for name in heads if name not in tests and _beside(name, [test])]
        for other in others:
            lacking = [one for one in heads[other] if one not in heads[test]]
            if set(heads[test]) < set(heads[other]) and not set(lacking).isdisjoint(labels(heads[other])):
                said.append(f"not read: {test}, which lacks {', '.join(lacking)[:200]} of {other}: rows without labels")
                names = [name for name in names if name != test]
                break
    return names, said


def _beside(name: str, others: Sequence[str]) -> bool:
    """Return whether ``name`` lies in the folder of one of ``others``."""
    return any(PurePosixPath(name).parent == PurePosixPath(other).parent for other in others)


def _head_of(read: Callable[[str, int], bytes], name: str) -> list[str]:
    """Return the columns of a table of text."""
    first, _, _ = read(name, MAX_CSV_BYTES).partition(b"\n")
    return lines_of(first, name, (), {}).head


def labels_in(data: DataRecipe) -> Callable[[Sequence[str]], set[str]]:
    """Return what finds the columns of labels or targets of ``data`` in a table's columns."""
    own = set(data.label_columns or (data.columns.get(one, one) for one in ("label", "target")))
    return lambda head: {one for one in head if one in own or one.startswith("target_")}


def _without_forms(names: Sequence[str]) -> tuple[list[str], list[str]]:
    tables = [name for name in names if name.lower().endswith(TABLES)]
    forms = [name for name in tables if PurePosixPath(name).stem.casefold().endswith(_FORM)]
    if not forms or len(forms) == len(tables):
        return list(names), []
    return [name for name in names if name not in forms], forms


def _as_they_lie(store: Store, rows: list[LabelRow]) -> tuple[list[LabelRow], str]:
    """Return ``rows`` with paths as the files lie, if the list leaves out their one folder or their suffix; a remark.

    Decided for the whole list: a list that names a file as it lies is taken as it stands, so that no lost picture is
    replaced by another of its name.

    Raises:
        ArchiveError: If none of the paths is there, and several folders have files of these names.
    """
    files = set(store.names())
    if not files.isdisjoint(row.path for row in rows):
        return rows, ""
    by_name: dict[str, list[str]] = {}
    for file in sorted(files):
        if PurePosixPath(file).suffix.lower() in IMAGES and not is_hidden(file):
            for name in {PurePosixPath(file).name, PurePosixPath(file).stem}:
                by_name.setdefault(name, []).append(file)
    meant = {}
    for path in dict.fromkeys(row.path for row in rows):
        found = [file for file in by_name.get(PurePosixPath(path).name, ()) if _is_end(path, file)]
        if len(found) > 1:
            message = f"Expected the paths of pictures, got {path[:100]!r}, which may be {found[0]!r} or {found[1]!r}"
            raise ArchiveError(f"{message}: write the folder and the suffix in the column")
        meant.update({path: found[0]} if found else {})
    if not meant:
        return rows, ""
    one, file = next(iter(meant.items()))
    remark = (
        f"no path of the list is there as it is written: {one[:100]} is read as {file[:200]}, and so are the others"
    )
    return [replace(row, path=meant.get(row.path, row.path)) for row in rows], remark


def _is_end(path: str, file: str) -> bool:
    """Return whether ``path`` is the end of ``file``, with or without its suffix."""
    bare = file.removesuffix(PurePosixPath(file).suffix)
    return any(f"/{whole}".endswith(f"/{path}") for whole in (file, bare))


def listed(data: DataRecipe, path: Path, rows: list[LabelRow]) -> Table:
    """Return the table of the images of ``rows`` in the zip or folder at ``path``, whatever listed them.

    The table tells splits if ``data.split`` names a column, or a row has one.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, or too many or too large entries.
        CorruptImageError: If more images than ``data.allow_corrupt`` are missing or broken.
        DataError: If a label does not fit ``data.label``.
        SplitError: If a row has an unknown split, or one content is in two.
    """
    with _opened(path) as store:
        decoded = _Decoded(store, rows, preprocessing_of(data))
        images = stored_images.kept(decoded)  # one by one: the set need not fit into memory
    used, corrupt = decoded.rows, decoded.corrupt
    if rows and not used and all(text.endswith(_NOT_THERE) for text in corrupt):
        message = f"Expected the pictures that the list names in {path}, got none of {len(rows)}: {corrupt[0][:200]}"
        raise CorruptImageError(f"{message}: write their paths from the top of the folder, with suffix")
    check_corrupt(corrupt, data, path, "corrupt images")
    slices, sources = [row.slice for row in used], [row.source for row in used]
    left_out = tuple(text.split(": ", 1)[0] for text in corrupt)
    if data.label_columns:
        values = [row.values for row in used]
        table = make_value_table(
            images, values, data.label_columns, slices=slices, sources=sources, corrupt=left_out
        )  # fmt: skip
    else:
        names = [_class_name(row, data.label) for row in used]
        table = make_table(images, names, slices=slices, sources=sources, corrupt=left_out)
    table = replace(table, names=np.array([row.path for row in used], dtype=np.str_))
    if any(row.lane for row in used):
        table = replace(table, lanes=np.array([row.lane for row in used], dtype=np.str_))
    if not data.split and not any(row.split for row in used):
        return table
    table = replace(table, told=np.array([row.split for row in used], dtype=np.str_))
    told_groups(table, names=[row.path for row in used])
    return table


@contextmanager
def _opened(path: Path) -> Iterator[Store]:
    path = packed_alone(path)
    if path.is_dir():
        yield _ImageFolder(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield _ImageZip(archive)
    except (OSError, zipfile.BadZipFile) as error:
        message = f"Expected a zip or folder of images at {path}, got: {error}"
        raise ArchiveError(message) from error


def packed_alone(path: Path) -> Path:
    """Return the zip in the folder ``path`` that has no other file, as a downloaded data set lies; else ``path``."""
    if not path.is_dir():
        return path
    found = list(itertools.islice((file for file in path.iterdir() if not file.name.startswith(".")), 2))
    return found[0] if len(found) == 1 and found[0].is_file() and zipfile.is_zipfile(found[0]) else path


def safe_path(name: str) -> str:
    """Return ``name`` if it stays inside its archive.

    Raises:
        ArchiveError: If it is absolute, goes up, or has a backslash or NUL.
    """
    if not name or name.startswith("/") or ".." in PurePosixPath(name).parts or any(c in name for c in "\\\0:"):
        message = f"Expected a relative path inside the archive, got {name[:200]!r}"
        raise ArchiveError(message)
    return name


class _ImageFolder:
    """A folder as a store."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()

    def csv_names(self) -> list[str]:
        return sorted(file.name for file in self._path.iterdir() if file.suffix in _LISTS)

    def names(self) -> list[str]:
        return [file.relative_to(self._path).as_posix() for file in self._path.rglob("*") if file.is_file()]

    def read(self, name: str, limit_bytes: int) -> bytes:
        file = self._path / safe_path(name)
        if not file.is_file() or not file.resolve().is_relative_to(self._path):
            raise KeyError(name)
        if file.stat().st_size > limit_bytes:
            raise _oversize(name, file.stat().st_size, limit_bytes)
        return file.read_bytes()


class _ImageZip:
    """A zip as a store. Sizes are checked before and while an entry is decompressed."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            message = f"Expected at most {MAX_ENTRIES} entries in the zip, got {len(entries)}"
            raise ArchiveError(message)
        for entry in entries:
            safe_path(entry.filename)
        self._archive = archive

    def csv_names(self) -> list[str]:
        names = self._archive.namelist()
        return sorted(name for name in names if name.endswith(_LISTS) and "/" not in name)

    def names(self) -> list[str]:
        return [name for name in self._archive.namelist() if not name.endswith("/")]

    def read(self, name: str, limit_bytes: int) -> bytes:
        entry = self._archive.getinfo(safe_path(name))
        if entry.file_size > limit_bytes:
            raise _oversize(name, entry.file_size, limit_bytes)
        try:
            with self._archive.open(entry) as file:
                data = file.read(limit_bytes + 1)
        except (EOFError, NotImplementedError, RuntimeError, zlib.error) as error:  # cut, foreign, encrypted
            message = f"Expected {name[:200]!r} intact and not encrypted in the zip, got: {error}"
            raise zipfile.BadZipFile(message) from error
        if len(data) > limit_bytes:
            raise _oversize(name, len(data), limit_bytes)
        return data


def _oversize(name: str, got_bytes: int, limit_bytes: int) -> ArchiveError:
    return ArchiveError(f"Expected {name[:200]!r} of at most {limit_bytes} bytes, got {got_bytes}")


def _read_rows(store: Store, data: DataRecipe, path: Path, names: Sequence[str]) -> list[LabelRow]:
    if not names:
        message = f"Expected labels.csv at the top of {path}, got no CSV file"
        raise ArchiveError(message)
    if len(names) > 1 and "labels.csv" not in names:
        message = f"Expected one CSV file at the top of {path}, or labels.csv, got {', '.join(names)[:200]}"
        raise ArchiveError(f"{message}: call the one with path and label labels.csv")
    name = "labels.csv" if "labels.csv" in names else names[0]
    check_columns(data.columns, COLUMNS, data.dataset)
    wanted = ["path", *(data.label_columns or ("label",)), *(one for one in (data.slices, data.split) if one)]
    try:
        table = lines_of(store.read(name, MAX_CSV_BYTES), name, wanted, data.columns)
    except KeyError as error:
        message = f"Expected the file {name} inside {path}, got a folder or a link that leaves it: put the file there"
        raise ArchiveError(message) from error
    found = table.head
    for column in wanted:
        if column not in found:
            message = f"Expected the column {column!r} in {name}, got {', '.join(found) or 'none'}"
            raise ColumnError(message + (name_it(column) if found and column in COLUMNS else ""))
    check_spelled(sorted(set(found) - {data.slices, data.split}), (_SOURCE, _LANE), name)
    if not 0 < len(table.cells) <= MAX_ENTRIES:
        message = f"Expected 1 to {MAX_ENTRIES} lines in {name}, got {len(table.cells)}"
        raise ArchiveError(message)
    task = tasks.of(data)
    named = data.label != "floor" and not task.by_columns
    columns = flags(data.label_columns, [table.column(one) for one in data.label_columns], name, first_row=2)
    if not task.several:
        _check_labelled(table, data, name)
    rows = []
    for place in range(len(table.cells)):
        where = f"{name}, row {place + 2}"
        row = _row(table.line(place, where), data, where, named=named)
        rows.append(replace(row, values=tuple(column[place] for column in columns)))
    _check_contradictions(rows, name)
    return rows


def _check_contradictions(rows: list[LabelRow], name: str) -> None:
    """Check that no path has two labels.

    Raises:
        DataError: If one has; both rows are named.
    """
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        before = first.setdefault(row.path, place)
        if (rows[before].label, rows[before].values) != (row.label, row.values):
            one, other = ((rows[at].label[:50] or rows[at].values) for at in (before, place))
            message = (
                f"Expected one label for {row.path[:200]!r} in {name}, got {one!r} in row {before + 2} and {other!r} "
                f"in row {place + 2}"
            )
            raise DataError(f"{message}: leave the wrong row out")


def _check_labelled(table: Lines, data: DataRecipe, name: str) -> None:
    """Check that each line of the list ``name`` has a label.

    Raises:
        DataError: If some have none; they are counted.
    """
    lacking = [place for place, cell in enumerate(table.column("label")) if not cell]
    if not lacking:
        return
    own, count = data.columns.get("label", "label"), f"{len(lacking)} of {len(table.cells)} rows"
    message = f"Expected a value in {name}, row {lacking[0] + 2}, column {own!r}, got none there and in all in {count}"
    remedy = "fill them in or leave the rows out"
    if tasks.of(data).name in tasks.CAN_DO_WITHOUT:
        remedy += (
            "; to learn from these pictures too, leave the rows out, move the pictures to a folder, and write "
            '[data] unlabelled = "FOLDER" with a [[compress]] step "distill" (docs/how-to/own-model.md)'
        )
    raise DataError(f"{message}: {remedy}")


def _row(line: dict[str, str], data: DataRecipe, where: str, *, named: bool) -> LabelRow:
    """Return the row of a ``line``; ``named``: its label is the name of a class."""
    if not line.get("path"):
        own = data.columns.get("path", "path")
        raise DataError(f"Expected a value in {where}, column {own!r}, got none: fill it in or leave the row out")
    if named:
        check_label(line["label"], f"{where}, column {data.columns.get('label', 'label')!r}")
    part, split = (line.get(name, "") if name else "" for name in (data.slices, data.split))
    return LabelRow(
        path=_with_slashes(line["path"]),
        label=line.get("label") or "",
        slice=part if data.slices else "all",
        split=split,
        source=source_name(line.get(_SOURCE) or ""),
        lane=line.get(_LANE) or "",
    )


def _with_slashes(path: str) -> str:
    """Return ``path`` as a zip and a folder have it: with forward slashes and without ``./`` in front."""
    return path.replace("\\", "/").removeprefix("./")


class _Decoded:
    """The images as the device decodes them, one by one; ``rows`` and ``corrupt`` are complete after the last.

    ``rows``: those of the images; ``corrupt``: ``name: reason`` of unreadable ones.
    """

    def __init__(self, store: Store, rows: list[LabelRow], pre: Preprocessing) -> None:
        self._store, self._listed, self._pre = store, rows, pre
        self.rows: list[LabelRow] = []
        self.corrupt: list[str] = []

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        total_bytes = 0
        for row in self._listed:
            try:
                image = decode_image(self._store.read(row.path, MAX_IMAGE_BYTES), self._pre)
            except KeyError:
                self.corrupt.append(row.path + _NOT_THERE)
                continue
            except (ImageError, zipfile.BadZipFile, OSError, EOFError) as error:
                self.corrupt.append(f"{row.path}: {error}")
                continue
            self.rows.append(row)
            total_bytes += image.nbytes
            if total_bytes > MAX_SET_BYTES:
                message = f"Expected images of at most {MAX_SET_BYTES} bytes of pixels in all, got more at {row.path!r}"
                raise ArchiveError(
                    f"{message}: make them smaller, or let decode = 'reduced' scale them down, as the device does"
                )
            yield image


def _class_name(row: LabelRow, label: str) -> str:
    if label != "floor":
        return row.label
    try:
        value = float(row.label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"Expected a number as label of {row.path}, because label = 'floor', got {row.label!r}"
        raise DataError(message)
    return str(math.floor(value))
