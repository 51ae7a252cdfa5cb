"""Bad input for the installed command: a process, its exit code, its line, and the files it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from onnx import TensorProto, helper

pytestmark = pytest.mark.slow
COMMAND = Path(sys.executable).with_name("compressor")
HEAD = '[model]\nname = "m"\n{model}\n[data]\nwidth = 8\nheight = 8\ndataset = "{dataset}"\npath = "set"\n'
IMAGES = HEAD.format(model="", dataset="labelled_images")
Make = Callable[[Path], None]


def table(text: str) -> Make:
    """Return a function that writes a table of windows."""

    def make(at: Path) -> None:
        (at / "set").mkdir()
        (at / "set" / "t.csv").write_text(text)

    return make


def archive(name: str, content: bytes) -> Make:
    """Return a function that writes a zip of one label and a file that is not an image."""

    def make(at: Path) -> None:
        with zipfile.ZipFile(at / "set", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("labels.csv", "path,label\na.png,1\n")
            file.writestr(name, content)

    return make


def foreign_onnx(at: Path) -> None:
    """Write an ONNX file with an operator of a vendor."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 8]) for name in ("x", "y")]
    node = helper.make_node("Normalize", ["x"], ["y"], domain="ai.vendor")
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.vendor", 1)]
    (at / "mine").write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


def misfit_checkpoint(at: Path) -> None:
    """Write the weights of another network."""
    torch.save({"other.weight": torch.full((3,), float("nan"))}, at / "mine")


def cut_tflite(at: Path) -> None:
    """Write the beginning of a TFLite file."""
    (at / "mine").write_bytes(b"\x1c\0\0\0TFL3" + b"\0" * 40)


def nothing(at: Path) -> None:
    """Write nothing."""


WINDOWS = HEAD.format(model="", dataset="windows") + 'front_end = "window"\noptions = {steps = 2, channels = 1}\n'
NAN = "window,label,x\na,w,1\na,w,nan\n"
ONNX = HEAD.format(model='onnx = "mine"', dataset="labelled_images")
WEIGHTS = HEAD.format(model='checkpoint = "mine"', dataset="labelled_images")
TFLITE = (
    "compress = []\n" + HEAD.format(model='tflite = "mine"', dataset="labelled_images")
    + '[targets.host]\nruntime = "litert"\n'
)  # fmt: skip
CASES = [
    ("a missing set", IMAGES, nothing, "archive_refused", "Expected a zip or folder of images at"),
    ("no image", IMAGES, archive("a.png", b"none"), "image_corrupt", "a.png: Expected an intact image"),
    ("a path that leaves", IMAGES, archive("../a.png", b""), "archive_refused", "got '../a.png'"),
    ("a bomb", IMAGES, archive("a.png", b"\0" * (33 << 20)), "archive_refused", "at most 33554432 bytes"),
    ("NaN", WINDOWS, table(NAN), "data_invalid", "t.csv, column 'x', row 3, got 'nan'"),
    ("a wrong type", IMAGES + 'allow_corrupt = "1"\n', nothing, "recipe_invalid", "a whole number, got str '1'"),
    ("a foreign operator", ONNX, foreign_onnx, "model_operators", "got ai.vendor.Normalize: replace them"),
    ("a misfit", WEIGHTS, misfit_checkpoint, "checkpoint_invalid", "got NaN or infinity in 'other.weight'"),
    ("half a TFLite file", TFLITE, cut_tflite, "model_invalid", "TFLite"),
    ("a missing model", ONNX, nothing, "checkpoint_invalid", "Expected a file as [model] onnx at"),
]


@pytest.mark.parametrize(("recipe", "make", "code", "said"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_bad_input_ends_a_run_with_one_line_and_exit_code_4(
    recipe: str, make: Make, code: str, said: str, tmp_path: Path
) -> None:
    """The value is named with the expectation; nothing on stdout, no stack, and no file."""
    make(tmp_path)
    (tmp_path / "recipe.toml").write_text(recipe)
    command = [COMMAND, "run", tmp_path / "recipe.toml", "--out", tmp_path / "out"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert (done.returncode, done.stdout) == (4, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error [{code}]: ")
    assert said in done.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_name_in_bad_data_can_not_write_to_the_terminal(tmp_path: Path) -> None:
    """An escape sequence in a file's name is shown, not obeyed."""
    archive("a.png", b"")(tmp_path)
    (tmp_path / "recipe.toml").write_text(IMAGES)
    with zipfile.ZipFile(tmp_path / "set", "w") as file:
        file.writestr("labels.csv", "path,label\n\x1b[31mred.png,1\n")
    done = subprocess.run([COMMAND, "run", tmp_path / "recipe.toml"], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "\x1b" not in done.stderr
