"""What a search came to, and the files that say it: ``search.json``, ``search.html``, ``chosen.toml``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from compressor.cache import write_atomically
from compressor.recipe.checks import check_recipe
from compressor.recipe.model import Recipe
from compressor.search.pareto import Choice, Tried, chosen, feasible, front
from compressor.search.recipe_text import absolute, recipe_text
from compressor.search.study import allowed_drop, steps_for
from compressor.search.trial import Ground, only

SEARCH_JSON, SEARCH_HTML, CHOSEN = "search.json", "search.html", "chosen.toml"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to. ``front`` and ``choice`` are of ``tried``; ``recipe`` is the choice, ready to run.

    ``release``: model and version; ``allowed_drop``: 0..1, of a form that may be chosen.
    """

    release: str
    target: str
    allowed_drop: float
    tried: tuple[Tried, ...]
    front: tuple[Tried, ...]
    choice: Choice
    recipe: Recipe

    def document(self) -> dict[str, Any]:
        """Return all of it but the recipe, as JSON has it; drops are 0..1, times milliseconds."""
        best = {item.number for item in self.front}
        trials = [
            {
                **asdict(item),
                "settings": dict(item.settings),
                "feasible": feasible(item, self.allowed_drop),
                "front": item.number in best,
                "latency_ratio": item.measured.latency_ratio if item.measured else None,
            }
            for item in self.tried
        ]
        return {
            "release": self.release, "target": self.target, "allowed_drop": self.allowed_drop, "trials": trials,
            "front": [item.number for item in self.front], "chosen": self.choice.tried.number,
            "reason": list(self.choice.reason),
        }  # fmt: skip


def found_of(ground: Ground, recipe: Recipe, tried: tuple[Tried, ...], data_root: Path | None = None) -> Found:
    """Return what was found: front, choice and the recipe of the choice, with ``recipe``'s own folder and gates.

    Raises:
        MeasureError: If nothing feasible was measured.
        RecipeError: If the chosen steps don't fit the recipe's tables.
    """
    allowed = allowed_drop(ground)
    choice = chosen(tried, allowed)
    picked = absolute(only(recipe, ground.target, steps_for(choice.tried, ground)), data_root)
    check_recipe(picked)
    release = f"{recipe.model.name}-{recipe.model.version}"
    return Found(release, ground.target.name, allowed, tried, front(tried, allowed), choice, picked)


def write(found: Found, out: Path) -> tuple[Path, ...]:
    """Write the three files below ``out``; return their paths.

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
