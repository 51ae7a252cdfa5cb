"""A classifier whose int8 file is noise and fails its gates: the verdict names the line of the recipe that mends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compressor.gates.certificate import Certificate
from compressor.recipe.read import read_recipe
from compressor.run.compression import written
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


def rescaled(loud: float) -> bytes:
    """Return a file of two convolutions: a channel between them is ``loud`` times as large as it was."""
    file = onnx.load_from_string(colours.network())
    held = {one.name: numpy_helper.to_array(one).copy() for one in file.graph.initializer}
    mixed = np.eye(6, dtype=np.float32)[:, :, None, None]
    held["kernel"][0], mixed[:, 0] = loud * held["kernel"][0], mixed[:, 0] / loud
    held |= {"mixed": mixed, "none": np.zeros(6, np.float32)}
    del file.graph.initializer[:]
    file.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in held.items())
    file.graph.node.insert(2, helper.make_node("Conv", ["active", "mixed", "none"], ["second"]))
    file.graph.node.insert(3, helper.make_node("Relu", ["second"], ["shown"]))
    file.graph.node[4].input[0] = "shown"
    onnx.checker.check_model(file)
    return file.SerializeToString()


QUANTIZED = '[[compress]]\nstep = "quantize"\n'


def remarks(folder: Path, loud: float, gate: str = "accuracy_drop = {max = 0.02}") -> list[str]:
    """Return the remarks on noise of a run with static int8."""
    (folder / "mine.onnx").write_bytes(network(loud))
    colours.arrays(folder / "data.npz", ["gate", "calibration"])
    path = colours.recipe(folder, more=QUANTIZED, gates=gate)
    return noisy(run_recipe(read_recipe(path), out=folder / "out").targets[0])


def noisy(target: Certificate) -> list[str]:
    """Return the remarks of ``target`` on noise."""
    return [one for one in target.remarks if "Noise of" in one]


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


def test_equalizing_is_named_first_where_it_suffices(tmp_path: Path) -> None:
    """Channels of far apart sizes need no wider scheme; what is named leaves the answers."""
    (tmp_path / "mine.onnx").write_bytes(rescaled(3000))
    colours.arrays(tmp_path / "data.npz", ["gate", "calibration", "train"])
    (said,) = noisy(run_recipe(read_recipe(colours.recipe(tmp_path, more=QUANTIZED)), out=tmp_path / "out").targets[0])
    assert ' of 20 wanted. Before the [[compress]] step quantize write another, step = "equalize": that leaves ' in said
    path = colours.recipe(tmp_path, more=f'[[compress]]\nstep = "equalize"\n{QUANTIZED}')
    mended = run_recipe(read_recipe(path), out=tmp_path / "out").targets[0]
    assert noisy(mended) == []
    assert mended.figures["accuracy"] == 1


@pytest.mark.parametrize("on", ["", 'on = "host"\n'])
def test_two_targets_have_one_line_or_a_step_each(tmp_path: Path, on: str) -> None:
    """One line for both where one step is for both; a target that no step is for is told so."""
    (tmp_path / "mine.onnx").write_bytes(network(2000))
    colours.arrays(tmp_path / "data.npz", ["gate", "calibration"])
    path = colours.recipe(tmp_path, more=f"[targets.other]\nthreads = 2\n{QUANTIZED}{on}")
    host, other = run_recipe(read_recipe(path), out=tmp_path / "out").targets
    (said,) = noisy(host if host.target == "host" else other)
    with_on = ' with on = "host"' if on else ""
    assert f'In the [[compress]] step quantize{with_on} write scheme = "weight_int8": that leaves ' in said
    left = [
        one for one in (host.remarks + other.remarks) if one.startswith("No [[compress]] step quantize is for other")
    ]
    assert bool(left) is bool(on)


def test_schemes_that_differ_are_a_step_for_each_target() -> None:
    """Both targets are told the same two steps, which can be written as they stand."""
    told = written({"host": "dynamic_int8", "pi": "float16"})
    assert told == (
        'In place of the [[compress]] step quantize write one for each target, alike but for scheme = "dynamic_int8", '
        'on = "host"; scheme = "float16", on = "pi"'
    )
    assert written({"pi": "float16", "host": "float16"}) == 'In the [[compress]] step quantize write scheme = "float16"'
    assert written({"pi": "float16"}, "pi").startswith('In the [[compress]] step quantize with on = "pi" write')
