"""The noise of int8 at each output: found part by part, and mended by float last layers, named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor import formats, networks
from compressor.errors import MeasureError
from compressor.export.onnx import export_onnx
from compressor.measurement.noise_figures import noisy_text
from compressor.measurement.output_noise import measured
from compressor.measurement.predictions import Candidate
from compressor.progress import Silent
from compressor.quantize import quantize
from compressor.recipe.model import Recipe
from compressor.recipe.read import parse_recipe
from compressor.run.compression import compress
from compressor.run.pipeline import calibration_of, material_of, opened
from compressor.run.stages import Form, Run, bare
from compressor.steps.quantize import Settings
from edge_agent import decoders
from wire.manifest import Manifest, Preprocessing, TensorSpec

pytestmark = pytest.mark.slow
SIDE, CLASSES = 96, 5
RECIPE = """
[model]
name = "few"
network = "centre_net"
network_options = {filters = 8}
[data]
dataset = "scenes"
task = "detection"
width = 96
height = 96
colour = "grey"
[[compress]]
step = "quantize"
[targets.onnx]
[gates]
map = {min = 0.1}
"""


def detector(factor: float) -> nn.Module:
    """Return a network whose sizes are ``factor`` times as large as they should be, next to scores in one output."""
    torch.manual_seed(0)
    network = networks.build("centre_net", CLASSES, 1, SIDE, SIDE, {"filters": 8})
    with torch.no_grad():
        for _ in range(10):
            network(torch.rand(8, 1, SIDE, SIDE))
        network.head.weight *= 60  # type: ignore[operator]  # all of like range
        network.head.weight[CLASSES : CLASSES + 2] *= factor  # type: ignore[index]
    return network.eval()


def rows() -> np.ndarray:
    """Return eight inputs."""
    return np.random.default_rng(0).random((8, 1, SIDE, SIDE)).astype(np.float32)


def candidate(data: bytes, **changes: object) -> Candidate:
    """Return an ONNX file with a manifest of boxes."""
    manifest = Manifest(
        runtime="onnx", inputs=(TensorSpec(name="input", shape=(-1, 1, SIDE, SIDE)),),
        outputs=(TensorSpec(name="logits", shape=(-1, CLASSES + 4, -1, -1)),
                 TensorSpec(name="embedding", shape=(-1, -1))),
        preprocessing=Preprocessing(width=SIDE, height=SIDE, colour="grey"), labels=tuple("abcde"), decoder="centres",
        decoder_options=decoders.complete("centres", {}),
    )  # fmt: skip
    return Candidate(replace(manifest, **changes), data)  # type: ignore[arg-type]


def noise(factor: float, **settings: object) -> dict[str, float]:
    """Return the signal-to-noise ratio of every part after int8."""
    plain = export_onnx(detector(factor), 1, SIDE, SIDE)
    made = quantize(plain, lambda: [rows()], Settings(scheme="static_int8", **settings))  # type: ignore[arg-type]
    found = measured(candidate(plain), candidate(made), (rows(), rows()))
    assert [one.part or one.output for one in found] == ["scores", "sizes", "places", "embedding"]
    assert bool(noisy_text(found)) == any(one.sqnr_db < 20 for one in found)
    return {one.part or one.output: one.sqnr_db for one in found}


def test_scores_of_one_scale_with_large_sizes_are_noise_and_float_last_layers_mend_it() -> None:
    """The whole output looks right, because sizes dominate it; parts of like range keep theirs."""
    assert min(noise(1.0).values()) > 20
    bad = noise(1000.0)
    assert bad["scores"] < 15
    assert bad["sizes"] > 25
    last = formats.named("onnx").last_layers(export_onnx(detector(1.0), 1, SIDE, SIDE))
    assert len(last) == 1
    assert "head" in last[0]
    mended = noise(1000.0, float_layers=last)
    assert mended["scores"] > bad["scores"] + 10


def test_a_file_that_does_not_run_is_an_error_of_ours() -> None:
    """As is one of another shape."""
    plain = export_onnx(detector(1.0), 1, SIDE, SIDE)
    with pytest.raises(MeasureError):
        measured(candidate(plain), candidate(b"no model"), (rows(), rows()))
    with pytest.raises(MeasureError, match="one shape"):
        measured(candidate(plain), candidate(plain, labels=tuple("abcdefgh")), (rows(), rows()))


def test_an_equal_file_has_no_noise() -> None:
    """Its ratio is finite all the same, for JSON."""
    plain = export_onnx(detector(1.0), 1, SIDE, SIDE)
    assert {one.sqnr_db for one in measured(candidate(plain), candidate(plain), (rows()[:2], rows()[:2]))} == {999.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run on scenes that has trained nothing."""
    recipe: Recipe = parse_recipe(RECIPE)
    begun = opened(recipe, tmp_path_factory.mktemp("noise"), Silent())
    return replace(begun, material=material_of(begun, Path(), None))


@pytest.mark.parametrize(("factor", "said"), [(1.0, ""), (1000.0, "stay float")])
def test_a_run_keeps_the_last_layers_float_where_int8_would_cover_an_output(run: Run, factor: float, said: str) -> None:
    """And says which, in the remarks of the target; where nothing is wrong, nothing is changed."""
    target = run.recipe.targets[0]
    form = Form(candidate=bare(run.recipe, run.table, export_onnx(detector(factor), 1, SIDE, SIDE), target))
    made = compress(run, form, target, calibration_of(run, run.rows("train")))
    assert ("stay float" in " ".join(made.remarks)) == bool(said)
    if said:
        assert "scores of logits" in made.remarks[0]
        assert "head" in made.remarks[0]


@pytest.mark.parametrize(
    ("options", "shapes", "parts"),
    [
        ({"layout": "scores"}, [(2, 7, 30)], {"boxes": (2, 30, 4), "scores": (2, 30, 3)}),
        ({"layout": "scores"}, [(2, 30, 7)], {"boxes": (2, 30, 4), "scores": (2, 30, 3)}),
        ({"layout": "objectness"}, [(2, 30, 8)], {"boxes": (2, 30, 4), "scores": (2, 30, 4)}),
        ({"layout": "scores"}, [(2, 4, 30), (2, 3, 30)], {}),
        ({"layout": "end_to_end"}, [(2, 30, 6)], None),
    ],
)
def test_a_yolo_is_compared_by_boxes_and_scores(
    options: dict[str, object], shapes: list[tuple[int, ...]], parts: dict[str, tuple[int, ...]] | None
) -> None:
    """Wherever they share an output; a file that sorts its boxes can't be compared number by number."""
    shape = decoders.ModelShape(classes=3, width=64, height=64)
    full = decoders.complete("yolo", options)  # type: ignore[arg-type]
    found = decoders.parts("yolo", full, shape, [np.zeros(one, np.float32) for one in shapes])
    assert (found if found is None else {name: one.shape for name, one in found.items()}) == parts
