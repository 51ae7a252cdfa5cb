"""The same inputs give the same bytes, and a difference is explained by its lineage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.errors import PackageError
from compressor.pipeline import Outcome, run_recipe
from compressor.rebuild import rebuild
from compressor.recipe import GateRecipe, Recipe, read_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """A recipe that trains one epoch and passes."""
    return read_recipe(Path(__file__).with_name("pipeline_recipe.toml"))


@pytest.fixture(scope="module")
def outcome(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run, shared."""
    return run_recipe(recipe, out=tmp_path_factory.mktemp("first"))


def test_a_bundle_built_again_from_nothing_has_the_same_bytes(recipe: Recipe, outcome: Outcome) -> None:
    """Training, export, calibration, reference and certificate are all repeated."""
    assert rebuild(outcome.bundles[0], recipe).same


def test_another_seed_is_named_as_the_reason(recipe: Recipe, outcome: Outcome) -> None:
    """What was made of other inputs says which inputs were others."""
    other = replace(recipe, train=replace(recipe.train, seed=recipe.train.seed + 1))
    rebuilt = rebuild(outcome.bundles[0], other)
    assert not rebuilt.same
    assert "model.onnx" in rebuilt.different
    assert {"recipe", "float_weights"} <= set(rebuilt.lineage)


def test_a_recipe_that_does_not_pass_any_more_is_an_error(recipe: Recipe, outcome: Outcome) -> None:
    """There is no bundle to compare with."""
    strict = replace(recipe, gates=(GateRecipe("size_bytes", max=10.0),))
    with pytest.raises(PackageError, match="is this the bundle's recipe"):
        rebuild(outcome.bundles[0], strict)
