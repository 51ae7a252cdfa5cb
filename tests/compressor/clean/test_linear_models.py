"""Linear models as scikit-learn's exporter writes them: operators of ai.onnx.ml become ONNX's own, trees stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from compressor.clean.given import Given
from compressor.clean.mending import clean
from compressor.errors import ModelOperatorsError
from compressor.formats import named

FEATURES, CLASSES, ML = 5, 3, "ai.onnx.ml"
ROWS = np.random.default_rng(3).standard_normal((4, 1, 1, FEATURES)).astype(np.float32)


def drawn(*shape: int) -> list[float]:
    """Return normal noise, flat."""
    return np.random.default_rng(len(shape)).standard_normal(shape).ravel().tolist()  # type: ignore[no-any-return]


def ml(operator: str, taken: str, *outputs: str, **attributes: object) -> onnx.NodeProto:
    """Return a node of ai.onnx.ml."""
    return helper.make_node(operator, [taken], list(outputs), domain=ML, **attributes)


def classifier(end: str, *, maps: bool = False, norm: str = "") -> onnx.ModelProto:
    """Return scaled features, a linear classifier that ends in ``end``, its label, and scores, as ``maps`` or not."""
    nodes = [
        ml("Scaler", "X", "scaled", offset=drawn(FEATURES), scale=[0.5] * FEATURES),
        ml("LinearClassifier", "scaled", "said", "scores", classlabels_ints=[0, 1, 2], multi_class=1,
           coefficients=drawn(CLASSES, FEATURES), intercepts=drawn(CLASSES), post_transform=end),
        helper.make_node("Cast", ["said"], ["label"], to=TensorProto.INT64),
        ml("Normalizer", "scores", "normed", norm=norm) if norm
        else helper.make_node("Identity", ["scores"], ["normed"]),
        ml("ZipMap", "normed", "out", classlabels_int64s=[0, 1, 2]) if maps
        else helper.make_node("Identity", ["normed"], ["out"]),
    ]  # fmt: skip
    key = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, ()))
    kind = helper.make_sequence_type_proto(key) if maps else helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 3])
    return file(
        nodes, helper.make_value_info("out", kind), helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    )


def file(nodes: list[onnx.NodeProto], *outputs: onnx.ValueInfoProto, standard: int = 14) -> onnx.ModelProto:
    """Return a file of features (N, 5); ``standard``: the version of ONNX's own operators, 0 if it states none."""
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", FEATURES])
    graph = helper.make_graph(nodes, "table", [given], list(outputs))
    domains = [helper.make_opsetid(ML, 1), *([helper.make_opsetid("", standard)] if standard else [])]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def answers(model: onnx.ModelProto | bytes, rows: np.ndarray) -> np.ndarray:
    """Return the output ``out``, maps as columns."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    made = session.run(["out"], {"X": rows})[0]
    return np.array([list(one.values()) for one in made], np.float32) if isinstance(made, list) else np.asarray(made)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("end", "norm", "maps"),
    [("SOFTMAX", "", True), ("LOGISTIC", "L1", True), ("NONE", "", False), ("NONE", "L2", False)],
)
def test_a_linear_classifier_becomes_standard_operators(end: str, norm: str, *, maps: bool, compressed: bool) -> None:
    """Its answers stay; maps are a tensor, the label is left out, and no operator is foreign."""
    model = classifier(end, maps=maps, norm=norm)
    data, notes = clean(model.SerializeToString(), Given(rows=ROWS, compressed=compressed))
    assert np.allclose(answers(data, ROWS), answers(model, ROWS[:, 0, 0]), atol=1e-6)
    assert "'label' left out" in notes["tables"]
    assert ("'out' is a tensor" in notes["tables"]) == maps
    assert notes["linear models"].startswith("1 LinearClassifier, ")
    _, outputs = named("onnx").tensors(data)
    assert [(one.name, one.shape) for one in outputs] == [("out", (-1, CLASSES))]


def test_a_linear_regression_without_standard_operators_gets_their_version() -> None:
    """A file of nothing but ai.onnx.ml states no other."""
    node = ml("LinearRegressor", "X", "out", coefficients=drawn(FEATURES), intercepts=[0.25])
    model = file([node], helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 1]), standard=0)
    data, _ = clean(model.SerializeToString(), Given(rows=ROWS))
    assert np.allclose(answers(data, ROWS), answers(model, ROWS[:, 0, 0]), atol=1e-6)
    assert {entry.domain for entry in onnx.load_from_string(data).opset_import} == {""}


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_a_row_of_zeros_has_no_norm_and_stays_one(norm: str) -> None:
    """As onnxruntime's own operator leaves it, instead of NaN; all sensors off is such a row."""
    model = file(
        [ml("Normalizer", "X", "out", norm=norm)],
        helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", FEATURES]),
    )
    data, _ = clean(model.SerializeToString(), Given(rows=ROWS))
    rows = np.concatenate([ROWS, np.zeros_like(ROWS[:1])])
    assert {node.domain for node in onnx.load_from_string(data).graph.node} == {""}
    assert np.allclose(answers(data, rows), answers(model, rows[:, 0, 0]), atol=1e-6)


def test_a_label_that_is_read_keeps_its_operator() -> None:
    """Of scores and a number made of the label, the second needs the classifier as it is."""
    model = classifier("SOFTMAX")
    model.graph.node.append(helper.make_node("Cast", ["said"], ["number"], to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("number", TensorProto.FLOAT, ["N"]))
    data, notes = clean(model.SerializeToString(), Given(rows=ROWS))
    assert notes["linear models"] == "1 Scaler of ai.onnx.ml as standard operators"
    assert "LinearClassifier" in [node.op_type for node in onnx.load_from_string(data).graph.node]


def test_trees_are_refused_with_what_to_do() -> None:
    """No device has their code; a file of them has a version of standard operators after the Flatten."""
    tree = ml(
        "TreeEnsembleRegressor", "X", "out", nodes_treeids=[0], nodes_nodeids=[0], nodes_featureids=[0],
        nodes_values=[0.0], nodes_modes=["LEAF"], nodes_truenodeids=[0], nodes_falsenodeids=[0], target_treeids=[0],
        target_nodeids=[0], target_ids=[0], target_weights=[1.0], n_targets=1,
    )  # fmt: skip
    model = file([tree], helper.make_tensor_value_info("out", TensorProto.FLOAT, ["N", 1]), standard=0)
    data, _ = clean(model.SerializeToString(), Given(rows=ROWS))
    with pytest.raises(ModelOperatorsError, match=r"TreeEnsembleRegressor: trees and neighbours .*network = 'mlp'"):
        named("onnx").tensors(data)
