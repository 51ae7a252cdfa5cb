"""Inputs without labels: there is nothing to read; the labels of a run are the answers of its original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Labels, Table
from compressor.recipe.model import DataRecipe, Recipe

_EVERYTHING = "unlabelled"
"""The one class by which people look at inputs without labels."""


def read(table: Table, data: DataRecipe) -> Table:
    """Return ``table`` unchanged."""
    del data
    return table


def fitted(recipe: Recipe, table: Table, train: Table) -> Table:
    """Return ``table`` unchanged: classes have no unit."""
    del recipe, train
    return table


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return the original's answers, once they are the labels; None before."""
    return labels if labels.ndim == 1 else None


def grouped(table: Table) -> tuple[Table, str]:
    """Return ``table`` with one class for all rows, and a note on it."""
    one = replace(table, labels=np.zeros(len(table), np.int64), class_names=(_EVERYTHING,), task="")
    return one, "inputs without labels: shown as one class"


def calibration(rows: Table, train: Table) -> list[Table]:
    """Return only the calibration split."""
    del train
    return [rows]


def check_calibration(tables: Sequence[Table]) -> None:
    """Check nothing: without labels it is unknown of how many classes the rows are."""
    del tables
