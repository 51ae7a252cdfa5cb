"""Two tables of features that come with scikit-learn: rows of numbers that need no download.

With classes as labels it is the Breast Cancer Wisconsin (Diagnostic) table: 569 rows of 30 measures of cell nuclei,
benign or malignant. With ``[data] label = "number"`` it is the diabetes table: 442 rows of 10 measures of patients, and
the progress of the disease after a year. Each row is a source.

Source: W. Street, W. Wolberg and O. Mangasarian, Nuclear feature extraction for breast tumor diagnosis, 1993;
B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, Least angle regression, 2004.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compressor import tasks
from compressor.data import check_options
from compressor.data._front_end import Ranged, SensorSample, options_of, ranged, tabled
from compressor.data._front_end import window_front_end as front_end
from compressor.data._table import Table
from compressor.data._window_table import encoded
from compressor.recipe.model import DataRecipe

READS = frozenset({"front_end", "options"})
_NAME = "scikit-learn's table"
PROGRESS = "progress"
"""The name of the number of the diabetes table."""


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the pictures of all rows, in the order of the table. Needs no path.

    Raises:
        CorruptImageError: If ``[data] options`` have other numbers of steps and channels than the table.
        DataError: If an option is unknown, or the front end is another one.
    """
    del root
    return tabled(data, Path(_NAME), front_end(data), _samples(data), what="rows that can't be used")


def raw(data: DataRecipe, root: Path | None = None) -> list[Ranged]:
    """Return the rows' numbers before conversion to 8 bits, (1, channels), to fit ranges.

    Raises:
        DataError: If an option is unknown.
    """
    del root
    return ranged(_samples(data, text=True), *front_end(data))


def _samples(data: DataRecipe, *, text: bool = False) -> list[SensorSample]:
    from sklearn import datasets  # noqa: PLC0415 - seconds to import

    check_options(data, ("stride", "source_windows"), "a row of a table in each window")
    numbers = tasks.of(data).columns
    found: Any = datasets.load_diabetes(scaled=False) if numbers else datasets.load_breast_cancer()
    binary = bool(options_of(data).get("binary", 0)) and not text
    return [
        SensorSample(
            name=f"row {row}",
            data=encoded(values[None], binary=binary),
            label="" if numbers else str(found.target_names[int(target)]),
            slice="all",
            source=f"row {row}",
            values={PROGRESS: float(target)} if numbers else {},
            columns=tuple(map(str, found.feature_names)),
        )
        for row, (values, target) in enumerate(zip(found.data, found.target, strict=True))
    ]
