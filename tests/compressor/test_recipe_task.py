"""Gates and settings of the other task are refused when a recipe is read."""

from __future__ import annotations

import pytest

from compressor.errors import RecipeError
from compressor.gates.kinds import KINDS
from compressor.recipe.read import parse_recipe

OF_CLASSES = [name for name, kind in KINDS.items() if kind.tasks == ("classification",)]
OF_NUMBERS = [name for name, kind in KINDS.items() if kind.tasks == ("regression",)]
MODEL = '[model]\nname = "m"\n'
NUMBERS = f'{MODEL}[data]\nlabel = "number"\n'


def refusal(text: str) -> str:
    """Return the error message for ``text``."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text.encode())
    return str(caught.value)


@pytest.mark.parametrize("gate", OF_CLASSES)
def test_a_regression_refuses_gates_of_classes(gate: str) -> None:
    """Nothing is trained for a gate that could only fail for want of a measurement."""
    said = refusal(f"{NUMBERS}[gates]\n{gate} = {{{KINDS[gate].limits[0]} = 0.1}}")
    assert f"got {gate}" in said
    assert "use error_increase" in said


@pytest.mark.parametrize("gate", OF_NUMBERS)
def test_a_classifier_refuses_gates_of_numbers(gate: str) -> None:
    """The way out is named."""
    said = refusal(f"{MODEL}[gates]\n{gate} = {{max = 0.1}}")
    assert f"got {gate}" in said
    assert "label = 'number'" in said


@pytest.mark.parametrize("gate", OF_NUMBERS)
def test_a_regression_takes_its_own_gates(gate: str) -> None:
    """With the limit that is its."""
    assert parse_recipe(f"{NUMBERS}[gates]\n{gate} = {{max = 0.1}}".encode()).gates[0].name == gate


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{MODEL}[train]\nloss = 'mse'", "[train] loss in a regression"),
        (f"{MODEL}[data]\ntarget_mean = [1.0]\ntarget_std = [1.0]", "[data] target_mean in a regression"),
        (f"{NUMBERS}[train]\nclass_weights = 'balanced'", "[train] class_weights in a recipe of classes"),
        (f"{NUMBERS}[[compress]]\nstep = 'quantize'\nrescue = 0.01", "rescue in a recipe of classes"),
        (f"{MODEL}labels = ['a', 'b']\n[data]\nlabel = 'number'", "[model] labels in a recipe of classes"),
        (f"{NUMBERS}target_mean = [1.0]", "one number a value"),
        (f"{NUMBERS}target_mean = [1.0]\ntarget_std = [0.0]", "each std above 0"),
        (f"{NUMBERS}[train]\nloss = 'hubert'", "did you mean 'huber'"),
        (f"{MODEL}[data]\nlabel = 'numbers'", "did you mean 'number'"),
    ],
)
def test_settings_of_the_other_task_are_refused(text: str, said: str) -> None:
    """A setting without effect is refused."""
    assert said in refusal(text)
