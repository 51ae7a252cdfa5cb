"""Bad input as a person meets it: one coded line, exit code 4, nothing half-written."""

from __future__ import annotations

import io
import json
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from compressor.cli import main
from compressor.release.keys import init_keys
from compressor.release.package import Golden, write_golden
from edge_agent.inference.probe import probe
from server.trust.online_keys import init_online_keys
from wire.bundle import build_bundle
from wire.manifest import Manifest, Preprocessing, TensorSpec

RECIPE = Path(__file__).with_name("pipeline_recipe.toml")
IMAGES = '[model]\nname = "m"\n[data]\ndataset = "labelled_images"\npath = "set.zip"\nslices = "site"\n'
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line, expect exit code 4 and one coded line, return the line."""

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        assert (stop.value.code, said.out) == (4, "")
        line = said.err.strip().splitlines()[-1]
        assert line.startswith("error [")
        assert "Traceback" not in said.err
        return line

    return run


def image_zip(path: Path, entries: dict[str, bytes]) -> Path:
    """Write a zip of these entries."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def png() -> bytes:
    """Return a small image."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ('[model]\nname = "m"\n[train]\nepoch = 1\n', "recipe_invalid", "did you mean 'epochs'?"),
        ('[model]\nname = "m"\n[train]\nepochs = "1"\n', "recipe_invalid", "a whole number, got str '1'"),
        ('[model]\nname = "m"\n[gates]\nacuracy = {min = 1}\n', "recipe_invalid", "did you mean 'accuracy'?"),
        ("[model\n", "recipe_invalid", "Expected TOML"),
        ('[model]\nname = "m"\nnetwork = "resnet9"\n', "plugin_missing", "did you mean 'resnet8'?"),
        ('[model]\nname = "m"\n[data]\ndataset = "digit"\n', "plugin_missing", "did you mean 'digits'?"),
        ('[model]\nname = "m"\n[targets.a]\nruntime = "onxn"\n', "plugin_missing", "did you mean 'onnx'?"),
        ('[model]\nname = "m"\n[data]\ntrain_slices = ["lens-c"]\n', "split_invalid", "did you mean 'lens-"),
        ('[model]\nname = "m"\nnetwork = "no_such.module:build"\n', "plugin_missing", "no_such"),
        (IMAGES, "archive_refused", "set.zip"),
    ],
)
def test_a_wrong_recipe_is_said_before_anything_is_trained(
    text: str, code: str, said: str, tmp_path: Path, refused: Refused
) -> None:
    """The mistake is named with the nearest valid value, and no file except a cache of data may be written."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    line = refused("run", recipe, "--out", tmp_path / "out")
    assert f"error [{code}]" in line
    assert said in line
    assert not list((tmp_path / "out").glob("*.*"))


@pytest.mark.parametrize(
    ("entries", "code", "said"),
    [
        ({"labels.csv": b"path,label,place\na.png,1,x\n"}, "column_missing", "got path, label, place"),
        ({"labels.csv": b"path,label,site\na.png,1,x\n", "a.png": b"no image"}, "image_corrupt", "a.png"),
        ({"labels.csv": b"path,label,site\nb.png,1,x\n"}, "image_corrupt", "b.png: not there"),
        ({"labels.csv": b"path,label,site\na.png,1,x\n", "../up.png": b""}, "archive_refused", "../up.png"),
        ({"labels.csv": b"path,label,site\n/etc/passwd,1,x\n"}, "archive_refused", "/etc/passwd"),
        ({"labels.csv": b"path,label,site\na.png,1,x\n", "a.png": png()}, "split_invalid", "add data"),
        ({"labels.csv": b"\xff\xfe"}, "data_invalid", "UTF-8"),
        ({"readme.txt": b""}, "archive_refused", "no CSV"),
    ],
)  # fmt: skip
def test_wrong_data_is_named(entries: dict[str, bytes], code: str, said: str, tmp_path: Path, refused: Refused) -> None:
    """The line has the file, the column and the actual content."""
    (tmp_path / "recipe.toml").write_text(IMAGES)
    image_zip(tmp_path / "set.zip", entries)
    line = refused("run", tmp_path / "recipe.toml", "--out", tmp_path / "out")
    assert f"error [{code}]" in line
    assert said in line
    assert not list((tmp_path / "out").glob("*.*"))


