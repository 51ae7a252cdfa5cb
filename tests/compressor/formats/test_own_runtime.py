"""A runtime of one file a side: dropped into the two folders, it goes through run, gate, bundle, probe and agent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import formats
from compressor.errors import ExportError, MeasureError, PluginError, QuantizeError
from compressor.formats import ModelFormat
from compressor.steps.quantize import Settings
from edge_agent import declarations
from wire.bundle import read_bundle

TRIAL = Path(__file__).parent / "trial"
ROOT = Path(__file__).parents[3]
RECIPE = """
[model]
name = "trial"
network = "two_layers:build"
[data]
dataset = "digits"
width = 8
height = 8
[train]
epochs = 6
[[compress]]
step = "quantize"
scheme = "weight_int8"
[targets.plain]
runtime = "npz_layers"
[targets.packed]
runtime = "npz_layers"
format = "zip"
[gates]
accuracy_drop = {max = 0.05}
parity_cosine = {min = 0.99}
size_bytes = {max = 10000}
"""
ON_THE_DEVICE = """
import json, subprocess, sys
from pathlib import Path
import numpy as np
from PIL import Image
from edge_agent.api import open_bundle
from edge_agent.device import hardware
from edge_agent.inference.probe import probe
from edge_agent.pipe_frames import encode_frame, read_frame

Image.fromarray(np.full((8, 8), 90, np.uint8)).save("inbox/a.png")
bundle = Path(sys.argv[1])
with open_bundle(bundle) as model:
    label = model.answer(np.full((8, 8), 90, np.uint8)).label
source = json.dumps({"kind": "directory", "path": "inbox"})
command = [sys.executable, "-m", "edge_agent.inference.child", "--bundle", str(bundle), "--source", source]
with subprocess.Popen([*command, "--beat-s", "0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
    served = 0
    while served < 1 and (frame := read_frame(child.stdout)) is not None:
        served += int(frame.header["n"]) if frame.kind == "beat" else 0
    child.stdin.write(encode_frame({"type": "stop"}))
    child.stdin.close()
    child.stdout.read()
print(json.dumps([served, probe(bundle).ok, label.isdecimal(), "npz_layers" in hardware.runtimes()]))
"""


def ran(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of ``tree``, which ends in order."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tree), str(TRIAL)])}
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages, as links, with the two files of the trial runtime in their folders; and the results of a run."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("wire", "edge_agent", "compressor"):
        shutil.copytree(
            ROOT / name, tree / name, copy_function=os.symlink, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tree / "edge_agent/runtimes/npz_layers.py").symlink_to(TRIAL / "device_half.py")
    (tree / "compressor/formats/npz_layers.py").symlink_to(TRIAL / "build_half.py")
    (tree / "recipe.toml").write_text(RECIPE)
    (tree / "inbox").mkdir()
    ran(tree, "-m", "compressor", "run", "recipe.toml", "--out", "build")
    return tree


@pytest.mark.slow
def test_its_bundles_pass_the_gates_that_say_what_was_not_counted(tree: Path) -> None:
    """Both forms: the runtime itself measures parity and drop; multiplications are unknown, with the reason."""
    gates = json.loads((tree / "build/gate.json").read_text())
    assert gates["verdict"] == "pass"
    assert {"compressor.formats.npz_layers", "edge_agent.runtimes.npz_layers"} <= set(gates["code_digests"])
    plain, packed = (read_bundle(tree / f"build/trial-1-{name}.tfb") for name in ("plain", "packed"))
    assert (plain.manifest.artifact, packed.manifest.artifact) == ("model.npz", "model.packed")
    assert len(packed.artifact) < len(plain.artifact)
    assert "counted, got 'npz_layers'" in (tree / "build/gate.json").read_text()
    assert "npz float" in (tree / "build/report.html").read_text()


@pytest.mark.slow
def test_its_bundle_is_verified_and_judged_again(tree: Path) -> None:
    """By the commands."""
    for command in ("verify", "gate"):
        assert "pass" in ran(tree, "-m", "compressor", command, "build/trial-1-packed.tfb").stdout


@pytest.mark.slow
def test_a_device_reports_it_probes_and_answers(tree: Path) -> None:
    """And the agent's own child, a process, serves a picture with it."""
    bundle = str(tree / "build/trial-1-plain.tfb")
    assert json.loads(ran(tree, "-c", ON_THE_DEVICE, bundle).stdout) == [1, True, True, True]


@pytest.mark.parametrize("name", formats.known())
def test_a_format_has_the_name_of_a_runtime(name: str) -> None:
    """Its texts, packages and layout are declared; the device's half opens its files."""
    found = formats.named(name)
    assert found.runtime == declarations.runtime(name).name
    assert (found.layout, bool(found.title), bool(found.modules)) == (declarations.runtime(name).layout, True, True)
    assert {"none", *found.schemes()} == set(found.schemes())


def test_every_runtime_that_a_server_offers_can_be_built_for() -> None:
    """A folder a side, the same names."""
    assert {one.name for one in declarations.runtimes() if one.offered} == set(formats.known())


def test_the_defaults_say_what_a_format_can_not_do() -> None:
    """By an error that names it, never by a wrong file."""
    plain = ModelFormat("new")
    assert (plain.float_name, plain.schemes(), plain.reads("any")) == ("new float", ("none",), None)
    assert plain.quantize(b"x", list, Settings(scheme="none"), None) == b"x"
    assert "'new'" in plain.figures(b"", {}, 1).unknown
    for error, act in (
        (QuantizeError, lambda: plain.quantize(b"", list, Settings(), None)),
        (QuantizeError, lambda: plain.activations(b"", None)),  # type: ignore[arg-type]
        (ExportError, lambda: plain.export(None, 1, 1, 1)),  # type: ignore[arg-type]
        (ExportError, lambda: plain.saved_as(b"", "ort")),
        (MeasureError, lambda: plain.tensors(b"")),
        (MeasureError, lambda: plain.layers(b"", b"", None)),  # type: ignore[arg-type]
    ):
        with pytest.raises(error, match="'new'"):
            act()


def test_an_unknown_runtime_is_named_with_the_nearest() -> None:
    """Before anything is exported."""
    with pytest.raises(PluginError, match=r"onnx to export to, got 'onx'.*'onnx'"):
        formats.named("onx")
