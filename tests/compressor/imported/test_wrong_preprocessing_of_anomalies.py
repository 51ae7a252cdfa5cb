"""A file of anomalies with another preprocessing than that of its training: named by its residual, or as unknowable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.progress import Silent
from compressor.recipe.read import read_recipe
from compressor.run import imported_model
from compressor.run.pipeline import material_of, opened
from compressor.run.usual_preprocessing import remark
from tests.compressor import foreign_scores as foreign

ROWS = 200
RECIPE = """
[model]
name = "odd"
onnx = "odd.onnx"
outputs = "{outputs}"
[data]
dataset = "arrays"
task = "anomaly"
path = "pictures.npz"
normal = ["usual"]
colour = "grey"
width = 16
height = 16
{scale}
shares = {{train = 0.3, calibration = 0.4, gate = 0.2, reference = 0.1}}
[alarm]
interval_s = 2400.0
[[compress]]
step = "quantize"
scheme = "none"
[targets.host]
[gates]
auc = {{min = 0.5}}
"""
UNIT, BYTES, OURS = "mean = 0.0\nstd = 1.0", "mean = 0.0\nstd = 0.00392156862745098", "mean = 0.5\nstd = 0.25"


def said_of(folder: Path, model: bytes, outputs: str, scale: str, rows: int = ROWS) -> str:
    """Return the remark on ``model`` with ``scale`` in ``[data]``, by at most ``rows`` rows of calibration."""
    rng = np.random.default_rng(0)
    pictures = np.stack([foreign.picture(rng, odd=False) for _ in range(ROWS)])
    np.savez(folder / "pictures.npz", x=pictures, y=np.zeros(ROWS, np.int64), class_names=np.array(["usual"]))
    (folder / "odd.onnx").write_bytes(model)
    (folder / "recipe.toml").write_text(RECIPE.format(outputs=outputs, scale=scale))
    run = opened(read_recipe(folder / "recipe.toml"), folder / "out", Silent())
    run = replace(run, material=material_of(run, None, None))
    calibration = run.rows("calibration")
    _, start = imported_model.opened(run, [calibration])
    return remark(run, start.candidate, calibration.take(np.arange(min(rows, len(calibration)))))


def file_of(nodes: list[onnx.NodeProto], size: tuple[int, ...], **tensors: np.ndarray) -> bytes:
    """Return an ONNX file with input ``x`` and output ``said`` of ``size``."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        for name, shape in (("x", (1, foreign.SIDE, foreign.SIDE)), ("said", size))
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def linear() -> bytes:
    """Return an auto-encoder without a mean: half of the input, in whatever scale."""
    return file_of([helper.make_node("Mul", ["x", "half"], ["said"])], (1, 16, 16), half=np.float32([0.98]))


def forecast() -> bytes:
    """Return the last row but one as a forecast of the last, without numbers below 0."""
    starts, ends, axes = (np.array([value]) for value in (-2, -1, 2))
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["before"]),
        helper.make_node("Relu", ["before"], ["said"]),
    ]
    return file_of(nodes, (1, 1, foreign.SIDE), starts=starts, ends=ends, axes=axes)


@pytest.mark.parametrize("scale", [BYTES, OURS])
def test_the_scale_in_which_the_residual_is_small_is_named(tmp_path: Path, scale: str) -> None:
    """The file knows the mean of pictures of 0 to 1: in another unit it adds the wrong one."""
    said = said_of(tmp_path, foreign.auto_encoder(), "reconstruction", scale)
    assert said.startswith("The preprocessing looks wrong: the squared error of the picture that the file as it came")
    assert "times with pixels of 0 to 1: try mean = 0, std = 1 in [data]" in said


def test_a_mean_of_one_s_own_data_is_named(tmp_path: Path) -> None:
    """No usual preprocessing fits, but the mean and std of the rows do."""
    file = onnx.load_from_string(foreign.auto_encoder())
    file.graph.node.insert(0, helper.make_node("Mul", ["x", "spread"], ["plain"]))
    file.graph.node.insert(1, helper.make_node("Add", ["plain", "centre"], ["unit"]))
    file.graph.node[2].input[0], file.graph.node[-1].output[0] = "unit", "unit_said"
    file.graph.node.append(helper.make_node("Sub", ["unit_said", "centre"], ["centred"]))
    file.graph.node.append(helper.make_node("Div", ["centred", "spread"], ["said"]))
    for name, value in {"centre": 0.369, "spread": 0.113}.items():
        file.graph.initializer.append(numpy_helper.from_array(np.float32([value]), name))
    said = said_of(tmp_path, file.SerializeToString(), "reconstruction", OURS)
    assert "with these rows' own mean and std: try mean = 0.3" in said


@pytest.mark.parametrize(
    ("model", "outputs", "scale"),
    [
        (foreign.auto_encoder(), "reconstruction", UNIT),
        (linear(), "reconstruction", OURS),
        (forecast(), "forecast", UNIT),
        (forecast(), "forecast", BYTES),
    ],
)
def test_a_scale_in_which_nothing_is_wrong_is_not_accused(
    tmp_path: Path, model: bytes, outputs: str, scale: str
) -> None:
    """Nor is one of several that are alike, such as any of a linear file."""
    assert said_of(tmp_path, model, outputs, scale) == ""


def test_a_forecast_is_judged_by_the_step_before_it(tmp_path: Path) -> None:
    """Half of the numbers are below 0 with our default, where this file has none."""
    said = said_of(tmp_path, forecast(), "forecast", OURS)
    assert "the squared error of the forecast that the file as it came makes is" in said
    assert "times that of repeating the last step before it on 73 calibration rows, and 1 times with pixels" in said


@pytest.mark.parametrize(("rows", "enough"), [(5, 20), (20, 0)])
def test_few_rows_say_how_many_could_show_it(tmp_path: Path, rows: int, enough: int) -> None:
    """With the number; with so many it is shown."""
    said = said_of(tmp_path, foreign.auto_encoder(), "reconstruction", OURS, rows)
    wanted = f"can't be shown on so few rows, about {enough} could" if enough else "looks wrong"
    assert wanted in said
    assert "mean = 0, std = 1" in said


def test_a_file_that_no_preprocessing_explains_is_said(tmp_path: Path) -> None:
    """Its picture is further from the input than the mean picture, with every alternative."""
    wrong = file_of([helper.make_node("Neg", ["x"], ["said"])], (1, 16, 16))
    said = said_of(tmp_path, wrong, "reconstruction", UNIT)
    assert said.startswith("The preprocessing may be wrong: ")
    assert "no usual one makes it far smaller" in said


@pytest.mark.parametrize(
    ("model", "outputs", "what"),
    [(foreign.own_score(), "score", "score"), (foreign.classifier(embedding=True), "embedding", "distance")],
)
def test_a_score_and_a_distance_can_not_show_it(tmp_path: Path, model: bytes, outputs: str, what: str) -> None:
    """There is nothing to compare with, which is said."""
    said = said_of(tmp_path, model, outputs, UNIT)
    assert said.startswith(f"Whether the preprocessing is that of the training can't be shown: a {what} has nothing")
