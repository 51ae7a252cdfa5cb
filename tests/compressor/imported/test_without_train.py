"""A run that only imports a model trains nothing, and asks for no train rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressor.data._split import WITHOUT_TRAIN
from compressor.errors import RecipeError, SplitError
from compressor.gates.evidence import Verdict
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from tests.compressor.imported import colours
from wire.bundle import REFERENCE, read_bundle
from wire.reference import read_reference


def outcome(folder: Path, splits: list[str], **values: str) -> Outcome:
    """Return the result of a run with rows of these ``splits``."""
    (folder / "mine.onnx").write_bytes(colours.network())
    colours.arrays(folder / "data.npz", splits)
    return run_recipe(read_recipe(colours.recipe(folder, **values)), out=folder / "out")


@pytest.mark.parametrize(
    "splits", [["gate", "calibration"], ["gate", "calibration", "reference"]], ids=["two", "three"]
)
def test_an_imported_model_needs_gate_and_calibration_rows_only(tmp_path: Path, splits: list[str]) -> None:
    """It passes, and report and certificate tell where the edges of the drift reference come from."""
    done = outcome(tmp_path, splits)
    assert done.verdict is Verdict.PASS
    assert f"There were {WITHOUT_TRAIN}." in done.targets[0].remarks
    reference = read_reference(read_bundle(done.bundles[0]).files[REFERENCE])
    assert reference.contexts[0].n > 40
    assert all(np.isfinite(edges).all() for edges in reference.edges)


def test_an_imported_model_for_another_runtime_needs_no_train_rows_either(tmp_path: Path) -> None:
    """It becomes a network, but nothing trains it."""
    pytest.importorskip("litert_torch")
    done = outcome(tmp_path, ["gate", "calibration"], runtime="litert")
    assert done.verdict is Verdict.PASS


def test_a_step_that_trains_asks_for_train_rows(tmp_path: Path) -> None:
    """Distillation learns from them: without any it ends before the training, by name."""
    step = '[[compress]]\nstep = "distill"\nepochs = 1\n[[compress]]\nstep = "quantize"'
    with pytest.raises(SplitError, match="Expected rows in the train split, got none"):
        outcome(tmp_path, ["gate", "calibration"], more=step)


def test_a_share_of_nothing_for_training_is_for_imported_models_only(tmp_path: Path) -> None:
    """Without a split in the data set no row need be drawn for a training; a recipe that trains is refused."""
    shares = "shares = {train = 0, calibration = 0.2, gate = 0.5, reference = 0.3}"
    data = f'dataset = "arrays"\npath = "data.npz"\n{shares}'
    assert outcome(tmp_path, ["gate"], data=data).verdict is Verdict.PASS
    path = colours.recipe(tmp_path, data=data)
    path.write_text(path.read_text().replace('onnx = "mine.onnx"', ""))
    with pytest.raises(RecipeError, match="train = 0 is for an imported model"):
        read_recipe(path)
