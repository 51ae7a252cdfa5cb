"""Loads a table from a recipe, or from a zip, folder or file whose data set is recognised, and fits feature ranges.

Ranges are fitted on train rows only and shipped in the manifest. The train rows are those of ``compressor.data._split``
with the recipe's seed: a row's split depends only on its source, so it is known before any range is. One exception:
rows whose *pictures* turn out equal are grouped later, which can move such a row out of train, but never a gate row
into the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor import data as data_sets
from compressor import plugins
from compressor.data._archive import opened
from compressor.data._front_end import Ranged
from compressor.data._split import split
from compressor.data._table import Table, align
from compressor.errors import DataError
from compressor.exploration.layouts import TASKS, dataset_of, images_of
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import read_recipe

SHARE_INSIDE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The data to explore: its name, how and from where it is read, and how it will be split."""

    name: str
    data: DataRecipe
    root: Path
    seed: int = 0
    labels: tuple[str, ...] = ()

    def table(self) -> Table:
        """Return the table, with labels in the recipe's order.

        Raises:
            PluginError: If the data set is unknown.
            DataError: If its data can't be used.
        """
        table = data_sets.load(self.data, self.root)
        return align(table, self.labels) if self.labels else table


def open_path(path: Path, data: Path | None = None, changes: Sequence[str] = ()) -> Opened:
    """Return the data at ``path``: of a recipe, or files whose data set is recognised.

    ``data`` replaces the data that a recipe names, ``changes`` its values (``read_recipe``).

    Raises:
        RecipeError: If it is a recipe that can't be read.
        DataError: If it is neither, or ``data`` is given although ``path`` is data.
    """
    if path.suffix == ".toml" or (path / "recipe.toml").is_file():
        recipe = read_recipe(path, changes).with_data(data)
        return Opened(
            name=recipe.model.name,
            data=recipe.data,
            root=recipe.folder,
            seed=recipe.train.seed,
            labels=recipe.model.labels,
        )
    if not path.exists():
        message = f"Expected a recipe, zip, folder or file at {path}, got nothing there"
        raise DataError(message)
    if data is not None or changes:
        option = "--data" if data is not None else "--set"
        message = f"Expected {option} beside a recipe, got it beside the data {path}: leave one out"
        raise DataError(message)
    with opened(path) as store:
        names = store.names()
        dataset, _ = dataset_of(path, store)
    bare = {"spoken", "windows", "recordings", "sound_events"} | (set() if images_of(names) else {"class_folders"})
    if dataset in bare:
        message = (
            f"Expected a recipe for the sounds or windows in {path}, got bare data: how a sensor is read (front_end"
        )
        raise DataError(f"{message}, sample rate, steps) stands in [data]: `compressor init` drafts one")
    data_found = DataRecipe(dataset=dataset, path=str(path.resolve()), decode="full", task=TASKS.get(dataset, ""))
    return Opened(name=path.name, data=data_found, root=Path())


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
