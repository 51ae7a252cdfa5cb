"""Data sets. The folder is the registry: each has ``load(data: DataRecipe, root: Path | None) -> Table`` and ``READS``.

``READS``: the members of ``_keys.KEYS`` that it reads; a recipe that sets others is rejected.

Modules that begin with ``_`` are helpers of data sets, above all ``_table.Table``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from compressor import plugins, tasks
from compressor.data._keys import check_read
from compressor.data._shares import Shares
from compressor.data._soundness import check_sound
from compressor.data._table import Table, Texts
from compressor.errors import CompressorError, DataError, PluginError
from compressor.recipe.model import DataRecipe


def datasets() -> tuple[str, ...]:
    """Return the names of the data sets in this folder."""
    return plugins.names(__name__)


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the table that ``data`` describes; a relative ``data.path`` is relative to ``root``.

    Raises:
        PluginError: If the data set is unknown, raises an error that is not ours, or does not return a ``Table``.
        DataError: If its data can't be used, ``data`` sets a key that the data set does not read, or its labels are not
            targets of the recipe's task.
    """
    check_read(data, datasets())
    if data.needs and not data.path:
        quick = ", or try the recipe with --quick, on generated data" if data.stand_in else ""
        message = f"Expected data, got no [data] path: the recipe needs {data.needs}"
        raise DataError(f"{message}; pass it with --data{quick}")
    found = plugins.resolve(__name__, data.dataset, "load", known=datasets())
    table = _own(found, data, root) if ":" in data.dataset else found(data, root)
    if not isinstance(table, Table):
        message = f"Expected {data.dataset!r} to return a Table, got {type(table).__name__}"
        raise PluginError(message)
    check_sound(table, data.dataset)
    if data.split and table.told is None:
        message = f"Expected a data set that tells splits for [data] split = {data.split!r}, got {data.dataset!r}"
        raise DataError(f"{message}: use labelled_images, or leave it out")
    if data.shares and table.told is not None and _all_told(table.told):
        message = f"Expected no shares in [data] with split = {data.split!r}, whose column tells every row's split"
        raise DataError(f"{message}: nothing is drawn; leave shares out, or leave some rows open")
    task = tasks.of(data)
    table = replace(task.targets.read(table, data), task=task.name)
    return replace(table, shares=Shares(**data.shares)) if data.shares else table


def _all_told(told: Texts) -> bool:
    """Return whether every row's split is given, calibration and reference rows among them."""
    return bool((told != "").all()) and {"calibration", "reference"} <= set(told.tolist())


def _own(found: Callable[..., object], data: DataRecipe, root: Path | None) -> object:
    """Return the result of a person's own data set; errors that it raises are reported with their line."""
    try:
        return found(data, root)
    except CompressorError:
        raise
    except Exception as error:  # foreign code may raise anything
        message = f"Expected {data.dataset!r} to return a Table, got {plugins.failure(error)}"
        raise PluginError(message) from error
