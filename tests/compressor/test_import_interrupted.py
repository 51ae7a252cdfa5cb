"""An imported file while a disk is full or a person stops: nothing half-written, and the same command resumes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compressor import networks
from compressor.errors import CompressorError
from compressor.export.onnx import export_onnx
from compressor.progress import Silent, StageProgress
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from tests.compressor.test_disk_full import Filling, half_written
from tests.compressor.test_disk_full import home as home  # noqa: PLC0414 - a fixture of that file

pytestmark = pytest.mark.slow
DISK_BYTES = 24_000_000
RECIPE = """[model]
name = "tiny"
onnx = "mine.onnx"
allow_constant = "nothing was trained: the file is about to be cut short, not judged"
[data]
dataset = "labelled_images"
path = "set.zip"
width = 8
height = 8
[[compress]]
step = "prune"
macs_ratio = 0.9
rounds = 1
round_to = 1
fine_tune_epochs = 1
[gates]
size_bytes = {max = 1000000}
[targets.host]
runtime = "onnx"
[targets.pi]
runtime = "litert"
"""
STAGES = {"clean": "clean", "import": "import"}


class Stopping(Silent):
    """Stops the program in the stage ``name``, when it begins or when its work is done."""

    def __init__(self, name: str, *, late: bool) -> None:
        """Remember when."""
        self._name, self._late = name, late

    @contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[StageProgress]:
        """Be stopped if it is time."""
        if name == self._name and not self._late:
            raise KeyboardInterrupt
        with super().stage(name, total, unit) as stage:
            yield stage
            if name == self._name:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def imported(home: Path) -> Path:
    """A folder with an ONNX file, 600 small images, a recipe that prunes and converts it, and a finished run."""
    pytest.importorskip("litert_torch")
    network = networks.build("resnet8", 2, 3, 8, 8, {"filters": 4})
    (home / "mine.onnx").write_bytes(export_onnx(network, 3, 8, 8))
    (home / "imported.toml").write_text(RECIPE)
    assert run_recipe(read_recipe(home / "imported.toml"), out=home / "imported").bundles
    return home


def without(imported: Path, out: Path, stage: str) -> None:
    """Copy the finished run to ``out`` without the results and the files of ``stage``."""
    shutil.copytree(imported / "imported", out)
    for path in [*out.glob(f"cache/*/{STAGES[stage]}-*"), *out.glob("*.*")]:
        path.unlink()


def as_before(imported: Path, out: Path) -> Outcome:
    """Run it again, and compare the bundles with those of the run that was not disturbed."""
    outcome = run_recipe(read_recipe(imported / "imported.toml"), out=out)
    wanted = {path.name: path.read_bytes() for path in (imported / "imported").glob("*.tfb")}
    assert {path.name: path.read_bytes() for path in outcome.bundles} == wanted
    return outcome


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_while_a_file_is_imported_is_said(stage: str, imported: Path, small_disk: Path) -> None:
    """One coded error; with room again the run goes on from there."""
    out = small_disk / "out"
    without(imported, out, stage)
    with pytest.raises(CompressorError, match="free space"):
        run_recipe(read_recipe(imported / "imported.toml"), out=out, progress=Filling(small_disk, stage))
    assert half_written(out) == []
    assert not list(out.glob("*.tfb"))
    (small_disk / "filler").unlink()
    assert STAGES[stage] in as_before(imported, out).ran


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_a_person_who_stops_the_import_loses_one_step(
    stage: str, imported: Path, tmp_path: Path, *, late: bool
) -> None:
    """Nothing of the step is kept, and nothing else is lost."""
    out = tmp_path / "out"
    without(imported, out, stage)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(read_recipe(imported / "imported.toml"), out=out, progress=Stopping(stage, late=late))
    assert half_written(out) == []
    assert not list(out.glob("*.tfb"))
    assert STAGES[stage] in as_before(imported, out).ran
