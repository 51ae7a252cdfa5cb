"""Forms of an imported ONNX file: as it is, quantized, and as a network that steps change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from compressor.cache import Cache
from compressor.errors import ConversionError
from compressor.progress import Silent
from compressor.recipe.read import read_recipe
from compressor.search.recipe_text import absolute, recipe_text
from compressor.search.space import Space
from compressor.search.trial import Ground, form_of, measured, prepared, study_digest, target_of, workable
from compressor.steps.fine_tune import Settings as FineTune
from compressor.steps.quantize import Settings as Quantize
from tests.compressor.imported import colours

STEP = '[[compress]]\nstep = "{}"\n'


def ground_of(folder: Path, file: bytes, more: str = "", **model: str) -> Ground:
    """Return what the trials of a search in ``file`` share."""
    (folder / "mine.onnx").write_bytes(file)
    colours.arrays(folder / "data.npz", ["gate", "calibration", "train", "train", "reference"])
    path = colours.recipe(folder, more=more or STEP.format("quantize"), **model)
    recipe = read_recipe(path)
    return prepared(recipe, target_of(recipe, ""), Cache(folder / "cache"), Silent())


def unknown_operator() -> bytes:
    """Return a file that runs, with an operator that no network is made of."""
    model = onnx.load_from_string(colours.network())
    model.graph.node[1].op_type = "ThresholdedRelu"
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("alpha", 1e-6))
    return bytes(model.SerializeToString())


def test_a_file_is_tried_as_it_is_quantized_and_as_a_network(tmp_path: Path) -> None:
    """The first two are the file's own graph; a step before the export gives a new one."""
    ground = ground_of(tmp_path, colours.network())
    assert ground.trained is not None
    plain, integer = form_of(ground, ()), form_of(ground, (Quantize(),))
    names = [{value.name for value in onnx.load_from_string(form.data).graph.input} for form in (plain, integer)]
    assert names == [{"pixels"}, {"pixels"}]
    steps = (FineTune(epochs=1), Quantize())
    assert {value.name for value in onnx.load_from_string(form_of(ground, steps).data).graph.input} == {"input"}
    assert measured(ground, steps).n == len(ground.lesson.search)


def test_another_meaning_of_the_outputs_is_another_study(tmp_path: Path) -> None:
    """Without its sigmoid the network is another one, though the file's bytes are the same."""
    grounds = []
    for outputs in ("probabilities", "logits"):
        model = {"model": f'outputs = "{outputs}"'}
        grounds.append(ground_of(tmp_path, colours.network(last=("Sigmoid",), contrast=0.2), **model))
    space = Space.of(grounds[0].recipe, grounds[0].target)
    assert study_digest(grounds[0], space) != study_digest(grounds[1], space)


def test_a_file_that_is_no_network_is_quantized_alone(tmp_path: Path) -> None:
    """Its operators are the reason; a recipe whose own steps need the network ends with it."""
    ground = ground_of(tmp_path, unknown_operator())
    space = Space.of(ground.recipe, ground.target)
    assert space.network
    left = workable(ground, replace(space, schemes=("none", "static_int8")))
    assert (left.network, left.macs_ratios) == (False, (1.0,))
    with pytest.raises(ConversionError, match="ThresholdedRelu"):
        ground_of(tmp_path, unknown_operator(), STEP.format("fine_tune"))


def test_the_choice_is_a_recipe_that_says_what_the_file_s_outputs_are(tmp_path: Path) -> None:
    """``chosen.toml`` is run from another folder."""
    path = colours.recipe(tmp_path, model='outputs = "probabilities"\nconstants = {mask = [1.0, 2.0]}')
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "chosen.toml").write_text(recipe_text(absolute(read_recipe(path))))
    model = read_recipe(tmp_path / "out" / "chosen.toml").model
    assert (model.outputs, dict(model.constants)) == ("probabilities", {"mask": (1.0, 2.0)})
    assert Path(model.onnx) == tmp_path / "mine.onnx"
