"""No stage of a run holds its data: with next to no memory for it, few images are alive, and every byte is the same."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest

from compressor.data import _stored_images as stored_images
from compressor.data._inputs import Floats, LazyInputs
from compressor.data._stored_images import Image, PixelFile, StoredImages
from compressor.data._table import make_table
from compressor.exploration.duplicates import with_near_sources
from compressor.exploration.explore import explore
from compressor.progress import Silent
from compressor.recipe.read import parse_recipe
from compressor.run import stages
from compressor.run.pipeline import run_recipe
from compressor.run.stages import Run

RECIPE = b"""
[model]
name = "tiny"
network = "resnet8"
network_options = {filters = 4, stem_stride = 2}
[data]
dataset = "digits"
[train]
epochs = 2
early_stopping = 1
augment = 1.0
mixup = 0.2
[[compress]]
step = "prune"
rounds = 1
round_to = 1
macs_ratio = 0.8
fine_tune_epochs = 1
importance = "taylor"
[[compress]]
step = "distill"
epochs = 1
[[compress]]
step = "equalize"
allow_unchanged = true
[[compress]]
step = "qat"
max_steps = 2
allow_unchanged = true
[[compress]]
step = "quantize"
[targets.host]
runtime = "onnx"
[gates]
size_bytes = {max = 1000000}
"""
MOST_ALIVE = 2 * 256 + 2
"""Two batches: one that a model still holds, and the next one being made."""
MOST_MADE = 256
"""Inputs of one array: those of a batch, of the rows that are timed, of golden vectors."""


class Alive:
    """Counts the images that were read and are still there; ``made``: the most inputs of one array."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.now = self.most = self.read = self.made = 0

    def add(self, image: Image) -> Image:
        """Count ``image`` until it is gone."""
        weakref.finalize(image, self._gone)
        self.now, self.read = self.now + 1, self.read + 1
        self.most = max(self.most, self.now)
        return image

    def batch(self, inputs: Floats) -> Floats:
        """Count the rows of ``inputs``."""
        self.made = max(self.made, len(inputs))
        return inputs

    def _gone(self) -> None:
        self.now -= 1


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> Alive:
    """Keep no image in memory and count those that are read."""
    counted, read, joined, some = Alive(), PixelFile.read, Run.joined, LazyInputs.__getitem__
    monkeypatch.setattr(Run, "joined", lambda *given, **named: counted.batch(joined(*given, **named)))
    monkeypatch.setattr(LazyInputs, "__getitem__", lambda self, rows: counted.batch(some(self, rows)))
    monkeypatch.setattr(PixelFile, "read", lambda self, start, shape: counted.add(read(self, start, shape)))
    monkeypatch.setattr(stored_images, "HELD_BYTES", 0)
    monkeypatch.setattr(stages, "HELD_INPUT_BYTES", 0)
    return counted


def test_a_count_sees_who_holds_everything(alive: Alive) -> None:
    """The measure of this file can fail: a list of all images counts them all."""
    images = stored_images.kept([np.zeros((4, 4, 3), np.uint8)] * (MOST_ALIVE + 1)).images
    assert isinstance(images, StoredImages)
    held = list(images)
    assert alive.most == len(held) > MOST_ALIVE


def test_near_copies_and_exploration_hold_one_picture(alive: Alive) -> None:
    """Each walk reads a picture, looks at it and lets it go."""
    rng = np.random.default_rng(0)
    images = (rng.integers(0, 256, (12, 12, 3), dtype=np.uint8) for _ in range(200))
    table = make_table(images, [str(row % 2) for row in range(200)], slices=["s"] * 200)
    explore(with_near_sources(table, Silent()), Silent())
    assert alive.read >= 3 * 200
    assert alive.most <= 3


@pytest.mark.slow
def test_a_run_without_memory_for_data_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Training, five steps, calibration, gates, reference, golden rows, report."""
    recipe = parse_recipe(RECIPE)
    monkeypatch.chdir(tmp_path)
    held = run_recipe(recipe, out=tmp_path / "held")
    counted: Alive = request.getfixturevalue("alive")
    lean = run_recipe(recipe, out=tmp_path / "lean")
    assert lean.bundles[0].read_bytes() == held.bundles[0].read_bytes()
    assert lean.checkpoint.read_bytes() == held.checkpoint.read_bytes()
    assert counted.read > 10 * MOST_ALIVE
    assert counted.most <= MOST_ALIVE
    assert 16 < counted.made <= MOST_MADE
