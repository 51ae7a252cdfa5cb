"""What `compressor run --quick` runs of a recipe: on data that is here, for the targets that this host can build.

Decides which data and which targets. Leaves the gates alone, and how long is trained to ``pipeline``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor import stand_ins
from compressor.progress import Progress
from compressor.recipe.model import Recipe
from compressor.recipe.preflight import missing


def quick_of(recipe: Recipe, out: Path, progress: Progress) -> Recipe:
    """Return ``recipe`` on its stand-in, written below ``out``, where it has no data; say so to ``progress``.

    A target whose packages are missing is left out, unless none would be left.

    Raises:
        PluginError: If there is no stand-in of the recipe's name.
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
