"""Normal or anomalous: which labels are normal, and that anomalous rows are only judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Labels, Table
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe, Recipe
from wire.settings import nearest

NORMAL, ANOMALOUS = 0, 1
NAMES = ("normal", "anomaly")
_GATE = "gate"


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` with the labels 0, normal, and 1, anomalous; the latter, with their sources, in the gate split.

    Raises:
        DataError: If its labels are no classes, ``[data] normal`` names another one, or no row is normal.
    """
    if table.labels.ndim != 1:
        message = f"Expected a label for each row of {data.dataset!r}, because task = 'anomaly', got numbers or boxes"
        raise DataError(f"{message}: leave label out, or the task")
    unknown = [name for name in data.normal if name not in table.class_names]
    if unknown:
        message = f"Expected in [data] normal labels of {', '.join(table.class_names)}, got {unknown[0]!r}"
        raise DataError(message + nearest(unknown[0], table.class_names))
    usual = np.isin(table.labels, [table.class_names.index(name) for name in data.normal])
    if not usual.any():
        raise DataError(f"Expected normal rows from {data.dataset!r}, got none: set [data] normal")
    told = np.full(len(table), "", dtype="<U16") if table.told is None else table.told.astype("<U16")
    return replace(
        table, labels=np.where(usual, NORMAL, ANOMALOUS).astype(np.int64), class_names=NAMES,
        told=np.where(usual, told, _GATE).astype(np.str_), kinds=np.array(table.class_names)[table.labels],
    )  # fmt: skip


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` unchanged."""
    del recipe, train
    return table


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return None: a source may have normal and anomalous rows, and nothing is learned of the latter."""
    del labels
    return None


def grouped(table: Table) -> tuple[Table, str]:
    """Return ``table`` as one of two classes, for exploration."""
    count = int((table.labels == ANOMALOUS).sum())
    return replace(table, task=""), f"{count} of {len(table)} rows are anomalous: nothing is learnt of them"


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return the calibration split alone: its rows are normal."""
    del train
    return [rows]


def check_calibration(tables: Sequence[Table]) -> None:
    """Check nothing: normal rows calibrate an int8 file, and the threshold says itself how many it needs."""
    del tables
