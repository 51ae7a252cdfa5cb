"""The inputs of steps: a calibration set without ranges is refused before anything is trained."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.cli import main
from compressor.data._table import make_table
from compressor.errors import DataError
from compressor.run.compression import Lesson, check_calibration

RECIPE = '[model]\nname = "m"\n[data]\ndataset = "labelled_images"\npath = "set.zip"\nslices = "site"\n'
SHARES = "shares = {train = 0.6, calibration = 0.2, gate = 0.1, reference = 0.1}\n"


def image(seed: int) -> np.ndarray:
    """Return a seeded image, uint8 (8, 8, 3)."""
    return np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)


def image_set(path: Path, names: list[str]) -> None:
    """Write a zip of one image for each class name."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.csv", "path,label,site\n" + "".join(f"{i}.png,{n},x\n" for i, n in enumerate(names)))
        for i in range(len(names)):
            buffer = io.BytesIO()
            Image.fromarray(image(i)).save(buffer, "PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())


def test_a_calibration_set_of_one_class_stops_the_run_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The class and the number of rows are named, with the next step; no bundle and no weights are written."""
    (tmp_path / "recipe.toml").write_text(RECIPE + SHARES)
    image_set(tmp_path / "set.zip", ["day", "day", "night", "night"] + ["day"] * 57)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 4
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error [data_invalid]: Expected calibration rows of 2 classes or more, got ")
    assert line.endswith(" of day: add sources of the other classes, or give calibration more of [data] shares")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(("train", "m-", "float"))]


def test_the_drifted_rows_of_a_retraining_count() -> None:
    """Two tables of one class each are two classes."""
    table = make_table([image(0), image(1)], ["day", "night"], slices=["x", "x"])
    parts = [table.take(np.array([row])) for row in (0, 1)]
    check_calibration(parts)
    assert Lesson([table], parts, table).calibration == parts


def test_inputs_without_labels_are_part_of_what_a_step_learns_from() -> None:
    """Other ones make another result: it is not taken from the cache."""
    table = make_table([image(0), image(1)], ["day", "night"], slices=["x", "x"])
    given = (None, table, table.take(np.array([0])))
    assert len({Lesson([table], [table], table, unlabelled=one).digest() for one in given}) == 3


@pytest.mark.parametrize("rows", [[], [0]])
def test_a_lesson_without_two_classes_to_calibrate_on_can_not_be_made(rows: list[int]) -> None:
    """Every constructor call makes the same check."""
    table = make_table([image(0), image(1)], ["day", "night"], slices=["x", "x"])
    with pytest.raises(DataError, match="of none" if not rows else "1 of day"):
        Lesson([table], [table.take(np.array(rows, dtype=np.int64))], table)
