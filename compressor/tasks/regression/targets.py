"""Numbers as targets: how ``[data] label = "number"`` converts a table, and what it rejects.

Decides that class names that are numbers become these numbers (a meter's ``3.7``), and that a value must be finite and
not constant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from compressor.data._table import Labels, Table, TargetUnit
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe, Recipe

Wide = npt.NDArray[np.float64]
GROUPS, EXTREMES = 5, 16
_OF_BOXES = 3  # axes of labels that are boxes
VALUE = "value"
"""The name of the number if the data has none."""


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` with float32 (N, D) labels.

    Raises:
        DataError: If a label is not a finite number, or a number is the same in all rows: nothing could be learned.
    """
    if table.labels.ndim == _OF_BOXES:
        message = f"Expected numbers from {data.dataset!r}, because label = 'number', got boxes"
        raise DataError(f"{message}: set task = 'detection' in [data] and leave label out")
    if table.labels.ndim == 1:
        parsed = np.array([_number(name) for name in table.class_names])
        labels = parsed[table.labels][:, None].astype(np.float32)
        if len(wrong := np.flatnonzero(~np.isfinite(parsed))):
            rows, got = np.flatnonzero(np.isin(table.labels, wrong)), table.class_names[wrong[0]]
            message = f"Expected a finite number as label, because label = 'number', got {got!r}"
            raise DataError(f"{message} ({len(rows)} rows, the first is row {rows[0]}): mend or leave out the row")
        table = replace(table, labels=labels, class_names=(VALUE,))
    if len(cells := np.argwhere(~np.isfinite(table.labels))):
        row, column = cells[0].tolist()
        name, got = table.class_names[column], table.labels[row, column]
        raise DataError(f"Expected finite values of {name!r}, got {got} in row {row}: mend or leave out the row")
    spread = table.labels.max(axis=0) - table.labels.min(axis=0)
    for name, width, first in zip(table.class_names, spread.tolist(), table.labels[0].tolist(), strict=True):
        if width <= 0:
            message = f"Expected values of {name!r} that differ, got {first:g} in all {len(table)} rows"
            raise DataError(f"{message}: nothing can be learnt from a constant; check the column")
    return table


def classes(labels: Labels) -> npt.NDArray[np.int64] | None:
    """Return None: numbers have no class."""
    del labels
    return None


def grouped(table: Table) -> tuple[Table, str]:
    """Return a table of numbers with ``GROUPS`` classes instead: equal shares of the rows by the first value.

    For exploration, where classes are counted. Repeated values may give fewer.
    """
    values = table.labels[:, 0].astype(np.float64)
    inner = np.unique(np.quantile(values, np.arange(1, GROUPS) / GROUPS))
    ends = [values.min(), *inner.tolist(), values.max()]
    names = tuple(f"{table.class_names[0]} {low:.4g} to {high:.4g}" for low, high in itertools.pairwise(ends))
    labels = np.searchsorted(inner, values, side="right").astype(np.int64)
    note = f"numbers are to be predicted: shown in {len(names)} groups of equal size"
    return replace(table, labels=labels, class_names=names, task=""), note


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return the calibration split, and the extremes of ``train``."""
    return [rows, extremes(train)]


def check_calibration(tables: Sequence[Table]) -> None:
    """Check that not all rows have the same values.

    Raises:
        DataError: If they do.
    """
    values = np.concatenate([table.labels for table in tables])
    if np.ptp(values, axis=0).max() <= 0:
        message = f"Expected calibration rows of different values, got {len(values)} of {values[0].tolist()}"
        raise DataError(f"{message}: add sources, or give calibration more of [data] shares")


def extremes(table: Table) -> Table:
    """Return the rows of ``table`` with the ``EXTREMES`` smallest and largest numbers of each value.

    An int8 output can't exceed the range seen in calibration, and rare numbers seldom occur among a few hundred
    calibration rows: so the extremes of the train rows are added.
    """
    order = np.argsort(table.labels, axis=0, kind="stable")
    return table.take(np.unique(np.concatenate([order[:EXTREMES], order[-EXTREMES:]]).ravel()))


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` with the unit in which the network outputs its values.

    It is the recipe's, or else that of the ``train`` rows only; an imported model without one outputs the values in
    their own unit.

    Raises:
        DataError: If the recipe's has another number of values, or a value is the same in all train rows.
    """
    data, model, count = recipe.data, recipe.model, len(table.class_names)
    given = data.target_mean or data.target_std
    if given:
        if len(data.target_mean) != count or len(data.target_std) != count:
            message = f"Expected in [data] target_mean and target_std {count} numbers ({', '.join(table.class_names)})"
            raise DataError(f"{message}, got {len(data.target_mean)} and {len(data.target_std)}: one for each value")
        return replace(table, unit=TargetUnit(data.target_mean, data.target_std))
    if model.imported or model.checkpoint:
        return replace(table, unit=TargetUnit((0.0,) * count, (1.0,) * count))
    wide: Wide = train.labels.astype(np.float64)
    spread: Wide = wide.std(axis=0)
    for name, width in zip(table.class_names, spread.tolist(), strict=True):
        if not width > 0:
            message = f"Expected train rows of different {name!r}, got {len(wide)} of {wide[0].tolist()}"
            raise DataError(f"{message}: nothing can be learnt from a constant; give train other sources")
    return replace(table, unit=TargetUnit(_rounded(wide.mean(axis=0)), _rounded(spread)))


def _rounded(values: Wide) -> tuple[float, ...]:
    """Return ``values`` rounded to float32, so that computations use the manifest's numbers."""
    return tuple(float(value) for value in values.astype(np.float32))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
