"""The search space: which variants are tried, which choices are left out, and the steps of a point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.prune.settings import PruneSettings
from compressor.recipe.model import Recipe
from compressor.recipe.read import check_recipe, read_recipe
from compressor.search.space import (
    MACS_RATIOS,
    NONE,
    Point,
    Space,
    is_integer,
    key_of,
    nearest,
    parameters,
    said,
    schemes_of,
    steps_of,
    suggested,
)
from compressor.steps import qat
from compressor.steps.quantize import Settings as QuantizeRecipe


@pytest.fixture
def recipe() -> Recipe:
    """A recipe with one quantize step."""
    return read_recipe(Path(__file__).with_name("search_recipe.toml"))


@pytest.fixture
def space(recipe: Recipe) -> Space:
    """The space of its target."""
    return Space.of(recipe, recipe.targets[0])


def test_the_float_model_comes_first_and_has_no_steps(recipe: Recipe, space: Space) -> None:
    """Scheme none without pruning is fp32."""
    first = next(iter(space.points()))
    assert first == Point()
    assert steps_of(first, recipe, recipe.targets[0]) == ()


def test_every_point_is_its_own_form_and_a_valid_recipe(recipe: Recipe, space: Space) -> None:
    """No two points have the same steps, and the reader's checks accept all of them."""
    points = list(space.points())
    forms = [steps_of(item, recipe, recipe.targets[0]) for item in points]
    assert len({key_of(form) for form in forms}) == len(points)
    for form in forms:
        check_recipe(replace(recipe, compress=form))


def test_what_is_put_in_the_queue_comes_back(space: Space) -> None:
    """Parameters of a point make the same point again, for every point."""
    for point in space.points():
        given = parameters(point, space)
        assert suggested(lambda name, _, given=given: given[name], space) == point  # type: ignore[misc]


def test_a_setting_that_makes_no_difference_is_not_asked_for(space: Space) -> None:
    """Float16 has no calibration, no equalization, no training."""
    asked: list[str] = []

    def first(name: str, choices: Sequence[object]) -> object:
        asked.append(name)
        return "float16" if name == "scheme" else choices[0]

    suggested(first, space)
    assert asked == ["scheme", "macs_ratio"]


def test_steps_keep_the_recipes_own_settings_and_one_grid(recipe: Recipe) -> None:
    """Epochs and reduce_range are the recipe's; qat trains for the grid of the quantization."""
    own = (PruneSettings(rounds=7), QuantizeRecipe(reduce_range=False, percentile=99))
    point = Point("static_int8", "percentile", 0.5, qat=True)
    steps = steps_of(point, replace(recipe, compress=own), recipe.targets[0])
    assert steps == (
        PruneSettings(rounds=7, macs_ratio=0.5),
        qat.Settings(reduce_range=False),
        QuantizeRecipe(calibration="percentile", reduce_range=False, percentile=99),
    )
    assert said(steps) == "prune 0.5 + qat + static_int8 (percentile)"


def test_the_recipes_own_steps_have_a_nearest_point(recipe: Recipe, space: Space) -> None:
    """The sampler learns from them as from that point; an unknown scheme is as no scheme."""
    assert nearest(recipe.compress, space) == Point("static_int8", "percentile")
    assert nearest([PruneSettings(macs_ratio=0.3)], space).macs_ratio in MACS_RATIOS
    assert nearest([QuantizeRecipe(scheme="mine:quantize")], space).scheme == NONE


@pytest.mark.parametrize(("declared", "calibrations"), [("", 1), ("SEARCHED = Searched(calibrations=True)", 3)])
def test_a_scheme_from_outside_takes_part_by_what_it_declares(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: str, calibrations: int
) -> None:
    """Without a declaration it is tried alone; nothing is trained or equalized for it, unless it declares that."""
    name = f"scheme_{calibrations}"
    source = (
        f"from compressor.quantize import Searched\n{declared}\ndef quantize(model, batches, settings): return model\n"
    )
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    step = QuantizeRecipe(scheme=f"{name}:quantize")
    found = Space.of(replace(recipe, compress=(step,)), recipe.targets[0])
    points = [point for point in found.points() if point.scheme == step.scheme]
    assert len(points) == calibrations * len(MACS_RATIOS)
    assert not any(point.equalize or point.qat for point in points)
    assert nearest([step], found).scheme == step.scheme
    assert is_integer([step])


def test_an_imported_onnx_file_is_searched_as_a_network_and_another_is_only_quantized(recipe: Recipe) -> None:
    """The file becomes a network with all its steps; where it can't, ``workable`` takes them out."""
    for model, network in (({"onnx": "mine.onnx"}, True), ({"tflite": "mine.tflite"}, False)):
        imported = replace(recipe, model=replace(recipe.model, **model), compress=())
        points = list(Space.of(imported, recipe.targets[0]).points())
        assert any(item.qat or item.equalize or item.macs_ratio < 1 for item in points) is network
        assert len(points) > len(schemes_of("onnx"))


def test_a_step_that_changes_nothing_makes_no_other_form() -> None:
    """Scheme none is the same as no step, and float forms are not integer."""
    assert key_of([QuantizeRecipe(scheme="none")]) == key_of(())
    assert [is_integer([QuantizeRecipe(scheme=name)]) for name in ("none", "float16", "static_int8")] == [
        False,
        False,
        True,
    ]


def test_random_choices_are_points_of_the_space(space: Space) -> None:
    """Whatever is picked is one of the points listed."""
    rng, known = np.random.default_rng(0), set(space.points())
    for _ in range(200):
        assert suggested(lambda _, choices: choices[rng.integers(len(choices))], space) in known
