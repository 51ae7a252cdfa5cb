"""``[data] calibration``: an array of a person's own sets the ranges, in both forms, and is in the lineage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from compressor.data._calibration import opened
from compressor.errors import ArchiveError, CompressorError, DataError, RecipeError
from compressor.gates.evidence import Verdict
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from edge_agent.inference import preprocess
from tests.compressor.imported import colours
from tests.compressor.imported.test_unlabelled import UNLABELLED, written
from wire.bundle import read_bundle
from wire.canonical import sha256_file
from wire.manifest import Preprocessing

PRE = Preprocessing(width=6, height=4, mean=(0.5,), std=(0.25,))
INPUTS = np.random.default_rng(0).normal(size=(5, 3, 4, 6)).astype(np.float32)


def saved(folder: Path, values: object) -> Path:
    """Write an array."""
    np.save(folder / "x.npy", np.asarray(values))
    return folder / "x.npy"


def calibrated(folder: Path, values: object, **more: str) -> Outcome:
    """Return the result of a run whose ranges come from ``values``."""
    folder.mkdir()
    saved(folder, values)
    path = written(folder, colours.network(), data=f'{UNLABELLED}\ncalibration = "x.npy"', **more)
    return run_recipe(read_recipe(path), out=folder / "out")


def model_of(done: Outcome) -> bytes:
    """Return the file in the only bundle."""
    bundle = read_bundle(done.bundles[0])
    return bundle.files[bundle.manifest.artifact]


def test_pictures_and_the_inputs_made_of_them_give_one_file(tmp_path: Path) -> None:
    """Byte for byte; the array's digest stands in the lineage, and other ranges are another file."""
    images = np.stack(colours.pictures(120)[0])
    first = calibrated(tmp_path / "a", images)
    assert first.verdict is Verdict.PASS
    assert first.lineage["calibration"] == sha256_file(tmp_path / "a" / "x.npy")
    recipe = read_recipe(tmp_path / "a" / "recipe.toml")
    pre = read_bundle(first.bundles[0]).manifest.preprocessing
    second = calibrated(tmp_path / "b", preprocess.to_batch(list(images), pre))
    assert model_of(first) == model_of(second)
    assert recipe.data.calibration == "x.npy"
    assert "The ranges of a quantization come from the 120 inputs of x.npy." in first.targets[0].remarks
    assert not [said for said in first.targets[0].remarks if "preprocessed otherwise" in said]
    other = calibrated(tmp_path / "c", images // 4)
    assert [said for said in other.targets[0].remarks if "preprocessed otherwise" in said]
    assert other.verdict is not Verdict.PASS or model_of(other) != model_of(first)
    assert other.lineage["calibration"] != first.lineage["calibration"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_inputs_of_either_layout_are_told_by_their_shape(tmp_path: Path, layout: str) -> None:
    """And are given in the one that a format has."""
    given = opened(saved(tmp_path, INPUTS if layout == "NCHW" else INPUTS.transpose(0, 2, 3, 1)), PRE)
    assert np.array_equal(np.concatenate(list(given.batches())), INPUTS)
    assert np.array_equal(np.concatenate(list(given.batches("NHWC"))), INPUTS.transpose(0, 2, 3, 1))


def test_memory_does_not_grow_with_the_inputs(tmp_path: Path) -> None:
    """They are read in pieces."""
    given = opened(saved(tmp_path, np.tile(INPUTS, (20, 1, 1, 1))), PRE)
    sizes = [len(piece) for piece in given.batches()]
    assert (sum(sizes), max(sizes) <= 32) == (100, True)


BROKEN = INPUTS.copy()
BROKEN[3, 1, 2, 0] = np.inf


@pytest.mark.parametrize(
    ("values", "changes", "error", "said"),
    [
        (BROKEN, {}, DataError, "finite numbers in .*x.npy, got others in row 3"),
        (
            INPUTS[:, :2],
            {},
            DataError,
            r"inputs \(N, 3 x 4 x 6\) of float32, .* got float32 \(5, 2, 4, 6\)",
        ),
        (INPUTS[0], {}, DataError, r"got float32 \(3, 4, 6\): one input is x\[None\]"),
        (INPUTS[:0], {}, DataError, "at least one input"),
        (INPUTS.astype(np.int64), {}, DataError, "got int64"),
        (np.zeros((2, 4, 6, 5), np.uint8), {}, DataError, "pictures .* put the channels last"),
        (np.zeros((2, 3, 4, 6), np.uint8), {}, DataError, r"got \(2, 3, 4, 6\): put the channels last"),
        (np.zeros((2, 4, 6, 3), np.uint8), {"front_end": "log_mel"}, DataError, "with front_end 'log_mel', got uint8"),
        (np.zeros((2, 4, 6, 3), np.uint8), {"colour": "grey", "bits": 16}, DataError, "with bits = 16, got uint8"),
        (np.array([{}]), {}, ArchiveError, "Python objects"),
    ],
)
def test_an_array_that_does_not_fit_is_named(
    tmp_path: Path, values: object, changes: Mapping[str, object], error: type[CompressorError], said: str
) -> None:
    """Before anything is trained."""
    pre = Preprocessing(**{"width": 6, "height": 4, "mean": (0.5,), "std": (0.25,), **changes})  # type: ignore[arg-type]
    with pytest.raises(error, match=said):
        opened(saved(tmp_path, values), pre)


@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY\x01\x00", b"PK"])
def test_a_file_that_is_no_array_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, cut off, or of another kind."""
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"Expected (an|a NumPy) array"):
        opened(tmp_path / "x.npy", PRE)


def test_a_missing_array_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """A folder too."""
    with pytest.raises(ArchiveError, match=r"No such file or directory: a relative path begins at the recipe's folder"):
        opened(tmp_path / "x.npy", PRE)
    with pytest.raises(ArchiveError, match=r"Is a directory: a relative path begins"):
        opened(tmp_path, PRE)


@pytest.mark.parametrize(("factor", "offset", "like"), [(1, 0, True), (1.5, 0.2, True), (255, 0, False), (0, 0, False),
                                                       (1, 9, False), (1, -9, False), (0.2, 0, False)])  # fmt: skip
def test_values_that_the_model_never_gets_are_remarked(
    tmp_path: Path, factor: float, offset: float, *, like: bool
) -> None:
    """Scaled or normalised otherwise, or all zero."""
    given = opened(saved(tmp_path, (INPUTS * factor + offset).astype(np.float32)), PRE)
    assert (given.unlike(INPUTS) == "") == like


def test_inputs_to_calibrate_with_need_a_step_that_does(tmp_path: Path) -> None:
    """They would be passed over."""
    path = written(tmp_path, colours.network(), data=f'{UNLABELLED}\ncalibration = "x.npy"')
    path.write_text(f"compress = []\n{path.read_text()}")
    with pytest.raises(RecipeError, match=r"calibration.*without a step 'quantize'"):
        read_recipe(path)
