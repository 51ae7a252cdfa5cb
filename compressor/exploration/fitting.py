"""Feature ranges fitted on train rows only, for the recipe; they are shipped in the manifest.

The train rows are those of ``compressor.data._split`` with the recipe's seed: a row's split depends only on its source,
so it is known before any range is. One exception: rows whose *pictures* turn out equal are grouped later, which can
move such a row out of train, but never a gate row into the range.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from compressor import data as data_sets
from compressor import plugins
from compressor.data._front_end import Ranged
from compressor.data._split import split
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe

SHARE_INSIDE = 0.99


def fit_ranges(data: DataRecipe, root: Path, *, seed: int, inside: float = SHARE_INSIDE) -> dict[str, float]:
    """Return the options that cover ``inside`` (0..1) of the train rows' values: ``low_K`` and ``high_K`` per column.

    For a front end with one range for all columns (``log_mel``), ``floor_db`` and ``ceiling_db`` are returned instead.

    Raises:
        PluginError: If the data set has no ``raw``: its images need no ranges.
        DataError: If its data can't be used.
        SplitError: If a split is empty.
    """
    if ":" not in data.dataset and not data.front_end:
        message = f"Expected data whose ranges can be fitted, got dataset = {data.dataset!r}, whose images need none"
        raise DataError(f"{message}: ranges are options of a front_end (log_mel, mfcc, window) of sounds and windows")
    found = plugins.resolve("compressor.data", data.dataset, "raw", known=data_sets.datasets())(data, root)
    rows = [row for row in found if isinstance(row, Ranged)] if isinstance(found, list) else []
    table = data_sets.load(data, root)
    train = set(table.sources[split(table, seed, slices=data.train_slices).train].tolist())
    chosen = [row.values for row in rows if row.source in train]
    if not chosen:
        message = f"Expected rows of train sources in {data.path}, got none: the data set's raw and load disagree"
        raise DataError(message)
    values, tail = np.concatenate(chosen), 50 * (1 - inside)
    if data.front_end == "log_mel":
        low, high = np.percentile(values, [tail, 100 - tail])
        return {"floor_db": float(np.floor(low)), "ceiling_db": float(np.ceil(high))}
    lows, highs = np.percentile(values, [tail, 100 - tail], axis=0)
    named = [(f"{side}_{i}", value) for side, row in (("low", lows), ("high", highs)) for i, value in enumerate(row)]
    return {name: float(f"{value:.4g}") for name, value in named}
