"""A disk that is full at any step: exit code 4 and one line, nothing half-written, and the same command resumes."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compressor.cli import main
from compressor.errors import CompressorError, LedgerError
from compressor.gates.evidence import GateRecipe
from compressor.gates.looks import Look
from compressor.progress import Silent, StageProgress
from compressor.recipe.read import read_recipe
from compressor.run import pipeline
from compressor.run.pipeline import Outcome, run_recipe

pytestmark = pytest.mark.slow
DISK_BYTES = 24_000_000
RECIPE = """[model]
name = "tiny"
network_options = {filters = 4}
[data]
dataset = "labelled_images"
path = "set.zip"
width = 8
height = 8
[train]
epochs = 4
augment = 0.0
[gates]
size_bytes = {max = 1000000}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, 600 small images of two classes and a finished run in ``out``."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for row in range(600):
            image = rng.integers(0, 60, (8, 8, 3)).astype(np.uint8)
            image[:, 4 * (row % 2) : 4 * (row % 2) + 4] += 150
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            archive.writestr(f"{row}.png", buffer.getvalue())
        archive.writestr("labels.csv", "path,label\n" + "".join(f"{row}.png,{row % 2}\n" for row in range(600)))
    (folder / "recipe.toml").write_text(RECIPE)
    assert run_recipe(read_recipe(folder), out=folder / "out").bundles
    return folder


def fill(folder: Path, leave_bytes: int) -> None:
    """Write until the disk is full, then free some bytes."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            os.truncate(path, path.stat().st_size - leave_bytes)


class Filling(Silent):
    """Fills ``disk`` as soon as the stage ``name`` begins."""

    def __init__(self, disk: Path, name: str, leave_bytes: int = 0) -> None:
        """Remember when."""
        self._disk, self._name, self._leave_bytes = disk, name, leave_bytes

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        """Fill the disk if it is time."""
        if name == self._name:
            fill(self._disk, self._leave_bytes)
        with super().stage(name, total, unit) as stage:
            yield stage


def half_written(out: Path) -> list[Path]:
    """Return parts of files below ``out``, and files without content; a lock has none."""
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return [path for path in files if path.name.startswith(".") or not path.stat().st_size]


def again(home: Path, out: Path) -> Outcome:
    """Run the recipe with room."""
    return run_recipe(read_recipe(home), out=out)


STAGES = {
    "data": "data", "train": "train", "export": "export", "clean": "clean", "quantize": "quantize", "float": "predict",
    "measure": "measure", "explain": "explain",
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_in_a_step_is_said_and_the_run_goes_on_from_there(stage: str, home: Path, small_disk: Path) -> None:
    """The steps before are found again, the bundle afterwards is the one of a run that was not disturbed."""
    out = small_disk / "out"
    shutil.copytree(home / "out", out)
    for path in [*out.glob(f"cache/*/{STAGES[stage]}-*"), *out.glob("*.*")]:
        path.unlink()
    with pytest.raises(CompressorError, match="free space"):
        run_recipe(read_recipe(home), out=out, progress=Filling(small_disk, stage))
    assert half_written(out) == []
    assert not list(out.glob("*.tfb"))
    (small_disk / "filler").unlink()
    outcome = again(home, out)
    assert STAGES[stage] in outcome.ran
    assert outcome.bundles[0].read_bytes() == (home / "out" / "tiny-1-host.tfb").read_bytes()


@pytest.mark.parametrize("leave_bytes", [0, 65_536, 1_000_000])
def test_a_full_disk_when_results_are_written_leaves_no_bundle(leave_bytes: int, home: Path, small_disk: Path) -> None:
    """Weights, report, certificate and bundle are whole or not there; the bundle comes last."""
    out = small_disk / "out"
    shutil.copytree(home / "out" / "cache", out / "cache")
    with pytest.raises(CompressorError, match="free space or choose another --out"):
        run_recipe(read_recipe(home), out=out, progress=Filling(small_disk, "write", leave_bytes))
    assert half_written(out) == []
    assert not list(out.glob("*.tfb"))
    (small_disk / "filler").unlink()
    assert again(home, out).bundles[0].read_bytes() == (home / "out" / "tiny-1-host.tfb").read_bytes()


def test_a_full_disk_when_the_look_is_counted_judges_nothing(
    home: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the look in the ledger there is no verdict; with room the run has look 1 and no other."""
    out, read = small_disk / "out", read_recipe(home)
    shutil.copytree(home / "out" / "cache", out / "cache")
    bounded = replace(read, gates=(*read.gates, GateRecipe(name="accuracy_drop", max=0.9)))
    count = pipeline.counted

    def late(*arguments: Any) -> Look:  # noqa: ANN401 - those of the counting
        fill(small_disk, 0)
        return count(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "counted", late)
        with pytest.raises(LedgerError, match="free space"):
            run_recipe(bounded, out=out)
    assert (half_written(out), {path.name for path in out.iterdir()}) == ([], {"cache", ".looks.lock"})
    (small_disk / "filler").unlink()
    made = run_recipe(bounded, out=out)
    assert (made.certificate.look, len(made.bundles)) == (1, 1)


def test_a_full_disk_under_a_search_is_said_and_the_search_goes_on(
    home: Path, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Storage and cache are on it; with room the same command finds its study again."""
    out = small_disk / "out"
    arguments = ["search", str(home / "recipe.toml"), "--out", str(out), "--trials", "2", "--json"]
    fill(small_disk, 16_384)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 4
    assert line.startswith("error [package_invalid]: ")
    assert half_written(out) == []
    (small_disk / "filler").unlink()
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code in {0, 2, 3}
