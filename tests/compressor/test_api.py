"""The Python interface of the build host: a recipe or a model in memory, to a result that shows itself."""

from __future__ import annotations

import copy
import io
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.api import (
    Arrays,
    CompressOptions,
    ProgressEvent,
    RunResult,
    Verdict,
    compress,
    parse_recipe,
    read_recipe,
    run,
)
from compressor.errors import CheckpointError, CompressorError, DataError, ExportError, PackageError, RecipeError
from wire.bundle import parse_bundle

SIDE = 8
RECIPE = b"""
[model]
name = "tiny"
network = "resnet8"
network_options = {filters = 4, stem_stride = 2}
[data]
dataset = "arrays"
path = "tiny.npz"
width = 8
height = 8
colour = "grey"
[train]
epochs = 1
[gates]
size_bytes = {max = 1000000}
"""


def pictures(count: int = 900) -> Arrays:
    """Return noise that is brighter on the left (class "left") or on the right."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    x = rng.integers(0, 120, (count, SIDE, SIDE))
    x[y == 0, :, : SIDE // 2] += 100
    x[y == 1, :, SIDE // 2 :] += 100
    return Arrays(x=x.astype(np.uint8), y=y, class_names=("left", "right"), slices=["north", "south"] * (count // 2))


def network() -> nn.Module:
    """Return a network that distinguishes left and right without training."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4), nn.ReLU(), nn.Linear(4, 2))
    side = torch.ones(SIDE, SIDE)
    side[:, SIDE // 2 :] = -1
    with torch.no_grad():
        made[1].weight.copy_(torch.stack([side.flatten(), -side.flatten()] * 2) / 8)
        made[1].bias.zero_()
        made[3].weight.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, -1.0, 1.0]]))
        made[3].bias.zero_()
    return made


