"""The example of each plug-in in CONTRIBUTING.md works: it is written into a folder beside ours, and run."""

from __future__ import annotations

import importlib
import json
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compressor import data, formats, networks, quantize, steps
from compressor.errors import DataError, RecipeError
from compressor.export.onnx import export_onnx
from compressor.recipe.model import DataRecipe, TrainRecipe
from compressor.recipe.read import parse_recipe, recipe_of
from compressor.search.recipe_text import recipe_text
from compressor.steps._base import Bench, Rows
from edge_agent import declarations, front_ends, runtimes, sinks, sources
from edge_agent.config import read_config
from edge_agent.device import hardware
from edge_agent.device.clock import FakeClock
from edge_agent.errors import SinkError
from wire.answers import AnswerRecord
from wire.bundle import build_bundle, parse_bundle
from wire.manifest import Manifest, Preprocessing, TensorSpec

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", PAGE, flags=re.DOTALL))
SHAPE = (1, 8, 8)


@pytest.fixture
def written(tmp_path: Path) -> Iterator[None]:
    """Every example as a plug-in: its folder is a second one of the package, as long as the test runs."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    packages = {name.rpartition("/")[0].replace("/", ".") for name in EXAMPLES}
    paths = [importlib.import_module(package).__spec__.submodule_search_locations for package in sorted(packages)]
    folders = [str(tmp_path / package.replace(".", "/")) for package in sorted(packages)]
    for path, folder in zip(paths, folders, strict=True):
        path.append(folder)
    importlib.invalidate_caches()
    yield
    for path, folder in zip(paths, folders, strict=True):
        path.remove(folder)
    for name in EXAMPLES:
        sys.modules.pop(name.removesuffix(".py").replace("/", "."), None)


def test_every_folder_of_plug_ins_has_an_example() -> None:
    """A reader finds a complete file to start from."""
    wanted = {"compressor/data", "compressor/networks", "compressor/steps", "compressor/quantize"}
    wanted |= {"edge_agent/sources", "edge_agent/sinks", "edge_agent/runtimes", "edge_agent/front_ends"}
    assert {name.rpartition("/")[0] for name in EXAMPLES} == wanted


@pytest.mark.usefixtures("written")
def test_the_data_format_reads_its_file_and_refuses_another(tmp_path: Path) -> None:
    """Two lines are two rows of two classes; a line that is not a square is named."""
    (tmp_path / "two.csv").write_text("3,0,10,20,255\n7,1,1,1,1\n")
    table = data.load(DataRecipe(dataset="grey_csv", path="two.csv"), tmp_path)
    assert (table.class_names, table.images[0][1, 1].tolist()) == (("3", "7"), [255, 255, 255])
    (tmp_path / "odd.csv").write_text("3,0,10\n")
    with pytest.raises(DataError, match="a square of pixels"):
        data.load(DataRecipe(dataset="grey_csv", path="odd.csv"), tmp_path)


@pytest.mark.usefixtures("written")
def test_the_network_keeps_the_promise_of_networks() -> None:
    """``networks.build`` checks logits and embedding, and passes the option on."""
    network = networks.build("one_convolution", 5, 3, 16, 16, {"filters": 4})
    assert network(torch.zeros(2, 3, 16, 16))[1].shape == (2, 4)


@pytest.mark.usefixtures("written")
def test_the_step_changes_weights_and_says_when_it_did_not() -> None:
    """``steps.apply`` checks the contract of every step."""
    rows = Rows(np.zeros((2, *SHAPE), np.float32), np.zeros(2, np.int64))
    bench = Bench(train=rows, calibration=rows, search=rows, settings=TrainRecipe())
    settings = steps.module("clip").Settings()
    network = networks.build("one_convolution", 3, *SHAPE)
    before = float(network.head.weight.detach().abs().max())
    assert steps.apply(network, bench, settings).notes["clipped"] > 0
    assert float(network.head.weight.detach().abs().max()) < before


@pytest.mark.usefixtures("written")
def test_the_scheme_gives_a_model_that_runs() -> None:
    """ONNX in, ONNX out, nearly the same answers; keys of its own come from the recipe, as strictly as others."""
    model = export_onnx(networks.build("one_convolution", 3, *SHAPE), *SHAPE)
    rows = np.random.default_rng(0).standard_normal((4, *SHAPE)).astype(np.float32)
    step = {"step": "quantize", "scheme": "coarse_weights", "levels": 100}
    recipe = recipe_of({"model": {"name": "m"}, "compress": [step]})
    assert formats.unread(recipe.compress[0], ["onnx"]) == ()
    coarse = quantize.quantize(model, lambda: [rows], recipe.compress[0])
    assert parse_recipe(recipe_text(recipe).encode()) == recipe
    assert "own=Settings(levels=100)" in repr(recipe.compress[0])
    for wrong, words in (
        ({"levls": 3}, "did you mean 'levels'"),
        ({"levels": 128}, "levels between 1 and 127, got 128"),
    ):
        with pytest.raises(RecipeError, match=words):
            recipe_of({"model": {"name": "m"}, "compress": [step | wrong]})
    with pytest.raises(RecipeError, match="got 'levels'"):
        recipe_of({"model": {"name": "m"}, "compress": [step | {"scheme": "static_int8"}]})
    answers = [
        onnxruntime.InferenceSession(one, providers=["CPUExecutionProvider"]).run(None, {"input": rows})[0]
        for one in (model, coarse)
    ]
    assert onnx.load_from_string(coarse) != onnx.load_from_string(model)
    np.testing.assert_allclose(answers[0], answers[1], atol=0.05)


@pytest.mark.usefixtures("written")
def test_the_source_gives_the_newest_picture_once(tmp_path: Path) -> None:
    """The complete picture, by its name, and only once; its own key comes from agent.toml."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (tmp_path / "agent.toml").write_text('[source]\nkind = "newest"\npath = "pictures"\nlargest_bytes = 1\n')
    source = sources.load(read_config(tmp_path / "agent.toml").source.document, FakeClock())
    (folder / "b.png").write_bytes(b"bb")
    assert source.take() is None
    (folder / "a.png").write_bytes(b"a")
    taken = source.take()
    assert taken is not None
    assert (taken.name, taken.data) == ("a.png", b"a")
    assert source.take() is None


