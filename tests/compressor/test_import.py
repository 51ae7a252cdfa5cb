"""A model of one's own through the command line: what fits becomes a gated bundle, what does not is named."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from compressor import networks
from compressor.cli import main
from compressor.errors import MeasureError
from compressor.export.onnx import export_onnx
from compressor.tflite import flatbuffer
from compressor.train import checkpoint
from wire.bundle import read_bundle
from wire.manifest import TensorSpec

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).with_name("pipeline_recipe.toml")
QUANTIZED = '[[compress]]\nstep = "quantize"\nreduce_range = true\n'
FLOAT_RECIPE = RECIPE.read_text().replace(QUANTIZED, "").replace("int8_macs_ratio = {min = 0.9}", "")
FLOAT_RECIPE = "compress = []\n" + FLOAT_RECIPE
TFLITE_RECIPE = FLOAT_RECIPE.replace('runtime = "onnx"', 'runtime = "litert"')
Run = Callable[..., tuple[int, str]]


def build() -> torch.nn.Module:
    """Return the network of the tiny recipe."""
    return networks.build("resnet8", 10, 3, 32, 32, {"filters": 4, "stem_stride": 2})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run: its cache spares each test the data, its ``float.pt`` is the user's model."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.raises(SystemExit) as stop:
        main(["run", str(RECIPE), "--out", str(folder / "out")])
    assert stop.value.code == 0
    shutil.copy(folder / "out" / "float.pt", folder / "mine.pt")
    return folder


@pytest.fixture(scope="module")
def network(home: Path) -> torch.nn.Module:
    """The trained network."""
    return checkpoint.load(build(), home / "mine.pt")


@pytest.fixture(scope="module")
def model(network: torch.nn.Module) -> onnx.ModelProto:
    """The trained network as a user's ONNX file: input ``pixels``, not our names."""
    model = onnx.load_from_string(export_onnx(network, 3, 32, 32))
    rename(model, {"input": "pixels"})
    return model


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments, recipe=text)`` gives exit code and stderr of ``compressor run``."""

    def call(*arguments: object, recipe: str = "") -> tuple[int, str]:
        path = home / "recipe.toml"
        path.write_text(recipe or RECIPE.read_text())
        (home / "out" / "tiny-1-host.tfb").unlink(missing_ok=True)
        with pytest.raises(SystemExit) as stop:
            main(["run", str(path), "--out", str(home / "out"), *map(str, arguments)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.strip().splitlines()[-1]

    return call


def export_training(network: torch.nn.Module) -> bytes:
    """Export a copy of ``network`` as it trains."""
    buffer = io.BytesIO()
    torch.onnx.export(
        copy.deepcopy(network).train(), (torch.randn(2, 3, 32, 32),), buffer,  # type: ignore[arg-type]
        dynamo=False, input_names=["input"], output_names=["logits", "embedding"],
        training=torch.onnx.TrainingMode.TRAINING,
        dynamic_axes={name: {0: "batch"} for name in ("input", "logits", "embedding")},
    )  # fmt: skip
    return buffer.getvalue()


def rename(model: onnx.ModelProto, names: dict[str, str]) -> None:
    """Give inputs and outputs of ``model`` other names."""
    for value in [*model.graph.input, *model.graph.output]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that a test may change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def saved(folder: Path, model: onnx.ModelProto) -> Path:
    """Write ``model`` as ``mine.onnx``."""
    path = folder / "mine.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_an_onnx_file_becomes_a_quantized_bundle_with_its_own_names(
    run: Run, home: Path, tmp_path: Path, model: onnx.ModelProto
) -> None:
    """The manifest says the input as the file does, and the gates saw int8."""
    code, _ = run("--onnx", saved(tmp_path, model))
    assert code == 0
    bundle = read_bundle(home / "out" / "tiny-1-host.tfb")
    assert bundle.manifest.inputs == (TensorSpec("pixels", (-1, 3, 32, 32), "float32", "NCHW"),)
    assert [output.name for output in bundle.manifest.outputs] == ["logits", "embedding"]
    assert len(bundle.artifact) < len(model.SerializeToString())
    assert "resnet8" not in bundle.files["card.md"].decode() + bundle.files["mlbom.cdx.json"].decode()
    assert "elsewhere; if it saw rows of the gate split" in (home / "out" / "report.html").read_text()
    assert json.loads(bundle.files["gate.json"])["figures"]["int8_macs_ratio"] > 0.9


def test_a_file_of_fixed_batch_and_other_output_names_in_another_order_passes(
    run: Run, home: Path, tmp_path: Path, model: onnx.ModelProto
) -> None:
    """The device reads the manifest's first output as logits: the one of the recipe's classes, wherever it stands."""
    own = copied(model)
    rename(own, {"logits": "scores", "embedding": "features"})
    own.graph.output.reverse()
    for value in [*own.graph.input, *own.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    assert run("--onnx", saved(tmp_path, own))[0] == 0
    manifest = read_bundle(home / "out" / "tiny-1-host.tfb").manifest
    assert manifest.outputs == (TensorSpec("scores", (-1, 10), "float32"),)


def test_a_file_in_training_mode_is_refused(run: Run, tmp_path: Path, network: torch.nn.Module) -> None:
    """Its batch norm looks at the whole batch: gates would judge other answers than a device gets."""
    own = onnx.load_from_string(export_training(network))
    code, line = run("--onnx", saved(tmp_path, own))
    assert code == 4
    assert "Expected the same logits for a row alone and among others" in line
    assert "model.eval()" in line


def test_the_manifest_has_the_opset_of_the_file(run: Run, home: Path, tmp_path: Path, model: onnx.ModelProto) -> None:
    """A device of an older runtime must be able to tell."""
    own = onnx.version_converter.convert_version(model, 16)
    assert run("--onnx", saved(tmp_path, own), recipe=FLOAT_RECIPE)[0] == 0
    assert read_bundle(home / "out" / "tiny-1-host.tfb").manifest.opset == 16


def test_a_checkpoint_skips_training(run: Run, home: Path) -> None:
    """No epoch runs, and the float weights of the run are the user's."""
    longer = RECIPE.read_text().replace("epochs = 1", "epochs = 5000")
    assert run("--checkpoint", home / "mine.pt", recipe=longer)[0] == 0
    assert (home / "out" / "float.pt").read_bytes() == (home / "mine.pt").read_bytes()


