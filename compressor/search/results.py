"""The files with the result of a search: ``search.json``, ``search.html``, ``chosen.toml``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from compressor.cache import write_atomically
from compressor.recipe.checks import check_recipe
from compressor.recipe.model import Recipe
from compressor.search.pareto import SearchResult, Tried, chosen, front
from compressor.search.recipe_text import absolute, recipe_text
from compressor.search.study import allowed_drop, steps_for
from compressor.search.trial import Ground, only

SEARCH_JSON, SEARCH_HTML, CHOSEN = "search.json", "search.html", "chosen.toml"


def found_of(ground: Ground, recipe: Recipe, tried: tuple[Tried, ...], data_root: Path | None = None) -> SearchResult:
    """Return the result: front, choice and the recipe of the choice, with ``recipe``'s own folder and gates.

    Raises:
        MeasureError: If nothing feasible was measured.
        RecipeError: If the chosen steps don't fit the recipe's tables.
    """
    allowed = allowed_drop(ground)
    choice = chosen(tried, allowed)
    picked = absolute(only(recipe, ground.target, steps_for(choice.tried, ground)), data_root)
    check_recipe(picked)
    release = f"{recipe.model.name}-{recipe.model.version}"
    return SearchResult(
        release=release,
        target=ground.target.name,
        allowed_drop=allowed,
        tried=tried,
        front=front(tried, allowed),
        choice=choice,
        recipe=picked,
    )


def write(found: SearchResult, out: Path) -> tuple[Path, ...]:
    """Write the three files to ``out``; return their paths.

    Raises:
        PackageError: If one can't be written.
    """
    from compressor.search.page import render  # noqa: PLC0415 - plotly only to draw

    text = recipe_text(replace(found.recipe, folder=Path()), ("Chosen by `compressor search`.", *found.choice.reason))
    files = {
        SEARCH_JSON: json.dumps(found.document(), sort_keys=True, indent=1),
        SEARCH_HTML: render(found),
        CHOSEN: text,
    }
    for name, content in files.items():
        write_atomically(out / name, content.encode())
    return tuple(out / name for name in files)