@pytest.mark.usefixtures("written")
def test_the_sink_keeps_the_newest_answer(tmp_path: Path) -> None:
    """The file has the last of several answers; without a path the error names the key."""
    (tmp_path / "agent.toml").write_text('[sinks.display]\nkind = "latest"\npath = "newest.json"\n')
    document = read_config(tmp_path / "agent.toml").sinks["display"].document
    sink, _ = sinks.load(document, sinks.SinkSurroundings(name="display"))
    assert sink.send([AnswerRecord(id="1"), AnswerRecord(id="2")]) == 2
    assert json.loads((tmp_path / "newest.json").read_text())["id"] == "2"
    with pytest.raises(SinkError, match=r"set path in \[sinks.display\]"):
        sinks.load({"kind": "latest"}, sinks.SinkSurroundings(name="display"))


@pytest.mark.usefixtures("written")
def test_the_runtime_runs_its_artifact() -> None:
    """Bright is the second class; the device reports it, and a bundle of its format is opened."""
    manifest = Manifest(
        runtime="mean_colour",
        preprocessing=Preprocessing(width=8, height=8),
        inputs=(TensorSpec(name="input", shape=(1, *SHAPE), dtype="float32"),),
        outputs=(TensorSpec(name="logits", shape=(1, 2), dtype="float32"),),
    )
    assert "mean_colour" in hardware.runtimes()
    name = f"model.{declarations.runtime('mean_colour').formats['']}"
    bundle = parse_bundle(build_bundle(replace(manifest, model="m", version=1, artifact=name), {name: b"0.5"}))
    runtime = runtimes.load(bundle.manifest, bundle.artifact)
    logits = runtime.run(np.stack([np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)]))[0]
    assert logits.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.usefixtures("written")
def test_the_front_end_makes_a_picture() -> None:
    """A constant has all of its magnitude in the first pixel."""
    picture = front_ends.decode("spectrum", struct.pack("<16h", *[16_384] * 16), {"samples": 16})
    assert (picture.shape, picture[0, 0, 0], int(picture[0, 1:].max())) == ((1, 9, 3), 128, 0)
    assert "spectrum" in front_ends.names()
