"""Reduces a recipe for `compressor run --quick`: to data available here, and to targets that this host can build.

Decides which data and which targets. Does not change the gates; ``pipeline`` shortens the training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor import stand_ins
from compressor.progress import Progress
from compressor.recipe.model import Recipe
from compressor.recipe.preflight import missing


def quick_of(recipe: Recipe, out: Path, progress: Progress) -> Recipe:
    """Return ``recipe`` with its stand-in, written to ``out``, if it has no data; reported to ``progress``.

    A target whose packages are missing is left out, unless none would remain.

    Raises:
        PluginError: If the recipe's stand-in is unknown.
        PackageError: If the stand-in can't be written.
    """
    able = tuple(target for target in recipe.targets if not missing(target))
    for target in recipe.targets if able else ():
        if target not in able:
            progress.say(f"left out [targets.{target.name}]: {', '.join(missing(target))} not installed")
    recipe = stand_ins.stood_in(replace(recipe, targets=able or recipe.targets), out)
    if recipe.data.generated:
        said = "STAND-IN: it runs on generated data, not on what the recipe is for"
        progress.say(f"{said}. The recipe needs {recipe.data.needs}")
    return recipe
