"""The columns of a table of features: their numbers, and all cells that are none, found before any is refused.

Decides which cells count as missing, and names the faults of all columns in one error. Fills nothing in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.data._delimited import FLAGS, MISSING
from compressor.data._front_end import Values
from compressor.data._window_table import Columns, number_of
from compressor.errors import ColumnError, DataError
from wire.settings import nearest

_MAX_AXES = 3  # lines, and at most two of a nested list
_SHOWN = 12
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureColumn:
    """One column of N rows: ``values`` float64 (N, K), NaN where a cell is no number; K is 1, or the length of lists.

    ``missing``: bool (N,), rows without a value. ``texts``: the other cells that are no finite number, in the order of
    their rows, each with the first of its rows.
    """

    name: str
    values: Values
    missing: Rows
    texts: Mapping[str, int]


def feature_column(table: Columns, name: str) -> FeatureColumn:
    """Return the column ``name`` of ``table``: numbers, or lists (of lists) of numbers of one length.

    A column of true and false alone is read as 1 and 0.

    Raises:
        DataError: If its lists differ in length, or are nested deeper.
    """
    cells = table.columns[name]
    if len(cells) and isinstance(cells[0], list | tuple | np.ndarray):
        return _of_lists(table, name)
    missing = np.array([_is_missing(cell) for cell in cells], dtype=bool)
    number = (lambda cell: FLAGS[_plain(cell)]) if is_of_flags(cells) else number_of
    values = np.array([np.nan if gap else number(cell) for cell, gap in zip(cells, missing.tolist(), strict=True)])
    texts: dict[str, int] = {}
    for row in np.flatnonzero(~np.isfinite(values) & ~missing).tolist():
        texts.setdefault(str(cells[row]), row)
    return FeatureColumn(name=name, values=values.reshape(-1, 1), missing=missing, texts=texts)


def is_of_flags(cells: Sequence[object]) -> bool:
    """Return whether all ``cells`` that are there are the words true and false, as ``get_dummies`` of pandas writes."""
    found = {_plain(cell) for cell in cells if not _is_missing(cell)}
    return bool(found) and found <= FLAGS.keys()


def _plain(cell: object) -> str:
    return str(cell).strip().casefold()


def _of_lists(table: Columns, name: str) -> FeatureColumn:
    try:
        found = np.array(table.columns[name], dtype=np.float64)
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
    return FeatureColumn(name=name, values=flat, missing=np.zeros(len(flat), dtype=bool), texts={})


def _is_missing(cell: object) -> bool:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return True
    return isinstance(cell, str) and cell.strip().casefold() in MISSING


def check_features(table: Columns, columns: Sequence[FeatureColumn], *, drop: bool) -> None:
    """Check that all cells are numbers; ``drop``: a missing one is allowed, because its row is left out.

    Raises:
        DataError: If some are not; all columns, the first cell of each and what to do are named.
    """
    wrong, gaps = [one for one in columns if one.texts], [one for one in columns if one.missing.any() and not drop]
    said, remedies = [], []
    if wrong:
        said += [_text_fault(table, one) for one in wrong[:_SHOWN]]
        if len(wrong) > _SHOWN:
            said.append(f"texts in {len(wrong) - _SHOWN} columns more")
        listed = ", ".join(f'"{one.name}"' for one in wrong)
        remedies.append(
            "mend single cells; write a category as a column of 0 and 1 for each of its values, or leave columns out "
            f"with [data] ignore = [{listed}]"
        )
    if gaps:
        rows = int(np.any([one.missing for one in gaps], axis=0).sum())
        some = ", ".join(_gap_fault(table, one) for one in gaps[:_SHOWN])
        more = f" and {len(gaps) - _SHOWN} columns more" if len(gaps) > _SHOWN else ""
        said.append(f"no value in {some}{more}")
        remedies.append(
            f'leave the {rows} incomplete rows out with [data] missing = "drop" (a device does not answer such a row '
            "either), or write a number of your choice, here and on the device"
        )
    if said:
        message = f"Expected finite numbers in {table.name}, {'; '.join(said)}"
        raise DataError(f"{message}: {'; '.join(remedies)}")


def _text_fault(table: Columns, column: FeatureColumn) -> str:
    text, row = next(iter(column.texts.items()))
    more = f" and {len(column.texts) - 1} other texts" if len(column.texts) > 1 else ""
    return f"column {column.name!r}, row {row + table.first_row}, got {text[:40]!r}{more}"


def _gap_fault(table: Columns, column: FeatureColumn) -> str:
    first = int(np.flatnonzero(column.missing)[0]) + table.first_row
    return f"{column.name!r} ({int(column.missing.sum())} of {len(column.missing)} rows, the first {first})"


def check_there(table: Columns, names: Sequence[str], key: str) -> None:
    """Check that ``table`` has the columns ``names``, which ``[data]`` names under ``key``.

    Raises:
        ColumnError: If one is missing.
    """
    lost = next((name for name in names if name not in table.columns), None)
    if lost is not None:
        message = f"Expected the column {lost!r} of [data] {key} in {table.name}, got {', '.join(table.columns)[:200]}"
        raise ColumnError(message + nearest(lost, list(table.columns)))
