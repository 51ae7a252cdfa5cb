"""Stand-ins: small generated data in the format of a recipe's own, so that the recipe can be tried without it.

The folder is the registry: a stand-in is one file with ``write(folder, data) -> Path``. It writes the same bytes each
time and returns the path for ``--data``. It is easy on purpose, so that two epochs suffice; a model trained on it has
no use, and no release of it is signed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

from compressor import plugins
from compressor.recipe.model import Recipe

FOLDER = "stand_in"


def names() -> tuple[str, ...]:
    """Return the names of the stand-ins in this folder, without importing them."""
    return plugins.names(__name__)


def stood_in(recipe: Recipe, out: Path) -> Recipe:
    """Return ``recipe`` with its stand-in, written to ``out``; unchanged if it has data of its own, or no stand-in.

    Raises:
        PluginError: If the stand-in is unknown.
        OSError: If it can't be written.
    """
    data = recipe.data
    if data.path or not data.stand_in:
        return recipe
    write = plugins.resolve(__name__, data.stand_in, "write", known=names())
    written = cast("Path", write(out / FOLDER, data))
    return replace(recipe, data=replace(data, path=str(written.resolve())))