GATES = CompressOptions(
    name="sides", gates={"accuracy": {"min": 0.5}, "worst_slice_drop": {"max": 0.05}, "size_bytes": {"max": 100_000}}
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """One compression, shared."""
    return compress(network(), pictures(), out=tmp_path_factory.mktemp("out"), options=GATES)


@pytest.mark.slow
def test_a_module_in_memory_becomes_a_bundle(result: RunResult) -> None:
    """Verdict, figures, gates and the bundle's bytes; the drift reference has the module's embedding."""
    assert result.passed
    assert {row.name for row in result.gates} >= {"accuracy", "worst_slice_drop", "size_bytes", "better_than_constant"}
    assert result.figures["host"]["accuracy"] > 0.99
    bundle = parse_bundle(result.bundle_bytes())
    assert (bundle.manifest.model, bundle.manifest.labels) == ("sides", ("left", "right"))
    assert [spec.name for spec in bundle.manifest.outputs] == ["logits", "embedding"]
    assert result.bundle("host") == result.bundle() == result.bundles["host"]
    assert result.report.is_file()
    assert result.certificate.is_file()


@pytest.mark.slow
def test_the_recipe_beside_it_gives_the_same_bytes(result: RunResult, tmp_path: Path) -> None:
    """The model and data in memory can be run again from their files, and as ONNX bytes."""
    folder = result.report.parent / "compress-inputs"
    again = run(folder / "recipe.toml", out=tmp_path / "again")
    assert again.bundle_bytes() == result.bundle_bytes()
    onnx, out = (folder / "model.onnx").read_bytes(), shutil.copytree(result.report.parent, tmp_path / "copy")
    assert compress(onnx, pictures(), out=out, options=GATES).bundle_bytes() == result.bundle_bytes()


def test_the_module_is_left_as_it_was(tmp_path: Path) -> None:
    """A module in training mode keeps mode, layers and weights, also where the run fails."""
    module = network().train()
    before, layers = copy.deepcopy(module.state_dict()), repr(module)
    with pytest.raises(CompressorError):
        compress(module, pictures(8), out=tmp_path)
    assert (module.training, repr(module)) == (True, layers)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_a_notebook_shows_gates_that_nobody_can_inject_into(result: RunResult) -> None:
    """Every gate with its verdict; names and texts are escaped; nothing is fetched from anywhere."""
    odd = replace(result.gates[0], text="<script>alert(1)</script>", target='"><img src=x>')
    shown = replace(result, gates=(*result.gates, odd), remarks=("<b>",))._repr_html_()
    assert all(f"<td>{row.name}</td>" in shown for row in result.gates)
    assert "sides-1: pass" in shown
    assert not any(bad in shown for bad in ("<script", "<img", "<b><", "http", 'src="', "@import"))
    assert "&lt;script&gt;" in shown


@pytest.mark.slow
def test_a_recipe_in_memory_runs_in_silence_and_says_how_far_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing on stdout, stderr or in the log; every stage is reported, and counted to its end."""
    heard: list[ProgressEvent] = []
    path = tmp_path / "tiny.npz"
    arrays = pictures()
    np.savez(path, x=arrays.x, y=arrays.y, class_names=np.array(arrays.class_names))
    recipe = parse_recipe(RECIPE + b'superiority = {min = 0}\n[targets.far]\ncpu = "x86"\n')
    with caplog.at_level(logging.INFO):
        result = run(recipe, out=tmp_path / "out", data=path, version=7, quick=True, progress=heard.append)
    out, err = capfd.readouterr()
    assert (out, err, caplog.text) == ("", "", "")
    assert (result.recipe.model.version, result.recipe.train.epochs) == (7, 2)
    ends = {event.stage: (event.done, event.total) for event in heard if event.stage}
    assert ends["train"] == (2, 2)
    assert ends["write"][0] == ends["write"][1]
    said = [event.text for event in heard if not event.stage]
    assert any(text.startswith("far: latency is not measured here: cpu = 'x86', not ") for text in said)
    assert "far: superiority is not judged: only a retraining has drifted samples" in said


def test_a_run_ends_when_its_progress_raises(tmp_path: Path) -> None:
    """A notebook can cancel in this way: the exception is passed on unchanged."""

    def stop(_event: ProgressEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(network(), pictures(), out=tmp_path, progress=stop)


def test_no_bundle_without_a_pass(result: RunResult, tmp_path: Path) -> None:
    """A failed gate has figures and reasons; reading the bundle raises an error that says where to look."""
    options = replace(GATES, gates={"size_bytes": {"max": 10}})
    out = shutil.copytree(result.report.parent, tmp_path / "copy")
    failed = compress(network(), pictures(), out=out, options=options)
    assert (failed.verdict, failed.passed, dict(failed.bundles)) == (Verdict.FAIL, False, {})
    assert failed.figures["host"]["size_bytes"] > 10
    with pytest.raises(PackageError, match=r"the verdict is fail, read \.gates"):
        failed.bundle()
    with pytest.raises(PackageError, match="'phone'"):
        result.bundle("phone")


@pytest.mark.parametrize(
    ("changes", "options", "error", "said"),
    [
        ({"x": pictures().x / 255}, GATES, DataError, "scale it to 0..255"),
        ({"y": pictures().y.astype(float)}, GATES, DataError, "Expected Arrays.y as integers"),
        ({"y": pictures().y[:-1]}, GATES, DataError, "Expected y as integers (900,)"),
        ({"class_names": ("left",)}, GATES, CompressorError, "of 1 classes, got a tensor (2, 2)"),
        (
            {"class_names": None},
            GATES,
            DataError,
            "Arrays.class_names as a list of texts, one for each class, got None",
        ),
        ({"class_names": "ab"}, GATES, DataError, "one for each class, got 'ab': write [str(name)"),
        ({"class_names": np.arange(2)}, GATES, DataError, "one for each class, got int64 "),
        ({"sources": ["a"]}, GATES, DataError, "Expected 'source' as texts"),
        ({}, replace(GATES, gates={"acuracy": {"min": 1}}), RecipeError, "did you mean 'accuracy'?"),
        ({}, replace(GATES, gates={"accuracy": 3}), RecipeError, "to be a table, got int 3"),
        ({}, replace(GATES, quantize={"schema": "none"}), RecipeError, "did you mean 'scheme'?"),
        (
            {},
            replace(GATES, quantize="float16"),
            RecipeError,
            "CompressOptions.quantize to be a table, got str 'float16'",
        ),
        ({}, replace(GATES, quantize=None), RecipeError, "CompressOptions.quantize to be a table, got NoneType"),
        ({}, replace(GATES, name="two words"), RecipeError, "[model] name"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, changes: dict[str, object], options: CompressOptions, error: type[Exception], said: str
) -> None:
    """One of the library's errors, with the thing and the next step; no bundle is left."""
    with pytest.raises(error) as caught:
        compress(network(), replace(pictures(), **changes), out=tmp_path, options=options)
    assert said in str(caught.value)
    assert not list(tmp_path.glob("*.tfb"))


def test_numbers_of_numpy_are_numbers(result: RunResult, tmp_path: Path) -> None:
    """A mean or a limit computed from arrays is taken as Python's number; the bundle has the same bytes."""
    gates = {name: {key: np.float64(value) for key, value in limits.items()} for name, limits in GATES.gates.items()}
    options = replace(GATES, gates=gates, mean=np.float32(GATES.mean), std=np.float64(GATES.std), seed=np.int64(0))
    names = np.array(pictures().class_names)
    again = compress(network(), replace(pictures(), class_names=names), out=tmp_path, options=options)
    assert again.bundle_bytes() == result.bundle_bytes()


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        ("train", {"optimizer": "adam"}, "[train] optimizer to be adamw or sgd, got 'adam'"),
        ("train", {"epochs": -3}, "[train] epochs between 1 and"),
        ("train", {"epochs": "3"}, "[train] epochs to be a whole number, got str '3'"),
        ("train", {"seed": np.int64(3)}, "true or false, lists or tables, got int64 "),
        ("model", {"name": "two words"}, "[model] name"),
    ],
)
def test_replaced_values_of_a_recipe_are_checked(
    tmp_path: Path, table: str, changes: dict[str, Any], said: str
) -> None:
    """As strictly as a file's, before anything is read: an unknown optimizer would train as another one."""
    recipe = parse_recipe(RECIPE.decode())
    wrong = replace(recipe, **{table: replace(getattr(recipe, table), **changes)})
    with pytest.raises(RecipeError) as caught:
        run(wrong, out=tmp_path / "out")
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


