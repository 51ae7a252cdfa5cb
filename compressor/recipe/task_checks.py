"""What a recipe's task asks of it: classes and numbers have gates and settings of their own. Pure.

Decides what is refused when a recipe is read, so that no gate fails at the end of a run for want of a measurement that
its task cannot have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compressor.errors import RecipeError
from compressor.gates import OF_CLASSES, OF_NUMBERS

if TYPE_CHECKING:
    from compressor.recipe.model import Recipe

_OF_NUMBERS_TEXT = ", ".join(sorted(OF_NUMBERS))


def check_task(recipe: Recipe) -> None:
    """Do nothing if gates and settings of ``recipe`` fit what it predicts.

    Raises:
        RecipeError: If one is of the other task; or if mean and deviation of the values don't fit each other.
    """
    _check_gates(recipe)
    _check_settings(recipe)
    data = recipe.data
    if len(data.target_mean) != len(data.target_std) or any(not spread > 0 for spread in data.target_std):
        message = "Expected in [data] target_mean and target_std one number a value, each std above 0"
        raise RecipeError(f"{message}, got {list(data.target_mean)} and {list(data.target_std)}")


def _check_gates(recipe: Recipe) -> None:
    foreign = OF_CLASSES if recipe.regression else OF_NUMBERS
    wrong = [gate.name for gate in recipe.gates if gate.name in foreign]
    if not wrong:
        return
    if recipe.regression:
        message = f"Expected in [gates] what a regression has ([data] label = 'number'), got {', '.join(wrong)}"
        raise RecipeError(f"{message}: numbers are no classes; use {_OF_NUMBERS_TEXT}")
    message = f"Expected in [gates] what a recipe of classes has, got {', '.join(wrong)}"
    raise RecipeError(f"{message}: use accuracy_drop, or set label = 'number' in [data] to predict numbers")


def _check_settings(recipe: Recipe) -> None:
    data, train = recipe.data, recipe.train
    if recipe.regression:
        given = {
            "[model] labels": recipe.model.labels, "[train] class_weights": train.class_weights != "none",
            "[[compress]] rescue": any(getattr(step, "rescue", 0) for step in recipe.compress),
        }  # fmt: skip
        only, got = "a recipe of classes", "of numbers ([data] label = 'number')"
    else:
        given = {
            "[train] loss": train.loss, "[data] target_mean": data.target_mean, "[data] target_std": data.target_std,
        }  # fmt: skip
        only, got = "a regression ([data] label = 'number')", "of classes"
    wrong = [name for name, value in given.items() if value]
    if wrong:
        message = f"Expected {wrong[0]} in {only} alone, got it in a recipe {got}: leave it out"
        raise RecipeError(message)
