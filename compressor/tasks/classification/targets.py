"""Classes as targets: the labels of a data set unchanged, and the rows that calibration needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Labels, Table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe, Recipe

_MIN_CLASSES = 2
_OF_BOXES = 3  # axes of labels that are boxes
_NAMED = 5


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` unchanged.

    Raises:
        DataError: If its labels are numbers, not classes.
    """
    if table.labels.ndim == _OF_BOXES:
        message = f"Expected classes from {data.dataset!r}, got boxes of {', '.join(table.class_names[:_NAMED])}"
        raise DataError(f"{message}: set task = 'detection' in [data]")
    if table.labels.ndim > 1:
        message = f"Expected classes from {data.dataset!r}, got the numbers {', '.join(table.class_names)}"
        raise DataError(f"{message}: set label = 'number' in [data]")
    return table


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` unchanged: classes have no unit."""
    del recipe, train
    return table


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return ``labels``: they are the classes."""
    return labels


def grouped(table: Table) -> tuple[Table, str]:
    """Return ``table`` unchanged, and no note."""
    return table, ""


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return only the calibration split."""
    del train
    return [rows]


def check_calibration(tables: Sequence[Table]) -> None:
    """Check that the rows have at least two classes: the ranges of one class don't cover the others.

    Raises:
        DataError: If they have not.
    """
    found = sorted({table.class_names[label] for table in tables for label in np.unique(table.labels)})
    if len(found) < _MIN_CLASSES:
        got = f"{sum(len(table) for table in tables)} of {', '.join(found) or 'none'}"
        message = f"Expected calibration rows of {_MIN_CLASSES} classes or more, got {got}"
        raise DataError(f"{message}: add sources of the other classes, or give calibration more of [data] shares")
