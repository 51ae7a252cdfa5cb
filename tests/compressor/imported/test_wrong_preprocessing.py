"""An imported model that is right far more often with another usual preprocessing: named, and a default is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compressor.errors import PreprocessingError
from compressor.recipe.model import DataRecipe
from compressor.recipe.read import read_recipe
from compressor.run.pipeline import Outcome, run_recipe
from compressor.run.usual_preprocessing import alternatives
from tests.compressor.imported import colours

COMPARED = '[[compress]]\nstep = "quantize"\nscheme = "none"\n'


def outcome(folder: Path, data: str = "", model: bytes | None = None, *, turned: bool = False) -> Outcome:
    """Return the result of a run whose ``[data]`` has these lines; ``turned``: the file takes blue first."""
    (folder / "mine.onnx").write_bytes(model or colours.network(turned=turned))
    colours.arrays(folder / "data.npz", ["gate", "calibration"])
    path = colours.recipe(folder)
    path.write_text(path.read_text().replace("mean = 0.0\nstd = 1.0", data or "mean = 0.0\nstd = 1.0"))
    return run_recipe(read_recipe(path), out=folder / "out")


def doubts(done: Outcome) -> list[str]:
    """Return the remarks on the preprocessing."""
    return [remark for remark in done.targets[0].remarks if remark.startswith("The preprocessing looks wrong")]


def test_blue_first_is_named(tmp_path: Path) -> None:
    """Red and blue are exchanged: one colour in three is right, and all with the other order."""
    (said,) = doubts(outcome(tmp_path, turned=True))
    assert re.search(r"the file as it came is right on (3|4)\d\.\d % of \d+ calibration rows, ", said)
    assert 'and on 100.0 % with the colours in the order BGR: try colour = "bgr" in [data]' in said


def test_a_wrong_mean_is_named(tmp_path: Path) -> None:
    """The file wants pixels of 0 to 1 and gets them far below 0, where its ReLU ends."""
    (said,) = doubts(outcome(tmp_path, "mean = 5.0\nstd = 1.0"))
    assert (
        "and on 100.0 % with pixels of 0 to 255: try mean = 0, std = 0.00392156" in said
    )  # it has no scale of its own


def bright(folder: Path, reach: float, data: str) -> Path:
    """Write a recipe with ``data`` in ``[data]``: red above a half is bright, .625 with the default scale."""
    rng = np.random.default_rng(0)
    levels = np.round(255 * rng.uniform(max(0, 0.5 - reach), min(1, 0.5 + reach), 600)).astype(np.uint8)
    x = rng.integers(0, 256, (600, colours.SIDE, colours.SIDE, 3), dtype=np.uint8)
    x[..., 0] = levels[:, None, None]
    y, part = (levels > 127).astype(np.int64), np.array(["gate", "calibration"] * 300)
    (folder / "mine.onnx").write_bytes(network_of(np.array([[0, 0, 0], [20, 0, 0]]), np.array([10, 0])))
    np.savez(folder / "data.npz", x=x, y=y, class_names=np.array(["dark", "bright"]), part=part)
    path = colours.recipe(folder, more=COMPARED)
    path.write_text(path.read_text().replace("mean = 0.0\nstd = 1.0\n", data))
    return path


@pytest.mark.parametrize(("reach", "share", "doubted"), [(0.28, 78.2, True), (0.5, 0, False)])
def test_a_wrong_std_of_a_file_that_is_mostly_right_is_named(
    tmp_path: Path, reach: float, share: float, *, doubted: bool
) -> None:
    """A gain that may be below 10 points is not named; what the recipe states, its default too, is taken as meant."""
    path = bright(tmp_path, reach, "mean = 0.5\nstd = 0.25\n")
    said = doubts(run_recipe(read_recipe(path), out=tmp_path / "out"))
    assert bool(said) is doubted
    if doubted:
        assert f"is right on {share} % of 147 calibration rows, and on 100.0 % with pixels of 0 to 1" in said[0]
        assert said[0].endswith("std = 1 in [data]. The recipe states mean and std, which is taken as meant.")


@pytest.mark.parametrize("written", ["", "mean = 0.5\n", "std = 0.25\n"])
def test_a_default_that_is_shown_to_be_wrong_ends_the_run_before_a_look(tmp_path: Path, written: str) -> None:
    """Nobody wrote both: the lines are named, and what they make is the first look at the gate split."""
    lines = r"each on its own line: mean = 0, std = 1; .*mean = 0.5, std = 0.25"
    with pytest.raises(PreprocessingError, match=lines) as stop:
        run_recipe(read_recipe(bright(tmp_path, 0.28, written)), out=tmp_path / "out")
    assert stop.value.code == "preprocessing_wrong"
    assert not {"looks.json", "gate.json"} & {one.name for one in (tmp_path / "out").iterdir()}
    done = run_recipe(read_recipe(bright(tmp_path, 0.28, "mean = 0.0\nstd = 1.0\n")), out=tmp_path / "out")
    assert done.certificate.seen.number == 1
    assert done.bundles


def network_of(weights: NDArray[np.float64], bias: NDArray[np.float64]) -> bytes:
    """Return an ONNX file: the mean of each colour, and one layer."""
    file = onnx.load_from_string(colours.network(outputs=len(bias)))
    del file.graph.node[:3], file.graph.initializer[:]
    file.graph.node.insert(0, helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]))
    layer = {"layer": weights.astype(np.float32), "zeros": bias.astype(np.float32)}
    file.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in layer.items())
    return file.SerializeToString()


def test_a_right_preprocessing_is_not_doubted(tmp_path: Path) -> None:
    """Nor are others tried."""
    done = outcome(tmp_path)
    assert doubts(done) == []
    assert done.targets[0].figures["float_accuracy"] == 1


def test_a_model_that_is_bad_with_every_preprocessing_is_not_explained_by_one(tmp_path: Path) -> None:
    """One answer to everything stays one."""
    assert doubts(outcome(tmp_path, model=colours.network(constant=True))) == []


@pytest.mark.parametrize("data", ['colour = "bgr"\nmean = 0.0\nstd = 1.0'])
def test_a_recipe_that_names_the_order_is_right(tmp_path: Path, data: str) -> None:
    """What the remark asks for mends it."""
    done = outcome(tmp_path, data, turned=True)
    assert doubts(done) == []
    assert done.targets[0].figures["float_accuracy"] == 1


def numbers(folder: Path, data: str) -> str:
    """Return the remarks of a run of a regression: how much red a picture has, on 0 to 1."""
    file = onnx.load_from_string(colours.network())
    del file.graph.node[3:], file.graph.output[:]
    layer = numpy_helper.from_array(np.tile(np.eye(3, 1, dtype=np.float32), (2, 1)) / 2, "mix")
    file.graph.initializer.append(layer)
    file.graph.node.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    file.graph.node.append(helper.make_node("MatMul", ["flat", "mix"], ["values"]))
    file.graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, ["N", 1]))
    (folder / "mine.onnx").write_bytes(file.SerializeToString())
    (folder / "set").mkdir()
    lines = ["path,label"]
    for row, image in enumerate(colours.pictures(240)[0]):
        Image.fromarray(image).save(folder / "set" / f"{row}.png")
        lines.append(f"{row}.png,{image[..., 0].mean() / 255:.6f}")
    (folder / "set" / "labels.csv").write_text("\n".join(lines))
    given = {"data": 'dataset = "labelled_images"\npath = "set"\nlabel = "number"\n'
             "shares = {train = 0, calibration = 0.3, gate = 0.4, reference = 0.3}",
             "gates": "error_increase = {max = 1.0}", "more": COMPARED}  # fmt: skip
    path = colours.recipe(folder, **given)
    path.write_text(path.read_text().replace("mean = 0.0\nstd = 1.0", data))
    return " ".join(run_recipe(read_recipe(path), out=folder / "out").targets[0].remarks)


def test_a_wrong_std_of_a_regression_is_named(tmp_path: Path) -> None:
    """Its values are half of what they should be: nearer with the right one on every row."""
    said = numbers(tmp_path, "mean = 0.0\nstd = 2.0")
    assert re.search(r"looks wrong: the error of the file as it came is \d.* of the values' ordinary deviation", said)
    assert "with pixels of 0 to 1: try mean = 0, std = 1 in [data]" in said


def test_a_right_preprocessing_of_a_regression_is_not_doubted(tmp_path: Path) -> None:
    """The file computes the very values."""
    assert "preprocessing" not in numbers(tmp_path, "mean = 0.0\nstd = 1.0")


@pytest.mark.parametrize(("data", "doubted"), [("mean = 5.0\nstd = 1.0", True), ("mean = 0.0\nstd = 1.0", False)])
def test_one_answer_to_everything_without_labels_is_doubted(tmp_path: Path, data: str, *, doubted: bool) -> None:
    """Nobody knows which answers are right, but with the usual scale they vary."""
    (tmp_path / "mine.onnx").write_bytes(colours.network())
    colours.arrays(tmp_path / "data.npz", ["gate"])
    np.save(tmp_path / "in.npy", np.load(tmp_path / "data.npz")["x"])
    given = {"model": 'labels = ["red", "green", "blue"]', "data": 'unlabelled = "in.npy"'}
    path = colours.recipe(tmp_path, gates="flip_ratio = {max = 0.5}", more=COMPARED, **given)
    path.write_text(path.read_text().replace("mean = 0.0\nstd = 1.0", data))
    said = " ".join(run_recipe(read_recipe(path), out=tmp_path / "out").targets[0].remarks)
    found = re.search(r"may be wrong: the file as it came gives one answer to 100.0 % of \d+ calibration rows", said)
    assert bool(found) is doubted
    assert ("with pixels of 0 to 255: try mean = 0" in said) is doubted


def test_the_numbers_of_each_channel_follow_the_order_of_the_colours() -> None:
    """Grey pictures have no order, and no ImageNet."""
    grey = dict(alternatives(DataRecipe(colour="grey")))
    assert list(grey) == ["pixels of 0 to 255", "pixels of 0 to 1", "pixels of -1 to 1"]
    own = dict(alternatives(DataRecipe(mean=(0.1, 0.2, 0.3), colour="bgr")))
    assert own["the colours in the order RGB"] == {"colour": "rgb", "mean": (0.3, 0.2, 0.1)}
    assert own["ImageNet's mean and std"]["mean"] == (0.485, 0.456, 0.406)