def test_two_models_at_once_are_refused(run: Run, home: Path, tmp_path: Path, model: onnx.ModelProto) -> None:
    """Which one was meant can't be guessed."""
    code, line = run("--onnx", saved(tmp_path, model), "--checkpoint", home / "mine.pt")
    assert code == 4
    assert "Expected in [model] one of checkpoint, onnx, tflite, got checkpoint, onnx" in line


@pytest.mark.parametrize("step", ["fine_tune", "prune", "distill"])
def test_a_step_that_needs_a_network_is_refused_with_an_onnx_file(
    step: str, run: Run, tmp_path: Path, model: onnx.ModelProto
) -> None:
    """It says that a checkpoint would do."""
    text = RECIPE.read_text().replace("[[compress]]", f'[[compress]]\nstep = "{step}"\n[[compress]]', 1)
    code, line = run("--onnx", saved(tmp_path, model), recipe=text)
    assert code == 4
    assert line.startswith("error [recipe_invalid]: ")
    assert f"Expected no step '{step}'" in line
    assert "give checkpoint and network" in line


def test_an_onnx_file_for_a_tflite_target_is_refused(run: Run, tmp_path: Path, model: onnx.ModelProto) -> None:
    """Only a network is exported to both formats."""
    text = RECIPE.read_text().replace('runtime = "onnx"', 'runtime = "litert"')
    code, line = run("--onnx", saved(tmp_path, model), recipe=text)
    assert (code, line[:24]) == (4, "error [recipe_invalid]: ")


@pytest.fixture(scope="module")
def tflite(network: torch.nn.Module) -> bytes:
    """The trained network as a user's TFLite file; conversion takes seconds."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - an optional extra

    return export_tflite(network, 3, 32, 32)


def changed(model: bytes, change: Callable[[Any], None]) -> bytes:
    """Return a TFLite file with ``change`` done to its tree."""
    tree = flatbuffer.read(model, MeasureError)
    change(tree)
    return flatbuffer.write(tree)


def as_it_is(tree: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Change nothing."""
    del tree


def reverse_outputs(tree: Any) -> None:  # noqa: ANN401 - generated, untyped
    """Turn the order of the graph's outputs round."""
    graph = tree.subgraphs[0]
    graph.outputs = list(graph.outputs)[::-1]


@pytest.mark.parametrize("change", [as_it_is, reverse_outputs])
def test_a_tflite_file_becomes_a_gated_bundle(
    change: Callable[[Any], None], run: Run, home: Path, tmp_path: Path, tflite: bytes
) -> None:
    """The artifact is the file, and its logits come first in the manifest whatever the order of its graph."""
    data = changed(tflite, change)
    (tmp_path / "mine.tflite").write_bytes(data)
    assert run("--tflite", tmp_path / "mine.tflite", recipe=TFLITE_RECIPE)[0] == 0
    bundle = read_bundle(home / "out" / "tiny-1-host.tfb")
    assert bundle.artifact == data
    assert bundle.manifest.inputs == (TensorSpec("input", (-1, 32, 32, 3), "float32", "NHWC"),)
    assert [output.name for output in bundle.manifest.outputs] == ["logits", "embedding"]
    assert json.loads(bundle.files["gate.json"])["figures"]["accuracy"] > 0.5


def test_a_tflite_file_is_not_quantized_again(run: Run, tmp_path: Path, tflite: bytes) -> None:
    """It is gated as it is; a step for it is refused before anything runs."""
    (tmp_path / "mine.tflite").write_bytes(tflite)
    text = RECIPE.read_text().replace('runtime = "onnx"', 'runtime = "litert"')
    code, line = run("--tflite", tmp_path / "mine.tflite", recipe=text)
    assert (code, line[:24]) == (4, "error [recipe_invalid]: ")
    assert "Expected no step 'quantize' with [model] tflite" in line
