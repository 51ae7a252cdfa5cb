"""Sets of labels as targets: read from texts such as ``cat|dog``, from numbers 0 and 1, or from boxes.

Decides that an empty text is a row without any label, and that ``[data] separator`` stands between two labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Labels, Table, check_label, sort_classes
from compressor.errors import DataError
from compressor.recipe.model import SEPARATOR, DataRecipe, Recipe
from compressor.tasks._calibration_rows import filled

CALIBRATION_ROWS = 64
"""Of fewer rows the ranges of rare labels are too narrow."""
_OF_CLASSES, _OF_BOXES = 1, 3  # axes of labels
_MOST_SETS = 24
"""With more different sets, rows are shown under their rarest label."""
NO_LABEL = "no label"


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` with bool (N, labels) as labels, from classes as texts, numbers 0 and 1, or boxes.

    Raises:
        DataError: If a text or a number is no such label, or no row has any.
    """
    if table.labels.ndim == _OF_CLASSES:
        found = _of_texts(table, data.separator or SEPARATOR)
    elif table.labels.ndim == _OF_BOXES:
        kinds = np.arange(len(table.class_names))
        found = replace(table, labels=(table.labels[..., :1] == kinds).any(axis=1))
    else:
        found = _of_numbers(table)
    if not found.labels.any():
        message = f"Expected at least one label from {data.dataset!r}, got none in {len(table)} rows"
        raise DataError(f"{message}: check the column with the labels")
    return found


def _of_texts(table: Table, separator: str) -> Table:
    """Return ``table`` with the labels that ``separator`` parts in its class names.

    Raises:
        DataError: If nothing is between two separators, blanks are around a label, or labels are 0 and 1 alone.
    """
    parts = [tuple(text.split(separator)) if text else () for text in table.class_names]
    for text, own in zip(table.class_names, parts, strict=True):
        rows = np.flatnonzero(table.labels == table.class_names.index(text))
        if "" in own and len(rows):
            message = f"Expected a label between any two {separator!r}, got {text[:100]!r} in row {rows[0]}"
            raise DataError(f"{message}: leave the empty one out; a row without labels has an empty text")
        for name in own:
            check_label(name, f"the labels {text[:100]!r}")
    names = sort_classes({name for own in parts for name in own})
    if names and set(names) <= {"0", "1"}:
        message = f"Expected names of labels, such as 'red{separator}green', got only {' and '.join(names)}"
        raise DataError(f"{message}: join the names of the columns that are 1 into one column")
    sets = np.array([[name in own for name in names] for own in parts], dtype=bool).reshape(len(parts), len(names))
    return replace(table, labels=sets[table.labels], class_names=names)


def _of_numbers(table: Table) -> Table:
    wrong = np.argwhere(~np.isin(table.labels, (0, 1)))
    if len(wrong):
        row, column = wrong[0].tolist()
        message = f"Expected 0 or 1 in the column {table.class_names[column]!r}, because task = 'multi_label'"
        raise DataError(f"{message}, got {table.labels[row, column]:g} in row {row}: mend it")
    return replace(table, labels=table.labels.astype(bool))


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` unchanged: labels have no unit."""
    del recipe, train
    return table


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return None: a row has no single class."""
    del labels
    return None


def grouped(table: Table) -> tuple[Table, str]:
    """Return ``table`` with the set of labels of each row as its class, or the rarest label if sets are many."""
    sets, rows = np.unique(table.labels, axis=0, return_inverse=True)
    note = f"{int(table.labels.sum())} labels: each row is shown under "
    if len(sets) <= _MOST_SETS:
        names = tuple(
            "+".join(name for name, there in zip(table.class_names, own, strict=True) if there) or NO_LABEL
            for own in sets.tolist()
        )
        return replace(table, labels=rows.reshape(-1).astype(np.int64), class_names=names, task=""), f"{note}its set"
    counts = table.labels.sum(axis=0)
    rarest = np.where(table.labels, counts, counts.max() + 1).argmin(axis=1)
    labels = np.where(table.labels.any(axis=1), rarest, len(table.class_names)).astype(np.int64)
    return replace(table, labels=labels, class_names=(*table.class_names, NO_LABEL), task=""), f"{note}its rarest label"


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return the calibration split, and rows of ``train`` where it has fewer than ``CALIBRATION_ROWS``."""
    return filled(rows, train, CALIBRATION_ROWS)


def check_calibration(tables: Sequence[Table]) -> None:
    """Check that the rows have some label: the ranges of rows without any don't cover others.

    Raises:
        DataError: If they have none.
    """
    if not any(table.labels.any() for table in tables):
        message = f"Expected calibration rows with labels, got none in {sum(map(len, tables))}"
        raise DataError(f"{message}: give calibration more of [data] shares")
