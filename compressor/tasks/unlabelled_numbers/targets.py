"""Inputs without numbers to predict: the labels of a run are the values that its original gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.data._table import Labels, Table
from compressor.tasks.regression.targets import calibration, fitted
from compressor.tasks.unlabelled_classes.targets import grouped, read

__all__ = ["calibration", "check_calibration", "classes", "fitted", "grouped", "read"]


def classes(labels: Labels) -> NDArray[np.int64] | None:
    """Return None: numbers have no class."""
    del labels
    return None


def check_calibration(tables: Sequence[Table]) -> None:
    """Check nothing: without labels it is unknown how far the values of the rows differ."""
    del tables
