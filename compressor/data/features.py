"""Tables of features, a line a sample: CSV or Parquet, in a zip, a folder or one file.

::

    features.csv                        features.parquet
    label,source,f0,f1,f2,…             label: text, source: text, x: list<float>
    ok,pump-3,0.12,0.50,-1.2,…

Every column that is no label, source, slice or split is a number of the sample, in the order of the file; a Parquet
column may be a list of numbers, or a list of such lists (MFCC frames, rows of a thermal image), the same size in each
line. Together they are ``steps`` x ``channels`` numbers, step by step (``[data] options``), which the device's own
front end, ``window``, reads. If targets are numbers, the columns ``target`` or ``target_…`` hold them. Parquet needs
``pyarrow``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compressor import tasks
from compressor.data import check_options
from compressor.data._archive import Names, opened
from compressor.data._delimited import UNREAD, check_columns
from compressor.data._front_end import Ranged, SensorSample, Values, options_of, ranged, tabled
from compressor.data._front_end import window_front_end as front_end
from compressor.data._layout import is_hidden
from compressor.data._table import Table, check_label, check_spelled, source_name
from compressor.data._window_table import Columns, encoded, read
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "slices", "split", "allow_corrupt", "front_end", "options", "columns"})
COLUMNS = ("label", "source", "target")
_TABLES = (".csv", ".tsv", ".parquet")
_LABEL, _SOURCE, _TARGET = "label", "source", "target"
_MAX_AXES = 3  # lines, and at most two of a nested list


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all samples in ``data.path``, in the order of the files' names and lines.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no table.
        ColumnError: If a table lacks a column.
        CorruptImageError: If the front end rejects more samples than ``data.allow_corrupt``.
        DataError: If a value is not a finite number (file, column and row are named), or lines don't have ``steps`` x
            ``channels`` numbers.
        PluginError: If a table is Parquet and ``pyarrow`` is not installed.
        SplitError: If the column ``data.split`` has an unknown split, or one content is in two.
    """
    path = (root or Path()) / data.path
    return tabled(data, path, front_end(data), _samples(path, data), what="samples that can't be used")


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the samples' numbers before conversion to 8 bits, (steps, channels), to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``.
    """
    return ranged(_samples((root or Path()) / data.path, data, text=True), *front_end(data))


def _samples(path: Path, data: DataRecipe, *, text: bool = False) -> list[SensorSample]:
    check_columns(data.columns, COLUMNS, data.dataset)
    check_options(data, ("stride", "source_windows"), "a sample in each line")
    options = options_of(data)
    binary = bool(options.get("binary", 0)) and not text
    with opened(path) as store:
        names = [name for name in store.names() if name.lower().endswith(_TABLES) and not is_hidden(name)]
        found = [sample for name in names for sample in _of_table(store, name, data, options, binary=binary)]
    if not found:
        message = f"Expected tables of features (CSV or Parquet) in {path}, got {'none' if not names else 'no lines'}"
        raise ArchiveError(message)
    return found


def _of_table(
    store: Names, name: str, data: DataRecipe, options: Mapping[str, float], *, binary: bool
) -> list[SensorSample]:  # fmt: skip
    table, numbers = read(store, name, columns=data.columns, wanted=(_LABEL,)), tasks.of(data).columns
    targets = [column for column in table.columns if numbers and column.partition("_")[0] == _TARGET]
    if numbers and not targets:
        table.required(_TARGET)
    several = tasks.of(data).several  # a line may have no label, and what stands around a separator is checked later
    labels = [] if numbers else _optional(table, _LABEL) if several else table.required(_LABEL)
    for row, label in enumerate([] if several else labels, start=table.first_row):
        check_label(label, f"{name}, row {row}, column {_LABEL!r}")
    told = {_LABEL, _SOURCE, data.slices, data.split, *targets}
    check_spelled([column for column in table.columns if column not in told], (_LABEL, _SOURCE), name)
    values = _values(table, [one for one in table.columns if one not in told and not one.endswith(UNREAD)], options)
    parts = table.required(data.slices) if data.slices else ["all"] * len(values)
    splits = _optional(table, data.split) if data.split else [""] * len(values)
    sources = _optional(table, _SOURCE) if _SOURCE in table.columns else [""] * len(values)
    wanted = {column: table.numbers(column) for column in targets}
    return [
        SensorSample(
            name=f"{name} row {row + table.first_row}",
            data=encoded(sample, binary=binary),
            label=labels[row] if labels else "",
            slice=parts[row],
            source=source_name(sources[row]) or f"{name} row {row + table.first_row}",
            split=splits[row],
            values={column: float(found[row]) for column, found in wanted.items()},
        )
        for row, sample in enumerate(values)
    ]


def _optional(table: Columns, column: str) -> list[str]:
    """Return a column as texts, empty where a value is missing.

    Raises:
        ColumnError: If the column is missing.
    """
    if column not in table.columns:
        message = f"Expected the column {column!r} in {table.name}, got {', '.join(table.columns) or 'none'}"
        raise ColumnError(message)
    return ["" if value is None else str(value) for value in table.columns[column]]


def _values(table: Columns, channels: list[str], options: Mapping[str, float]) -> Values:
    """Return the numbers of all lines, float64 (N, T, ``channels``)."""
    if not channels:
        message = f"Expected columns of numbers in {table.name}, got {', '.join(table.columns) or 'none'}"
        raise ColumnError(message)
    flat = np.concatenate([_column(table, name) for name in channels], axis=1)
    count = int(options.get("channels", 1))
    if len(flat) and flat.shape[1] % count:
        message = f"Expected numbers for {count} channels in each line of {table.name}, got {flat.shape[1]}"
        raise DataError(f"{message}, which {count} does not divide: mend channels in [data] options")
    flat = flat[:, : flat.shape[1] // count * count]  # of no lines, any number fits
    return flat.reshape(len(flat), flat.shape[1] // count, count)


def _column(table: Columns, name: str) -> Values:
    """Return a column of numbers, or of lists of numbers, as float64 (N, values of a line)."""
    values = table.columns[name]
    if not len(values) or not isinstance(values[0], list | tuple | np.ndarray):
        return table.numbers(name)[:, None]
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        message = f"Expected lists of numbers of one length in {table.name}, column {name!r}, got: {str(error)[:100]}"
        raise DataError(message) from error
    if found.ndim > _MAX_AXES:
        message = f"Expected lists, or lists of lists, of numbers in {table.name}, column {name!r}, got deeper ones"
        raise DataError(message)
    flat = found.reshape(len(found), -1)
    if not np.isfinite(flat).all():
        row = int(np.flatnonzero(~np.isfinite(flat).all(axis=1))[0])
        message = f"Expected finite numbers in {table.name}, column {name!r}, row {row + table.first_row}, got others"
        raise DataError(f"{message}: mend the line or leave it out")
    return flat
