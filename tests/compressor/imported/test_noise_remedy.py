"""A classifier whose int8 file is noise and fails its gates: the verdict names the line of the recipe that mends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compressor.recipe.read import read_recipe
from compressor.run.pipeline import run_recipe
from tests.compressor.imported import colours


def network(loud: float) -> bytes:
    """Return a file whose hidden numbers have one that is ``loud`` times as large as the others, and is not used."""
    file = onnx.load_from_string(colours.network())
    del file.graph.node[4:]
    up, down = np.zeros((6, 4), np.float32), np.zeros((4, 3), np.float32)
    up[:3, :3], up[:, 3], down[:3] = np.eye(3), loud, 20 * np.eye(3)
    file.graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in (("up", up), ("down", down)))
    file.graph.node.extend(
        [
            helper.make_node("MatMul", ["flat", "up"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["shown"]),
            helper.make_node("MatMul", ["shown", "down"], ["logits"]),
        ]
    )
    onnx.checker.check_model(file)
    return file.SerializeToString()


def remarks(folder: Path, loud: float, gate: str = "accuracy_drop = {max = 0.02}") -> list[str]:
    """Return the remarks on noise of a run with static int8."""
    (folder / "mine.onnx").write_bytes(network(loud))
    colours.arrays(folder / "data.npz", ["gate", "calibration"])
    path = colours.recipe(folder, more='[[compress]]\nstep = "quantize"\n', gates=gate)
    return [one for one in run_recipe(read_recipe(path), out=folder / "out").targets[0].remarks if "Noise of" in one]


def test_the_scheme_that_keeps_the_answers_is_named_with_what_it_leaves(tmp_path: Path) -> None:
    """Measured, not believed: a range for each input is no remedy here, weights of 8 bits alone are."""
    (said,) = remarks(tmp_path, 2000)
    assert said.startswith("Noise of static_int8 leaves logits ")
    assert ' of 20 wanted. In the [[compress]] step quantize write scheme = "weight_int8": that leaves ' in said
    assert " bytes instead of " in said


@pytest.mark.parametrize(("loud", "gate"), [(1.0, "accuracy = {min = 1.0}"), (60, "accuracy = {min = 0.01}")])
def test_nothing_is_said_without_noise_or_of_a_release_that_passes(tmp_path: Path, loud: float, gate: str) -> None:
    """The gate fails for another reason, or it does not fail."""
    assert remarks(tmp_path, loud, gate) == []
