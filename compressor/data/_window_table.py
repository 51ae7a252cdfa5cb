"""A CSV or Parquet table whose lines are steps of named windows. Parquet needs ``pyarrow``, imported on use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from compressor.data._archive import Names
from compressor.data._delimited import MISSING, lines_of, name_it, renamed
from compressor.data._front_end import SensorSample, Values
from compressor.data._table import check_label, check_spelled, source_name
from compressor.errors import ArchiveError, ColumnError, DataError, PluginError

MAX_TABLE_BYTES = 256 * 1024 * 1024
MAX_CELLS = 50_000_000
NO_COLUMNS: Mapping[str, str] = MappingProxyType({})
_DECIMAL = re.compile(r"\s*[+-]?[0-9]+(,[0-9]+)?([eE][+-]?[0-9]+)?\s*")
_WINDOW, _LABEL, _SOURCE, _TARGET = "window", "label", "source", "target"
_NAMED = frozenset({_WINDOW, _LABEL, _SOURCE, _TARGET, "path", "start_s", "end_s"})
"""Columns that a table may call otherwise."""


@dataclass(frozen=True, slots=True)
class Columns:
    """A table by columns: texts or numbers, all of one length; ``name`` and ``first_row`` are for messages."""

    name: str
    columns: dict[str, Sequence[object]]
    first_row: int = 0

    def required(self, column: str) -> list[str]:
        """Return a column as texts.

        Raises:
            ColumnError: If the column is missing.
            DataError: If a value is missing; file, column and row are named.
        """
        self.check_has(column)
        values = self.columns[column]
        empty = next((row for row, value in enumerate(values) if value is None or value == ""), None)
        if empty is not None:
            message = f"Expected a value in {self.name}, column {column!r}, row {empty + self.first_row}, got none"
            raise DataError(f"{message}: fill it in or leave the row out")
        return [str(value) for value in values]

    def optional(self, column: str) -> list[str]:
        """Return a column as texts, empty where a value is missing.

        Raises:
            ColumnError: If the column is missing.
        """
        self.check_has(column)
        return ["" if value is None else str(value) for value in self.columns[column]]

    def check_has(self, column: str) -> None:
        """Check that there is a ``column``, which ``[data] columns`` may name.

        Raises:
            ColumnError: If there is none.
        """
        if column not in self.columns:
            message = f"Expected the column {column!r} in {self.name}, got {', '.join(self.columns)[:200] or 'none'}"
            raise ColumnError(message + (name_it(column) if column in _NAMED else ""))

    def numbers(self, column: str) -> Values:
        """Return a column as finite numbers, float64 (N,).

        Raises:
            DataError: If a value is not one; file, column and row are named.
        """
        values = self.columns[column]
        try:
            found = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            found = np.array([number_of(value) for value in values])
        if found.ndim != 1:
            message = f"Expected one number in each row of {self.name}, column {column!r}, got {values[0]!r}"
            raise DataError(f"{message}: write a column for each number")
        if not np.isfinite(found).all():
            row = int(np.flatnonzero(~np.isfinite(found))[0])
            message = f"Expected a finite number in {self.name}, column {column!r}, row {row + self.first_row}"
            raise DataError(f"{message}, got {values[row]!r}: mend the value or leave the window out")
        return found


def samples(
    store: Names, name: str, slices: str, *, binary: bool, columns: bool = False, names: Mapping[str, str] = NO_COLUMNS
) -> list[SensorSample]:
    """Return the windows of the table ``name``; ``slices`` is the slice column, or empty.

    ``columns``: the targets are in the columns ``target`` and ``target_…``, not in ``label``. ``names``: the file's
    names of columns, ``[data] columns``.

    Raises:
        ArchiveError: If the table is too large.
        ColumnError: If a column is missing.
        DataError: If a value is not finite, a label has surrounding blanks, or a window has two labels, targets,
            sources or slices.
    """
    table = read(store, name, columns=names)
    windows = table.required(_WINDOW)
    targets: dict[str, list[str]] = {}
    if columns:
        named = [column for column in table.columns if column == _TARGET or column.startswith(f"{_TARGET}_")]
        if not named:
            table.check_has(_TARGET)
        targets = {column: [repr(value) for value in table.numbers(column).tolist()] for column in named}
    labels = [""] * len(windows) if columns else table.required(_LABEL)
    for row, label in enumerate(labels, start=table.first_row):
        check_label(label, f"{name}, row {row}, column {_LABEL!r}")
    check_spelled([column for column in table.columns if column not in {slices, *targets}], (_SOURCE,), name)
    sources = [source_name(own) for own in table.required(_SOURCE)] if _SOURCE in table.columns else windows
    parts = table.required(slices) if slices else ["all"] * len(windows)
    told = {_WINDOW, _LABEL, _SOURCE, slices, *targets}
    channels = [column for column in table.columns if column not in told]
    if not channels or not windows:
        message = (
            f"Expected lines and at least one channel besides {', '.join(sorted(told - {''}))} in {name}, got none"
        )
        raise DataError(message)
    values = np.stack([table.numbers(column) for column in channels], axis=1)
    rows: dict[str, list[int]] = {}
    for row, own in enumerate(windows):
        rows.setdefault(own, []).append(row)
    return [
        SensorSample(
            name=f"{name} window {own}",
            data=encoded(values[steps], binary=binary),
            label=_only(labels, steps, f"label of window {own} in {name}"),
            slice=_only(parts, steps, f"slice of window {own} in {name}"),
            source=_only(sources, steps, f"source of window {own} in {name}"),
            values={
                column: float(_only(texts, steps, f"{column} of window {own} in {name}"))
                for column, texts in targets.items()
            },
            columns=tuple(channels),
        )
        for own, steps in rows.items()
    ]


def encoded(values: Values, *, binary: bool) -> bytes:
    """Return ``values`` (T, C) as a device would send them: raw little-endian float32, or the same numbers as JSON."""
    with np.errstate(over="ignore"):  # an overflow becomes infinite, and the front end reports it
        single = values.astype("<f4")
    return single.tobytes() if binary else json.dumps(single.tolist()).encode()


def read(
    store: Names, name: str, *, columns: Mapping[str, str] = NO_COLUMNS, wanted: Sequence[str] = (_WINDOW, _LABEL)
) -> Columns:
    """Return the table ``name``, CSV or Parquet; ``columns``: of ``[data]``; ``wanted`` decide on the delimiter.

    A CSV that is not delimited by commas may have decimal commas.

    Raises:
        ArchiveError: If it is too large.
        DataError: If it is not a table.
        PluginError: If it is Parquet and ``pyarrow`` is not installed.
    """
    content = store.read(name, MAX_TABLE_BYTES)
    if name.endswith(".parquet"):
        return _parquet(content, name, columns)
    lines = lines_of(content, name, wanted, columns, strict=True)
    for row, line in enumerate(lines.cells, start=2):
        if len(line) != len(lines.head):
            message = f"Expected {len(lines.head)} cells in {name}, row {row}, got {len(line)}"
            raise DataError(message)
    cells: list[Sequence[str]] = list(zip(*lines.cells, strict=True)) or [()] * len(lines.head)
    if lines.delimiter != ",":
        cells = [_with_points(column) for column in cells]
    return Columns(name, dict(zip(lines.head, cells, strict=True)), first_row=2)


def _with_points(column: Sequence[str]) -> Sequence[str]:
    """Return a column of decimal commas with points: where a comma does not part cells, it parts fractions."""
    filled = [value for value in column if value.strip().casefold() not in MISSING]
    if any("," in value for value in filled) and all(_DECIMAL.fullmatch(value) for value in filled):
        return [value.replace(",", ".") for value in column]
    return column


def columns_of(store: Names, name: str) -> list[str]:
    """Return the names of the columns of the table ``name``, CSV or Parquet.

    Raises:
        ArchiveError: If it is too large.
        DataError: If it is not a table.
        PluginError: If it is Parquet and ``pyarrow`` is not installed.
    """
    content = store.read(name, MAX_TABLE_BYTES)
    if name.lower().endswith(".parquet"):
        return parquet_columns(content, name)
    return lines_of(content, name, (_WINDOW, _LABEL), NO_COLUMNS).head


def parquet_columns(content: bytes, name: str) -> list[str]:
    """Return the names of the columns of the Parquet file ``name``; its lines are not read.

    Raises:
        DataError: If it is not Parquet.
        PluginError: If ``pyarrow`` is not installed.
    """
    with _opened_parquet(content, name) as file:
        return list(file.schema_arrow.names)


def _parquet(content: bytes, name: str, columns: Mapping[str, str]) -> Columns:
    with _opened_parquet(content, name) as file:
        cells = file.metadata.num_rows * file.metadata.num_columns
        if cells > MAX_CELLS:
            message = f"Expected {name} of at most {MAX_CELLS} cells, got {cells}"
            raise ArchiveError(message)
        _check_names(file.schema_arrow.names, name)
        found = file.read()
        head = renamed(found.column_names, columns, name)
        return Columns(
            name, {named: found.column(own).to_pylist() for named, own in zip(head, found.column_names, strict=True)}
        )


def _check_names(names: Sequence[str], where: str) -> None:
    twice = next((one for one in names if names.count(one) > 1), None)
    if twice is not None:
        message = f"Expected columns of different names in {where}, got {twice[:80]!r} twice"
        raise ColumnError(f"{message}: rename one of them")


@contextmanager
def _opened_parquet(content: bytes, name: str) -> Iterator[Any]:
    """Yield a ``pyarrow.parquet.ParquetFile``; its faults are ours."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional, and heavy
        import pyarrow.parquet as pq  # noqa: PLC0415 - optional, and heavy
    except ImportError as error:
        message = f"Expected the package 'pyarrow' to read {name}, got none: pip install pyarrow"
        raise PluginError(message) from error
    try:
        yield pq.ParquetFile(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError) as error:
        message = f"Expected {name} as Parquet, got: {' '.join(str(error).split())[:120]}"
        raise DataError(message) from error


def _only(values: Sequence[str], rows: Sequence[int], what: str) -> str:
    found = sorted({values[row] for row in rows})
    if len(found) != 1:
        message = f"Expected one {what}, got {', '.join(found[:5])}"
        raise DataError(message)
    return found[0]


def number_of(value: object) -> float:
    """Return the number in a cell, NaN if it is none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")
