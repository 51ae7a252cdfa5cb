"""A quantize step with ``rescue``: the remedy found is used, and the report shows its cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.errors import RecipeError
from compressor.recipe.model import Recipe, TargetRecipe
from compressor.recipe.read import check_recipe, read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from compressor.steps.quantize import Settings


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The tiny recipe, whose one step may be rescued."""
    plain = read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))
    return replace(plain, compress=(Settings(rescue=0.01),))


@pytest.fixture(scope="module")
def outcome(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run, shared."""
    return run_recipe(recipe, out=tmp_path_factory.mktemp("rescue"))


@pytest.mark.slow
def test_the_report_says_what_every_rung_cost(outcome: Outcome) -> None:
    """The first rung is always the step as it was set."""
    page = outcome.report.read_text()
    assert "rescue host" in page
    assert "as set" in page
    assert "points below float" in page


@pytest.mark.slow
def test_a_second_run_does_not_climb_again(recipe: Recipe, outcome: Outcome) -> None:
    """The result of the search for remedies is cached like any other step."""
    again = run_recipe(recipe, out=outcome.report.parent)
    assert "rescue" in again.found
    assert again.ran == ()


def test_rescue_is_refused_where_its_finding_would_not_hold(recipe: Recipe) -> None:
    """A search for remedies on ONNX proves nothing for a TFLite file."""
    targets = (*recipe.targets, TargetRecipe(name="pi", runtime="litert"))
    with pytest.raises(RecipeError, match="rescue for ONNX targets"):
        check_recipe(replace(recipe, targets=targets))
