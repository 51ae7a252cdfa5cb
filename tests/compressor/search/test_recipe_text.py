"""A recipe written as TOML is read back equal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.gates.evidence import GateRecipe
from compressor.recipe.model import AcceptanceRecipe, Recipe, SmoothingRecipe
from compressor.recipe.read import parse_recipe, read_recipe
from compressor.search.recipe_text import absolute, recipe_text
from compressor.search.space import Space, steps_of
from edge_agent.smoothers import complete

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recipe() -> Recipe:
    """A small recipe."""
    return replace(read_recipe(Path(__file__).with_name("search_recipe.toml")), folder=Path())


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*/recipe.toml")), ids=lambda path: path.parent.name)
def test_every_recipe_of_the_repository_comes_back_equal(path: Path) -> None:
    """Tables, lists, inline tables and gates survive."""
    read = replace(read_recipe(path), folder=Path())
    assert parse_recipe(recipe_text(read).encode()) == read


def test_every_form_of_a_search_comes_back_equal(recipe: Recipe) -> None:
    """Steps of every kind, and none at all, survive."""
    for point in Space.of(recipe, recipe.targets[0]).points():
        changed = replace(recipe, compress=steps_of(point, recipe, recipe.targets[0]))
        assert parse_recipe(recipe_text(changed).encode()) == changed


def test_what_a_device_must_confirm_comes_back_equal(recipe: Recipe) -> None:
    """A search keeps ``[acceptance]``: the release of the chosen recipe has the recipe's budgets."""
    changed = replace(recipe, acceptance=AcceptanceRecipe(golden_tolerance=0.1))
    assert parse_recipe(recipe_text(changed).encode()) == changed


def test_a_smoother_comes_back_equal(recipe: Recipe) -> None:
    """With all its keys."""
    options = complete("mean", {"window": 7})
    changed = replace(recipe, smoothing=SmoothingRecipe("mean", 250, options))
    assert parse_recipe(recipe_text(changed).encode()) == changed


def test_a_decoder_comes_back_equal_with_names_and_lists() -> None:
    """As a person writes them, not as the numbers of a manifest."""
    head = '[model]\nname = "m"\nonnx = "m.onnx"\n[data]\ndataset = "boxes"\ntask = "detection"\n'
    read = parse_recipe(f'{head}[decoder]\nkind = "yolo"\nlayout = "anchors"\nanchors = [10, 13.5]\nmost = 20\n')
    text = recipe_text(read)
    assert 'layout = "anchors"' in text
    assert "anchors = [10.0, 13.5]" in text
    assert parse_recipe(text) == read


@pytest.mark.parametrize("text", ['a"b\\c', "tab\tline\nend", "ü 😀", "del\x7f", "# [no] = {comment}"])
def test_awkward_text_comes_back_equal(recipe: Recipe, text: str) -> None:
    """Quotes, escapes and characters beyond the first plane can't end a string."""
    changed = replace(recipe, data=replace(recipe.data, path=text, options={"a b": 1e-07, text: -3}))
    assert parse_recipe(recipe_text(changed).encode()) == changed


def test_remarks_are_comments_whatever_they_hold(recipe: Recipe) -> None:
    """A line end in a remark does not end the comment."""
    changed = replace(recipe, gates=(GateRecipe(name="accuracy", min=0.9),))
    text = recipe_text(changed, ("first\nversion = 9", "second"))
    assert text.startswith("# first version = 9\n# second\n")
    assert parse_recipe(text.encode()) == changed


def test_paths_become_absolute(recipe: Recipe, tmp_path: Path) -> None:
    """The text is stored in another folder than the original recipe."""
    changed = replace(
        recipe,
        folder=tmp_path,
        data=replace(recipe.data, path="images.zip", unlabelled="others", calibration="ranges.npy"),
        model=replace(recipe.model, checkpoint="mine.pt", teacher="large.onnx"),
    )
    found = absolute(changed)
    assert (found.data.unlabelled, found.data.calibration) == (str(tmp_path / "others"), str(tmp_path / "ranges.npy"))
    assert found.model.teacher == str(tmp_path / "large.onnx")
    assert (found.data.path, found.model.checkpoint) == (str(tmp_path / "images.zip"), str(tmp_path / "mine.pt"))
    assert absolute(changed, tmp_path / "data").data.path == str(tmp_path / "data" / "images.zip")
    assert absolute(found) == found
