"""The step that explains flips: its maps are cached, and depend on models and inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.cache import Cache
from compressor.data._table import Table, make_table
from compressor.measurement.predictions import Candidate
from compressor.measurement.saliency import Flip
from compressor.progress import Silent
from compressor.recipe.read import parse_recipe
from compressor.run.report_inputs import explained
from compressor.run.stages import Run
from wire.manifest import Manifest, Preprocessing, TensorSpec

RECIPE = b'[model]\nname = "m"\n[data]\nwidth = 8\nheight = 8\n'


def model(row: int) -> Candidate:
    """Return a model whose first logit is the red of pixel (``row``, 0), the second none."""
    weights = np.zeros((3 * 8 * 8, 2), np.float32)
    weights[row * 8, 0] = 5
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["n", 3, 8, 8]), ("logits", ["n", 2]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    inputs, outputs = (
        (TensorSpec(name="x", shape=(-1, 3, 8, 8), dtype="float32", layout="NCHW"),),
        (TensorSpec(name="logits", shape=(-1, 2)),),
    )
    preprocessing = Preprocessing(width=8, height=8)
    manifest = Manifest(model="m", version=1, inputs=inputs, outputs=outputs, preprocessing=preprocessing)
    return Candidate(manifest, data)


@pytest.fixture
def rows() -> Table:
    """One bright input."""
    image = np.full((8, 8, 3), 10, np.uint8)
    image[:4] = 250
    return make_table([image], ["a"], slices=["s"])


FLIP = Flip(row=0, label=0, before=0, after=1, before_margin=0.5, after_margin=0.5, slice="s")


def shop(folder: Path) -> Run:
    """Return where the step runs."""
    return Run(recipe=parse_recipe(RECIPE), cache=Cache(folder), progress=Silent())


def test_maps_are_kept_and_found_again(tmp_path: Path, rows: Table) -> None:
    """A resumed run hides no patch again, and shows the same maps."""
    first, second = shop(tmp_path), shop(tmp_path)
    made = explained(first, [FLIP], rows, model(0), model(7))
    kept = explained(second, [FLIP], rows, model(0), model(7))
    assert (first.cache.ran, second.cache.ran, second.cache.found) == (["explain"], [], ["explain"])
    assert np.array_equal(made[0].before, kept[0].before)
    assert np.array_equal(made[0].after, kept[0].after)


def test_another_model_or_input_is_explained_anew(tmp_path: Path, rows: Table) -> None:
    """The maps are of exactly these models, answers and inputs."""
    run = shop(tmp_path)
    explained(run, [FLIP], rows, model(0), model(7))
    explained(run, [FLIP], rows, model(1), model(7))
    explained(
        run,
        [Flip(row=0, label=0, before=1, after=0, before_margin=0.5, after_margin=0.5, slice="s")],
        rows,
        model(0),
        model(7),
    )
    assert run.cache.ran == ["explain"] * 3


def test_no_flip_needs_no_model(tmp_path: Path, rows: Table) -> None:
    """Nothing is run where nothing flipped."""
    broken = Candidate(model(0).manifest, b"no model")
    assert explained(shop(tmp_path), [], rows.take(np.zeros(0, np.int64)), broken, broken) == ()
