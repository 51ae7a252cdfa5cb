"""A trained network as users supply it (checkpoint, ONNX and TFLite), and the command line for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import pytest
import torch

from compressor import networks
from compressor.cli import main
from compressor.export.onnx import export_onnx
from compressor.train import checkpoint

RECIPE = Path(__file__).parents[1] / "pipeline_recipe.toml"
QUANTIZED = '[[compress]]\nstep = "quantize"\nreduce_range = true\n'
Run = Callable[..., tuple[int, str]]
INT8 = RECIPE.read_text()
FLOAT = "compress = []\n" + INT8.replace(QUANTIZED, "").replace("int8_macs_ratio = {min = 0.9}", "")
RECIPES = {"int8": INT8, "float": FLOAT, "tflite": FLOAT.replace('runtime = "onnx"', 'runtime = "litert"')}
"""The tiny recipe as it is, without steps, and without steps for LiteRT."""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run: its cache spares each test the data, its ``float.pt`` is the user's model."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.raises(SystemExit) as stop:
        main(["run", str(RECIPE), "--out", str(folder / "out")])
    assert stop.value.code == 0
    shutil.copy(folder / "out" / "float.pt", folder / "mine.pt")
    return folder


@pytest.fixture(scope="session")
def network(home: Path) -> torch.nn.Module:
    """The trained network."""
    return checkpoint.load(networks.build("resnet8", 10, 3, 32, 32, {"filters": 4, "stem_stride": 2}), home / "mine.pt")


@pytest.fixture(scope="session")
def exported(network: torch.nn.Module) -> bytes:
    """The trained network as a user's ONNX file: input ``pixels``, not our names."""
    model = onnx.load_from_string(export_onnx(network, 3, 32, 32))
    rename(model, {"input": "pixels"})
    return model.SerializeToString()


@pytest.fixture
def model(exported: bytes) -> onnx.ModelProto:
    """The user's ONNX file, to be changed by the test."""
    return onnx.load_from_string(exported)


@pytest.fixture(scope="session")
def tflite(network: torch.nn.Module) -> bytes:
    """The trained network as a user's TFLite file; conversion takes seconds."""
    pytest.importorskip("litert_torch")
    from compressor.export.tflite import export_tflite  # noqa: PLC0415 - an optional extra

    return export_tflite(network, 3, 32, 32)


@pytest.fixture
def run(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments)`` gives exit code and last line on stderr of ``compressor run``.

    A model or bytes among the arguments are a file; ``recipe`` is one of ``RECIPES``, with ``edits`` of its text.
    """

    def path_of(argument: object) -> str:
        if isinstance(argument, onnx.ModelProto | bytes):
            data = argument if isinstance(argument, bytes) else argument.SerializeToString()
            (tmp_path / "mine").write_bytes(data)
            return str(tmp_path / "mine")
        return str(argument)

    def call(*arguments: object, recipe: str = "int8", edits: Mapping[str, str] | None = None) -> tuple[int, str]:
        text = RECIPES[recipe]
        for old, new in (edits or {}).items():
            text = text.replace(old, new, 1)
        (home / "recipe.toml").write_text(text)
        (home / "out" / "tiny-1-host.tfb").unlink(missing_ok=True)
        with pytest.raises(SystemExit) as stop:
            main(["run", str(home / "recipe.toml"), "--out", str(home / "out"), *map(path_of, arguments)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert isinstance(stop.value.code, int)
        return stop.value.code, said.strip().splitlines()[-1]

    return call


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs of ``model``."""
    for value in [*model.graph.input, *model.graph.output]:
        value.name = names.get(value.name, value.name)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


@pytest.fixture
def renamed() -> Callable[[onnx.ModelProto, Mapping[str, str]], None]:
    """``renamed(model, names)`` returns the model with other names of inputs and outputs."""
    return rename
