"""Rows of features from a recipe of the clone to an answer, and a model of such rows that is brought along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from compressor.api import RunResult, run
from compressor.data import load
from compressor.recipe.read import read_recipe
from edge_agent.api import open_bundle
from edge_agent.errors import SensorError

pytestmark = pytest.mark.slow
MODEL = Path(__file__).resolve().parents[2] / "models" / "biopsies" / "recipe.toml"
ROW = load_breast_cancer().data[0]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return a run of two epochs."""
    return run(MODEL, out=tmp_path_factory.mktemp("rows"), quick=True)


@pytest.mark.parametrize("target", ["gateway", "board"])
def test_a_row_of_numbers_is_answered(outcome: RunResult, target: str) -> None:
    """From the line of a CSV or JSON; the streams of the input are numbers, and golden vectors agree."""
    assert outcome.passed, outcome.gates
    with open_bundle(outcome.bundle(target)) as model:
        assert model.probe().ok
        line = ",".join(f"{value:g}" for value in ROW)
        said = [model.answer(text.encode()) for text in (line, f"[[{line}]]", f"{line}\n")]
        assert [one.label for one in said] == ["malignant"] * 3
        assert all(np.isfinite(list(one.streams.values())).all() for one in said)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (ROW[:3], "Expected a window of 1 to 65536 steps x 30 channels, got"),
        ([*ROW[:29], ""], "Expected finite numbers, got nan at step 0, column 'worst fractal dimension'"),
        ([*ROW[:29], "high"], "text in 1 of 30: column 29 'high': send the numbers"),
        ([*ROW[:29], "inf"], "got inf at step 0, column 'worst fractal dimension'"),
    ],
)
def test_missing_values_and_categories_are_refused_by_a_code(outcome: RunResult, line: list[object], told: str) -> None:
    """A device answers nothing for them."""
    with open_bundle(outcome.bundle("gateway")) as model, pytest.raises(SensorError, match=told) as caught:
        model.answer(",".join(map(str, line)).encode())
    assert caught.value.code == "sensor_invalid"


def test_a_header_is_compared_with_the_columns_of_the_table(outcome: RunResult) -> None:
    """The names travel in the manifest; the same ones in another order are read by name, others are refused."""
    names = list(load_breast_cancer().feature_names)
    with open_bundle(outcome.bundle("gateway")) as model:
        assert model.manifest.preprocessing.front_end_columns == tuple(names)
        plain = model.answer(",".join(map(str, ROW)).encode())
        turned = ",".join(names[::-1]) + "\n" + ",".join(map(str, ROW[::-1]))
        assert model.answer(turned.encode()).outputs == plain.outputs
        foreign = turned.replace("mean radius", "radius")
        with pytest.raises(SensorError, match=r"missing: mean radius; not of the model: radius"):
            model.answer(foreign.encode())


def test_a_linear_model_of_rows_is_taken(tmp_path: Path) -> None:
    """One float input (N, 30), as scikit-learn's exporters write it, to int8."""
    recipe = read_recipe(MODEL)
    table = load(recipe.data, recipe.folder)
    inputs = np.stack([image[0, :, 0] for image in table.images]).astype(np.float32) / 255
    fitted = LogisticRegression(max_iter=500).fit((inputs - 0.5) / 0.25, table.labels)
    weights = {
        "w": np.concatenate([-fitted.coef_, fitted.coef_]).T / 2,
        "b": np.append(-fitted.intercept_, fitted.intercept_) / 2,
    }
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["scores"])], "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 30])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "rows.onnx")
    text = MODEL.read_text().replace('network = "mlp"', 'onnx = "rows.onnx"\nlabels = ["benign", "malignant"]')
    text = text.replace('[targets.board]\nruntime = "litert"\n', "")
    kept = [
        line
        for line in text.splitlines()
        if not line.startswith(("epochs", "fine_tune", "batch", "learning", "augment"))
    ]
    (tmp_path / "recipe.toml").write_text("\n".join(kept))
    done = run(tmp_path / "recipe.toml", out=tmp_path / "build")
    assert done.passed, done.gates
    with open_bundle(done.bundle("gateway")) as model:
        assert model.answer(",".join(f"{value:g}" for value in ROW).encode()).label == "malignant"