class Odd(nn.Module):
    """A network whose output is not logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one number a row."""
        return x.mean(dim=(1, 2, 3))


@pytest.mark.parametrize("model", [Odd(), nn.Linear(3, 2), io.BytesIO(), b"no model", "absent.onnx"])
def test_a_model_that_is_none_is_named(tmp_path: Path, model: object) -> None:
    """A module of other outputs or inputs, another object, bytes of something, a path to nothing."""
    with pytest.raises(CompressorError) as caught:
        compress(model, pictures(), out=tmp_path)
    assert str(caught.value).startswith("Expected")
    kinds = {io.BytesIO: ExportError, str: CheckpointError}
    assert isinstance(caught.value, kinds.get(type(model), CompressorError))


@pytest.mark.parametrize(
    ("last", "said"), [(nn.Softmax(1), "got probabilities"), (nn.Identity(), "got NaN or infinity")]
)
def test_why_logits_are_none_is_named(tmp_path: Path, last: nn.Module, said: str) -> None:
    """A softmax at the end, and weights that are NaN, are distinguished from a missing linear layer."""
    model = nn.Sequential(network(), last)
    if isinstance(last, nn.Identity):
        nn.init.constant_(model[0][1].weight, float("nan"))
    with pytest.raises(CompressorError, match=said):
        compress(model, pictures(), out=tmp_path)


def test_paths_that_are_not_there_are_named(tmp_path: Path) -> None:
    """A recipe and data."""
    with pytest.raises(RecipeError, match=r"Expected a recipe at .*: give a recipe.s TOML file, or its folder"):
        run(tmp_path / "recipe.toml", out=tmp_path)
    with pytest.raises(RecipeError, match="for the text of a recipe there is parse_recipe"):
        run("# a recipe's text, not its path\n" * 200, out=tmp_path)
    with pytest.raises(RecipeError, match="for the text of a recipe there is parse_recipe"):
        run(RECIPE, out=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="Expected data at"):
        run(parse_recipe(RECIPE), out=tmp_path, data=tmp_path / "nothing.zip")
    (tmp_path / "recipe.toml").write_bytes(RECIPE)
    assert read_recipe(tmp_path).model.name == "tiny"
