"""Loads a table from a recipe, or from a zip, folder or file whose data set is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from compressor.data import load
from compressor.data._archive import opened
from compressor.data._table import Table, align
from compressor.errors import DataError
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import read_recipe


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
        table = load(self.data, self.root)
        return align(table, self.labels) if self.labels else table


def open_path(path: Path, data: Path | None = None) -> Opened:
    """Return the data at ``path``: of a recipe, or files whose data set is recognised.

    ``data`` replaces the data that a recipe names.

    Raises:
        RecipeError: If it is a recipe that can't be read.
        DataError: If it is neither, or ``data`` is given although ``path`` is data.
    """
    if path.suffix == ".toml" or (path / "recipe.toml").is_file():
        recipe = read_recipe(path).with_data(data)
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
    if data is not None:
        message = f"Expected --data beside a recipe, got it beside the data {path}: leave one out"
        raise DataError(message)
    dataset = _recognised(path)
    if dataset in {"spoken", "windows"}:
        message = (
            f"Expected a recipe for the sounds or windows in {path}, got bare data: how a sensor is read (front_end"
        )
        raise DataError(f"{message}, sample rate, steps) stands in [data]; see models/spoken_digits/recipe.toml")
    return Opened(
        name=path.name, data=DataRecipe(dataset=dataset, path=str(path.resolve()), decode="full"), root=Path()
    )


def _recognised(path: Path) -> str:
    with opened(path) as store:
        names = store.names()
    if any("-idx3-ubyte" in name for name in names):
        return "idx"
    if any(name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")) for name in names):
        return "labelled_images"
    if any(name.lower().endswith(".wav") for name in names):
        return "spoken"
    if any(name.endswith((".json", ".csv", ".parquet")) for name in names):
        return "windows"
    message = f"Expected images with labels.csv, idx files, WAV files or windows in {path}, got {', '.join(names[:5])}"
    raise DataError(f"{message}: write a recipe that names the data set")
