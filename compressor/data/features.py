"""Tables of features, a line a sample: CSV or Parquet, in a zip, a folder or one file.

::

    features.csv                        features.parquet
    label,source,f0,f1,f2,…             label: text, source: text, x: list<float>
    ok,pump-3,0.12,0.50,-1.2,…

Every column that is no label, source, slice or split is a number of the sample, in the order of the file; a Parquet
column may be a list of numbers, or a list of such lists (MFCC frames, rows of a thermal image), the same size in each
line. Together they are ``steps`` x ``channels`` numbers, step by step (``[data] options``), which the device's own
front end, ``window``, reads. If targets are numbers, the columns ``target`` or ``target_…`` hold them; of several
labels, ``[data] label_columns`` may name a column of 0 and 1 for each. ``ignore`` names columns that are not read.
Texts and missing values are refused, all columns at once; with ``missing = "drop"`` rows without a value are left out
and counted. Nothing is filled in: a device would have to fill it in alike. Parquet needs ``pyarrow``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from compressor import tasks
from compressor.data import check_options
from compressor.data._archive import Names, opened
from compressor.data._delimited import UNREAD, check_columns, flags
from compressor.data._feature_columns import FeatureColumn, check_features, check_there, feature_column
from compressor.data._front_end import Ranged, SensorSample, Values, options_of, ranged, tabled
from compressor.data._front_end import window_front_end as front_end
from compressor.data._layout import is_hidden
from compressor.data._table import Table, check_label, check_spelled, source_name
from compressor.data._window_table import Columns, columns_of, encoded, read
from compressor.data.labelled_images import TABLES, labels_in, with_labels
from compressor.errors import ArchiveError, ColumnError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({
    "path", "slices", "split", "allow_corrupt", "front_end", "options", "columns", "label_columns", "ignore", "missing",
})  # fmt: skip
COLUMNS = ("label", "source", "target")
_LABEL, _SOURCE, _TARGET = "label", "source", "target"
_DROP = "drop"


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all samples in ``data.path``, in the order of the files' names and lines.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, too many or too large entries, or no table.
        ColumnError: If a table lacks a column.
        CorruptImageError: If the front end rejects more samples than ``data.allow_corrupt``.
        DataError: If values are not finite numbers (file, columns and rows are named), or lines don't have ``steps`` x
            ``channels`` numbers.
        PluginError: If a table is Parquet and ``pyarrow`` is not installed.
        SplitError: If the column ``data.split`` has an unknown split, or one content is in two.
    """
    path = (root or Path()) / data.path
    read = _samples(path, data)
    table = tabled(data, path, front_end(data), read.samples, what="samples that can't be used")
    return replace(table, remarks=(*table.remarks, *read.remarks()))


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the samples' numbers before conversion to 8 bits, (steps, channels), to fit ranges.

    Raises:
        ArchiveError: As in ``load``.
        DataError: As in ``load``.
    """
    return ranged(_samples((root or Path()) / data.path, data, text=True).samples, *front_end(data))


@dataclass(slots=True, kw_only=True)
class _WholeRows:
    """The samples so far, of how many rows, and how often a value of each column was missing in rows left out.

    ``passed``: remarks on tables that were passed by.
    """

    passed: list[str] = field(default_factory=list)
    samples: list[SensorSample] = field(default_factory=list)
    rows: int = 0
    missing: Counter[str] = field(default_factory=Counter)

    def remarks(self) -> tuple[str, ...]:
        if not self.missing:
            return tuple(self.passed)
        often = ", ".join(f"{name} {count}" for name, count in self.missing.most_common(5))
        more = f" and {len(self.missing) - 5} columns more" if len(self.missing) > 5 else ""  # noqa: PLR2004 - as above
        lost = self.rows - len(self.samples)
        left = f"left out {lost} of {self.rows} rows without a value ({often}{more}): devices don't answer such rows"
        return (*self.passed, left)


def _samples(path: Path, data: DataRecipe, *, text: bool = False) -> _WholeRows:
    check_columns(data.columns, COLUMNS, data.dataset)
    check_options(data, ("stride", "source_windows"), "a sample in each line")
    options = options_of(data)
    binary = bool(options.get("binary", 0)) and not text
    read_so_far = _WholeRows()
    with opened(path) as store:
        names = [name for name in store.names() if name.lower().endswith(TABLES) and not is_hidden(name)]
        names, read_so_far.passed = with_labels(names, store.read, labels_in(data), partial(columns_of, store))
        for name in names:
            read_so_far.samples += _of_table(store, name, data, options, read_so_far, binary=binary)
    if not read_so_far.samples:
        got = "none" if not names else "no lines" if not read_so_far.rows else "a missing value in every line"
        message = f"Expected tables of features (CSV or Parquet) in {path}, got {got}"
        raise ArchiveError(message)
    return read_so_far


def _of_table(
    store: Names, name: str, data: DataRecipe, options: Mapping[str, float], so_far: _WholeRows, *, binary: bool
) -> list[SensorSample]:  # fmt: skip
    table, numbers = read(store, name, columns=data.columns, wanted=(_LABEL,)), tasks.of(data).columns
    targets = [column for column in table.columns if numbers and column.partition("_")[0] == _TARGET]
    if numbers and not targets:
        table.check_has(_TARGET)
    if not numbers and not data.label_columns:
        table.check_has(_LABEL)
    check_there(table, data.ignore, "ignore")
    told = {_LABEL, _SOURCE, data.slices, data.split, *targets, *data.label_columns, *data.ignore}
    check_spelled([column for column in table.columns if column not in told], (_LABEL, _SOURCE), name)
    features = [one for one in table.columns if one not in told and not one.endswith(UNREAD)]
    if not features:
        message = f"Expected columns of numbers in {table.name}, got {', '.join(table.columns) or 'none'}"
        raise ColumnError(message)
    columns, aims = ([feature_column(table, column) for column in names] for names in (features, targets))
    if wide := next((one for one in aims if one.values.shape[1] != 1), None):
        message = f"Expected a number in each row of {table.name}, column {wide.name!r}, got lists of numbers"
        raise DataError(f"{message}: write a column target_NAME for each number to predict")
    check_features(table, [*columns, *aims], drop=data.missing == _DROP)
    labels = _labels(table, data, numbers=numbers)
    whole = _whole_rows([*columns, *aims], labels, data, so_far)
    wanted = {one.name: one.values[:, 0].tolist() for one in aims}
    check_there(table, data.label_columns, "label_columns")
    cells = [table.columns[column] for column in data.label_columns]
    told_flags = flags(data.label_columns, cells, table.name, first_row=table.first_row)
    wanted |= dict(zip(data.label_columns, told_flags, strict=True))
    parts = table.required(data.slices) if data.slices else ["all"] * len(labels)
    splits = table.optional(data.split) if data.split else [""] * len(labels)
    sources = table.optional(_SOURCE) if _SOURCE in table.columns else [""] * len(labels)
    values = _values(table, columns, options)
    single = len(features) == values.shape[2] and values.shape[1] == 1  # a list of numbers has one name for all
    return [
        SensorSample(
            name=f"{name} row {row + table.first_row}",
            data=encoded(values[row], binary=binary),
            label=labels[row],
            slice=parts[row],
            source=source_name(sources[row]) or f"{name} row {row + table.first_row}",
            split=splits[row],
            values={column: float(found[row]) for column, found in wanted.items()},
            columns=tuple(features) if single else (),
        )
        for row in whole
    ]


def _labels(table: Columns, data: DataRecipe, *, numbers: bool) -> list[str]:
    """Return the label of each row as a text; empty where there is none, or the targets are in other columns."""
    if numbers or data.label_columns:
        return [""] * len(next(iter(table.columns.values()), ()))
    if tasks.of(data).several:  # a line may have no label, and what stands around a separator is checked later
        return table.optional(_LABEL)
    labels = table.optional(_LABEL) if data.missing == _DROP else table.required(_LABEL)
    for row, label in enumerate(labels, start=table.first_row):
        check_label(label, f"{table.name}, row {row}, column {_LABEL!r}")
    return labels


def _whole_rows(
    columns: Sequence[FeatureColumn], labels: Sequence[str], data: DataRecipe, so_far: _WholeRows
) -> list[int]:
    """Return the rows that miss no value; ``so_far`` counts those that do."""
    lacks = np.any([one.missing for one in columns], axis=0) if len(labels) else np.zeros(0, dtype=bool)
    so_far.missing.update({one.name: int(one.missing.sum()) for one in columns if one.missing.any()})
    if data.missing == _DROP and not tasks.of(data).by_columns:
        unlabelled = np.array([not label for label in labels], dtype=bool)
        so_far.missing.update({_LABEL: int(unlabelled.sum())} if unlabelled.any() else {})
        lacks = lacks | unlabelled
    so_far.rows += len(labels)
    return np.flatnonzero(~lacks).tolist()


def _values(table: Columns, columns: Sequence[FeatureColumn], options: Mapping[str, float]) -> Values:
    """Return the numbers of all lines, float64 (N, T, ``channels``)."""
    flat = np.concatenate([one.values for one in columns], axis=1)
    count = int(options.get("channels", 1))
    if len(flat) and flat.shape[1] % count:
        message = f"Expected numbers for {count} channels in each line of {table.name}, got {flat.shape[1]}"
        raise DataError(f"{message}, which {count} does not divide: mend channels in [data] options")
    flat = flat[:, : flat.shape[1] // count * count]  # of no lines, any number fits
    return flat.reshape(len(flat), flat.shape[1] // count, count)
