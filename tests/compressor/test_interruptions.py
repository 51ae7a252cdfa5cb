"""A run that is stopped in the middle of a step: nothing half-written, and the same command resumes."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compressor.cli import main
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import run_recipe

pytestmark = pytest.mark.slow
RECIPE = Path(__file__).with_name("pipeline_recipe.toml").read_text()
STEPS = {
    "prune": 'step = "prune"\nmacs_ratio = 0.9\nrounds = 1\nround_to = 1\nfine_tune_epochs = {epochs}',
    "qat": 'step = "qat"\nreduce_range = true\nepochs = {epochs}\nallow_unchanged = true',
}
SILENT_S = 60.0
DISK_BYTES = 64_000_000  # the data as they are kept take 43 MB, a run 6 MB


def recipe_with(folder: Path, step: str, epochs: int) -> Path:
    """Write the tiny recipe with ``step`` before its quantize step."""
    path = folder / "recipe.toml"
    text = STEPS[step].format(epochs=epochs)
    path.write_text(RECIPE.replace("[[compress]]", f"[[compress]]\n{text}\n[[compress]]", 1))
    return path


def half_written(out: Path) -> list[Path]:
    """Return bundles and parts of files below ``out``."""
    return [*out.rglob("*.tfb"), *out.rglob(".*.new"), *out.rglob("*.part")]


@pytest.fixture
def heeded() -> Iterator[None]:
    """Enable Ctrl-C in children: a shell starts background processes with it ignored, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_at(words: bytes, command: list[str], number: int = signal.SIGINT) -> tuple[int, str]:
    """Run ``command`` in a terminal and signal it when it shows ``words``; return exit code and output."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 160))  # a bar in a window of no width has no words
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, sent = b"", False
    while select.select([ours], [], [], SILENT_S)[0]:
        try:
            said += os.read(ours, 65536)
        except OSError:  # the terminal's other end is closed: the program ended
            break
        if words in said and not sent:
            process.send_signal(number)
            sent = True
    os.close(ours)
    if not sent:
        process.kill()
    return process.wait(), said.decode()


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize(("step", "words"), [("prune", b"fine-tuning, epoch 2"), ("qat", b"qat epoch 1")])
def test_ctrl_c_in_a_step_leaves_what_was_made_before(step: str, words: bytes, tmp_path: Path) -> None:
    """Exit code 130; the next run finds data and training, and makes this step and the later ones."""
    long = recipe_with(tmp_path, step, 500)
    command = [sys.executable, "-m", "compressor.cli", "run", str(long), "--out", str(tmp_path / "out")]
    code, said = interrupted_at(words, command)
    assert code == 130, said
    assert said.strip().splitlines()[-1].endswith("nothing half-written; run the same command again to go on")
    assert "Traceback" not in said
    assert half_written(tmp_path / "out") == []
    assert {path.name.split("-")[0] for path in (tmp_path / "out" / "cache" / "v2").iterdir()} == {"data", "train"}
    outcome = run_recipe(read_recipe(recipe_with(tmp_path, step, 1)), out=tmp_path / "out")
    assert {"data", "train"} <= set(outcome.found)
    assert f"step-{step}" in outcome.ran
    assert outcome.bundles


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.nightly)])
def test_a_training_of_several_processes_that_is_told_to_end_leaves_no_data(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that the processes share are in a temporary folder: it is deleted, and the processes are ended."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("epochs = 1", "epochs = 5000\nprocesses = 2"))
    command = [sys.executable, "-m", "compressor.cli", "run", str(recipe), "--out", str(tmp_path / "out")]
    code, said = interrupted_at(b"loss", command, number)
    assert (code, list((tmp_path / "scratch").iterdir())) == (130, []), said


def fill(folder: Path) -> Path:
    """Write until the disk is full."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return path


def run(recipe: Path, out: Path) -> int:
    """Return the exit code of ``compressor run``."""
    with pytest.raises(SystemExit) as stop:
        main(["run", str(recipe), "--out", str(out)])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.mark.parametrize("where", ["the results", "the temporary files too"])
def test_a_disk_that_is_full_when_a_step_ends_stops_the_run_and_no_more(
    where: str, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4 and one line with a code; with room again the same command resumes after the training and passes."""
    out = small_disk / "out"
    assert run(recipe_with(tmp_path, "prune", 1), out) == 0
    trained = sorted((out / "cache").glob("*/train-*"))
    (out / "tiny-1-host.tfb").unlink()
    if where == "the temporary files too":
        monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    filler, other = fill(small_disk), recipe_with(tmp_path, "prune", 2)
    assert run(other, out) == 4
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error [")
    assert "No space left on device" in line
    assert half_written(out) == []
    filler.unlink()
    assert run(other, out) == 0
    assert (out / "tiny-1-host.tfb").exists()
    assert sorted((out / "cache").glob("*/train-*")) == trained


def killed_when(command: list[str], pattern: str, out: Path, wait_s: float) -> bool:
    """Kill ``command`` ``wait_s`` after a file of ``pattern`` appears below ``out``; return whether it still ran."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline_s = time.monotonic() + 4 * SILENT_S
    while process.poll() is None and time.monotonic() < deadline_s and not list(out.rglob(pattern)):
        time.sleep(0.02)
    time.sleep(wait_s)
    still = process.poll() is None
    if still:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return still


def test_a_run_killed_twice_comes_to_the_same_bytes(tmp_path: Path) -> None:
    """Once within the training, once within the step after it; bundle and weights are those of a run that was not."""
    recipe = recipe_with(tmp_path, "prune", 6)
    recipe.write_text(recipe.read_text().replace("epochs = 1\n", "epochs = 8\n", 1))
    whole, out = tmp_path / "whole", tmp_path / "out"
    command = [sys.executable, "-m", "compressor.cli", "run", str(recipe), "--out", str(out)]
    draw = np.random.default_rng(8)
    assert killed_when(command, "training-*.part", out, draw.uniform(0.05, 0.5))
    assert list(out.rglob("training-*"))
    assert killed_when(command, "train-*", out, draw.uniform(0.3, 1.0))
    assert not list(out.rglob("*.tfb"))
    assert run(recipe, out) == run(recipe, whole) == 0
    assert (out / "float.pt").read_bytes() == (whole / "float.pt").read_bytes()
    assert (out / "tiny-1-host.tfb").read_bytes() == (whole / "tiny-1-host.tfb").read_bytes()
    assert [path for path in half_written(out) if path.suffix != ".tfb"] == []
