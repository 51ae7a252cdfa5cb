"""Data sets. The folder is the registry: each has ``load(data: DataRecipe, root: Path | None) -> Table``.

``table``, ``shares``, ``split`` and ``camera`` are what data sets are made with, not data sets.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor import registry
from compressor.data.shares import Shares
from compressor.data.table import Table
from compressor.errors import PluginError
from compressor.preflight import PARTS
from compressor.recipe import DataRecipe


def datasets() -> tuple[str, ...]:
    """Return the names of the data sets in this folder."""
    return tuple(name for name in registry.names(__name__) if name not in PARTS[__name__])


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the table that ``data`` describes; a relative ``data.path`` starts at ``root``.

    Raises:
        PluginError: If there is no such data set, or it does not return a ``Table``.
        DataError: If its data can't be used.
    """
    table = registry.resolve(__name__, data.dataset, "load", known=datasets())(data, root)
    if not isinstance(table, Table):
        message = f"Expected {data.dataset!r} to return a Table, got {type(table).__name__}"
        raise PluginError(message)
    return replace(table, shares=Shares(**data.shares)) if data.shares else table