def test_a_corrupt_image_is_left_out_where_the_recipe_allows_it_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run continues with the rest (here too few rows to split) and names the image."""
    (tmp_path / "recipe.toml").write_text(IMAGES + "allow_corrupt = 1\n")
    rows = b"path,label,site\na.png,1,x\nbad.png,1,x\n"
    image_zip(tmp_path / "set.zip", {"labels.csv": rows, "a.png": png(), "bad.png": b"?"})
    with pytest.raises(SystemExit):
        main(["run", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert "left out 1 corrupt images: bad.png" in said
    assert "error [split_invalid]" in said


def test_a_folder_for_results_that_is_a_file_is_said_first(tmp_path: Path, refused: Refused) -> None:
    """No data is read for a run that could not write."""
    (tmp_path / "taken").write_text("")
    assert "choose another --out" in refused("run", RECIPE, "--out", tmp_path / "taken" / "out")


def test_a_folder_that_takes_no_file_is_said_first(refused: Refused) -> None:
    """``/proc`` claims to be writable for root and refuses; a training would be lost there."""
    line = refused("run", RECIPE, "--out", "/proc/x")
    assert "Expected a folder for results at /proc/x, got: " in line
    assert "choose another --out" in line


@pytest.mark.parametrize("path", ["models/digits", "models/digits/recipe.toml"])
def test_images_have_no_ranges_to_fit(path: str, refused: Refused) -> None:
    """The error names what can be fitted, not a missing function."""
    line = refused("data", "fit", Path(__file__).parents[2] / path)
    assert "got dataset = 'digits', whose images need none: ranges are options of a front_end" in line


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, refused: Refused) -> None:
    """The incomplete file is deleted, and the line names the next step."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        line = refused("run", RECIPE, "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "free space or choose another --out" in line
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


@pytest.fixture
def heeded() -> Iterator[None]:
    """Enable Ctrl-C in children: a shell starts background processes with it ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("heeded")
def test_ctrl_c_in_training_leaves_what_was_made_and_nothing_half(tmp_path: Path) -> None:
    """The data step is found again by the next run."""
    command = [
        sys.executable,
        "-m",
        "compressor.cli",
        "run",
        str(_long_recipe(tmp_path)),
        "--out",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        heard = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert heard.startswith("data")
    assert (process.returncode, rest.strip().splitlines()[-1][:11]) == (130, "interrupted")
    assert [path.name[:5] for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["data-"]


def _long_recipe(folder: Path) -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.read_text().replace("epochs = 1", "epochs = 1000"))
    return path


def other_shape_bundle(path: Path, *, verdict: str = "pass") -> Path:
    """Write a bundle whose model expects 16 x 16 and whose manifest states 32 x 32."""
    node = onnx.helper.make_node("Flatten", ["input"], ["logits"])
    tensors = [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in _SHAPES]
    graph = onnx.helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    manifest = Manifest(
        model="m",
        version=1,
        target="host",
        runtime="onnx",
        opset=17,
        inputs=(TensorSpec(name="input", shape=(-1, 3, 32, 32)),),
        outputs=(TensorSpec(name="logits", shape=(-1, 768)),),
        preprocessing=Preprocessing(width=32, height=32),
    )
    golden = Golden(np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 768), np.float32), np.zeros(1, np.int64))
    gate = {"schema": 1, "verdict": verdict, "model": "m", "version": 1, "target": "host"}
    files = {"model.onnx": model.SerializeToString(), "golden.npz": write_golden(golden)}
    path.write_bytes(build_bundle(manifest, {**files, "gate.json": json.dumps(gate).encode()}))
    return path


_SHAPES = (("input", ["n", 3, 16, 16]), ("logits", ["n", 768]))


@pytest.mark.parametrize("command", ["verify", "gate"])
def test_a_model_of_another_input_shape_than_its_manifest_is_said(
    command: str, tmp_path: Path, refused: Refused
) -> None:
    """Both shapes are in the line; the device reports the same before it activates anything."""
    path = other_shape_bundle(tmp_path / "m.tfb", verdict="unknown")
    line = refused(command, path)
    assert "(-1, 3, 32, 32)" in line
    assert "(-1, 3, 16, 16)" in line
    refusal = probe(path)
    assert (refusal.ok, refusal.code) == (False, "bundle_invalid")
    assert "(-1, 3, 16, 16)" in refusal.text


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A build host's keys."""
    (tmp_path / "server" / "keys").mkdir(parents=True)
    init_online_keys(tmp_path / "server")
    init_keys(tmp_path / "keys", tmp_path / "server" / "online.pub.json")
    return tmp_path / "keys"


def test_a_bundle_that_failed_its_gates_is_not_published(tmp_path: Path, keys: Path, refused: Refused) -> None:
    """It is refused before any request to the server."""
    (tmp_path / "token").write_text("t")
    path = other_shape_bundle(tmp_path / "m.tfb", verdict="fail")
    where = ["--server", "http://127.0.0.1:9", "--token-file", tmp_path / "token"]
    assert "error [gate_not_passed]" in refused("publish", path, "--keys", keys, *where)


def test_a_certificate_that_does_not_follow_from_its_numbers_is_refused(tmp_path: Path, refused: Refused) -> None:
    """A bundle that claims a pass without a gate does not verify."""
    line = refused("verify", other_shape_bundle(tmp_path / "m.tfb", verdict="pass"))
    assert "error [package_invalid]" in line
    assert "follow from its own numbers" in line


def test_a_key_that_others_may_read_stops_the_run_before_it_trains(
    keys: Path, tmp_path: Path, refused: Refused
) -> None:
    """The line has the command that puts it right."""
    (keys / "targets.key").chmod(0o640)
    line = refused("run", RECIPE, "--out", tmp_path / "out", "--keys", keys)
    assert "error [trust_invalid]" in line
    assert f"run chmod 600 {keys / 'targets.key'}" in line
    assert not (tmp_path / "out").exists()
