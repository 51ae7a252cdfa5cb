"""Other people's files for anomalies: what an output is taken as, refusals by name, and runs into both formats."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compressor.api import RunResult, run
from compressor.errors import CompressorError, ModelSignatureError, RecipeError
from compressor.measurement.predictions import Candidate
from compressor.recipe.read import parse_recipe
from compressor.run.anomalies.imported import _picture, chosen
from edge_agent.api import open_bundle
from tests.compressor import foreign_scores as foreign
from wire.bundle import read_bundle
from wire.manifest import Manifest, TensorSpec

RECIPE = """
[model]
name = "odd"
onnx = "odd.onnx"
[data]
dataset = "arrays"
task = "anomaly"
path = "pictures.npz"
normal = ["left", "right"]
colour = "grey"
width = 16
height = 16
mean = 0.0
std = 1.0
shares = {train = 0.3, calibration = 0.3, gate = 0.3, reference = 0.1}
[alarm]
interval_s = 2400.0
[[compress]]
step = "quantize"
[targets.onnx]
[targets.lite]
runtime = "litert"
[gates]
auc = {min = 0.9}
auc_drop = {max = 0.1}
false_alarms_per_day = {max = 6.0}
"""
GIVEN = TensorSpec(name="x", shape=(-1, 3, 8, 4), dtype="float32", layout="NCHW")
LAST = TensorSpec(name="x", shape=(-1, 8, 4, 3), dtype="float32", layout="NHWC")

SERIES = TensorSpec(name="x", shape=(-1, 1, 64, 1), dtype="float32", layout="NCHW")
SEVERAL = TensorSpec(name="x", shape=(-1, 3, 64, 1), dtype="float32", layout="NCHW")


def outputs(*shapes: tuple[int, ...], names: str = "abcdef", dtype: str = "float32") -> tuple[TensorSpec, ...]:
    """Return outputs of these shapes without the batch, named by a letter each."""
    return tuple(
        TensorSpec(name=name, shape=(-1, *shape), dtype=dtype) for name, shape in zip(names, shapes, strict=False)
    )


@pytest.mark.parametrize(
    ("asked", "given", "found", "kind", "name"),
    [
        ("", GIVEN, outputs((3, 8, 4)), "reconstruction", "a"),
        ("", LAST, outputs((8, 4, 3)), "reconstruction", "a"),
        ("", GIVEN, outputs((8, 4, 3)), "reconstruction", "a"),  # its input was wrapped into another layout
        ("", GIVEN, outputs((96,), (5,)), "reconstruction", "a"),
        ("", GIVEN, outputs((5,), (1,)), "score", "b"),
        ("", GIVEN, outputs(()), "score", "a"),
        ("score", GIVEN, outputs((3, 8, 4), (1,)), "score", "b"),
        ("forecast", GIVEN, outputs((24,)), "forecast", "a"),
        ("forecast", GIVEN, outputs((3, 2, 4), (3, 8, 4)), "forecast", "a"),
        ("forecast", LAST, outputs((2, 4, 3)), "forecast", "a"),
        ("forecast", SERIES, outputs((8, 1)), "forecast", "a"),
        ("forecast", SERIES, outputs((1, 8)), "forecast", "a"),
        ("forecast", SEVERAL, outputs((2, 3)), "forecast", "a"),
        ("forecast", SEVERAL, outputs((3, 2)), "forecast", "a"),
        ("", SERIES, outputs((64, 1)), "reconstruction", "a"),
        ("embedding", GIVEN, outputs((24,)), "embedding", "a"),
        ("logits", GIVEN, outputs((24,)), "logits", "a"),
        ("probabilities", GIVEN, outputs((2,), (3, 8, 4)), "probabilities", "a"),
    ],
)
def test_what_an_output_is_follows_from_its_shape_and_the_recipe(
    asked: str, given: TensorSpec, found: tuple[TensorSpec, ...], kind: str, name: str
) -> None:
    """Of several the one that fits."""
    said, output = chosen(asked, given, found)
    assert (said, output.name) == (kind, name)


@pytest.mark.parametrize(
    ("given", "shape", "said"),
    [
        (SERIES, (8, 2), r"\(N, rows\), \(N, rows, 1\), or \(N, 1, rows, 1\), of 1 to 63 rows, got a .*-1, 8, 2"),
        (SEVERAL, (3, 3), r"\(N, rows \* 3\), \(N, rows, 3\), or \(N, 3, rows, 1\), of 1 to 63 rows"),  # two readings
        (GIVEN, (2, 12), r"\(N, rows \* 12\), or \(N, 3, rows, 4\), of 1 to 7 rows"),
        (LAST, (2, 12), r"\(N, rows, 4, 3\), of 1 to 7 rows"),
    ],
)
def test_the_shapes_of_a_forecast_are_named_with_the_one_that_is_there(
    given: TensorSpec, shape: tuple[int, ...], said: str
) -> None:
    """In one message, asked or not."""
    for asked in ("forecast", ""):
        with pytest.raises(ModelSignatureError, match=said if asked else said.split(", got", maxsplit=1)[0]):
            chosen(asked, given, outputs(shape))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_a_series_is_read_in_the_order_of_its_channels(shape: tuple[int, ...]) -> None:
    """Steps or channels first: as a matrix it has the channels first, as the input's last rows have."""
    values = np.arange(6, dtype=np.float32).reshape(1, 3, 2)  # channels, steps
    data = identity(values if shape == (3, 2) else values.transpose(0, 2, 1))
    (output,) = outputs(shape)
    kind, found = chosen("forecast", SEVERAL, (output,))
    made = _picture(Candidate(Manifest(), data), SEVERAL, found)
    session = onnxruntime.InferenceSession(made.data)
    assert kind == "forecast"
    assert session.run(None, {"x": np.zeros((1, 1), np.float32)})[0].tolist() == [[0, 1, 2, 3, 4, 5]]


def identity(values: np.ndarray) -> bytes:
    """Return an ONNX file whose output ``a`` is ``values`` plus its input ``x``, (1, 1)."""
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 1)), ("a", values.shape))
    ]
    weights = [numpy_helper.from_array(np.ascontiguousarray(values), "values")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "values"], ["a"])], "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_an_embedding_and_logits_are_told_apart_by_the_name() -> None:
    """As our own exports have both."""
    both = (*outputs((5,), names=["logits"]), *outputs((24,), names=["embedding"]))  # type: ignore[arg-type]
    assert chosen("embedding", GIVEN, both)[1].name == "embedding"
    assert chosen("logits", GIVEN, both)[1].name == "logits"


def test_a_forecast_is_not_mistaken_for_an_embedding_of_whole_rows() -> None:
    """As our own forecasts are exported."""
    both = (*outputs((24,), names=["logits"]), *outputs((12,), names=["embedding"]))  # type: ignore[arg-type]
    assert chosen("forecast", GIVEN, both)[1].name == "logits"


@pytest.mark.parametrize(
    ("asked", "found", "said"),
    [
        ("", outputs((24,)), r"or one number \(N, 1\).*write \[model\] outputs = 'embedding'"),
        ("", outputs((3, 8, 4), (1,)), "export with one of them"),
        ("", outputs((4, 8, 3)), "write \\[model\\] outputs"),  # rows and columns the other way round
        ("", outputs((1,), dtype="int64"), "got a int64"),
        ("reconstruction", outputs((24,)), "an output of the input's shape, got a float32"),
        ("forecast", outputs((25,)), "whole rows of the input"),
        ("forecast", outputs((96,)), "fewer than it has"),
        ("score", outputs((2,)), "check the export, or leave outputs out"),
        ("embedding", outputs((24,), (12,)), "export with one of them"),
        ("logits", outputs((3, 8, 4)), "a matrix"),
    ],
)
def test_other_outputs_are_refused_by_name(asked: str, found: tuple[TensorSpec, ...], said: str) -> None:
    """With a code, and what to write instead."""
    with pytest.raises(ModelSignatureError, match=said) as caught:
        chosen(asked, GIVEN, found)
    assert caught.value.code == "model_signature"


OF_CLASSES = (
    ('task = "anomaly"\n', ""), ('normal = ["left", "right"]\n', ""), ("[alarm]\ninterval_s = 2400.0\n", ""),
    ("auc = {min = 0.9}\n", ""), ("false_alarms_per_day = {max = 6.0}", ""),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (OF_CLASSES, r"Expected \[model\] outputs logits or probabilities in a recipe"),
        ([('"score"', '"distance"')], "outputs"),
        ([('onnx = "odd.onnx"\noutputs = "score"', 'tflite = "odd.tflite"')], r"\[model\] tflite"),
        (
            [("{train = 0.3, calibration = 0.3", "{train = 0, calibration = 0.6"), ('"score"', '"embedding"')],
            "train = 0 is for an imported model",
        ),
    ],
)
def test_a_recipe_that_can_not_be_meant_is_refused(changes: list[tuple[str, str]], said: str) -> None:
    """A score of classes, an output that nothing reads, another format, no rows to fit a distance on."""
    text = RECIPE.replace('onnx"', 'onnx"\noutputs = "score"', 1)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(RecipeError, match=said):
        parse_recipe(text)


def folder_with(folder: Path, model: bytes, *changes: tuple[str, str]) -> Path:
    """Write the recipe with ``changes``, pictures and ``model`` into ``folder``; return the recipe's path."""
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "recipe.toml").write_text(text)
    (folder / "odd.onnx").write_bytes(model)
    rng = np.random.default_rng(0)
    rows = [foreign.picture(rng, odd=place >= 1200) for place in range(1350)]
    kinds = [0 if row[:, :8].sum() > row[:, 8:].sum() else 1 for row in rows[:1200]] + [2] * 150
    sources, names = [str(place // 4) for place in range(1350)], np.array(["left", "right", "odd"])
    np.savez(folder / "pictures.npz", x=np.stack(rows), y=np.array(kinds), class_names=names, source=sources)
    return folder / "recipe.toml"


def png(*, odd: bool) -> bytes:
    """Return a picture that no split has."""
    buffer = io.BytesIO()
    Image.fromarray(foreign.picture(np.random.default_rng(77), odd=odd)).save(buffer, "PNG")
    return buffer.getvalue()


LOGITS = ('onnx"', 'onnx"\noutputs = "logits"')
ALONE = ('[targets.lite]\nruntime = "litert"\n', "")


def check(outcome: RunResult, decoder: str, *targets: str) -> None:
    """Check the bundles: gates, decoder, answers to a usual and an odd picture, golden vectors."""
    assert outcome.passed, outcome.gates
    for target in targets:
        assert read_bundle(outcome.bundle(target)).manifest.decoder == decoder
        with open_bundle(outcome.bundle(target)) as model:
            assert [model.answer(png(odd=odd)).anomalous for odd in (False, True)] == [False, True]
            assert model.probe().ok


@pytest.mark.slow
def test_an_auto_encoder_of_another_framework_becomes_another_format(tmp_path: Path) -> None:
    """Its output is flat, in the order of its own input, rows, columns and channels: another is a large residual."""
    model = foreign.auto_encoder(last=True, flat=True, channels=3)
    outcome = run(folder_with(tmp_path, model, ('"grey"', '"rgb"'), ("[targets.onnx]\n", "")), out=tmp_path / "build")
    check(outcome, "residual", "lite")
    assert outcome.figures["lite"]["threshold"] < 0.1


@pytest.mark.slow
def test_a_file_s_own_score_keeps_its_range_in_both_formats(tmp_path: Path) -> None:
    """Below 0 for usual pictures; its last layers stay float, or no anomaly would be above the largest usual score."""
    outcome = run(folder_with(tmp_path, foreign.own_score()), out=tmp_path / "build")
    check(outcome, "score", "onnx", "lite")
    assert outcome.figures["onnx"]["threshold"] < 0
    assert outcome.figures["lite"]["detected"] > 0.9


@pytest.mark.slow
def test_the_distance_before_a_classifier_s_last_layer_is_a_score(tmp_path: Path) -> None:
    """Two labels are two centres, and the embedding still feeds the drift counters."""
    outcome = run(folder_with(tmp_path, foreign.classifier(), LOGITS, ALONE), out=tmp_path / "build")
    check(outcome, "distance", "onnx")
    manifest = read_bundle(outcome.bundle("onnx")).manifest
    assert manifest.decoder_options == {"centres": 2}
    assert [(one.name, one.shape) for one in manifest.outputs] == [("deviations", (-1, 24)), ("embedding", (-1, 12))]
    nodes = onnx.load_from_string(read_bundle(outcome.bundle("onnx")).artifact).graph.node
    made = {name: node.op_type for node in nodes for name in node.output}
    assert (made["deviations"], "QuantizeLinear" in made.values()) == ("Gemm", True)  # float: normal rows set no end


@pytest.mark.slow
def test_a_network_of_ours_learns_the_normal_labels_and_its_embedding_is_the_score(tmp_path: Path) -> None:
    """No anomaly is learned, and int8 takes the layer of the distance as any other."""
    own = ('onnx = "odd.onnx"', 'network = "ds_cnn"\nnetwork_options = {filters = 8}')
    short = ("[alarm]", "[train]\nepochs = 5\naugment = 0.0\n[alarm]")
    outcome = run(folder_with(tmp_path, b"", own, short, ALONE), out=tmp_path / "build")
    check(outcome, "distance", "onnx")


def test_a_network_of_ours_needs_two_normal_labels(tmp_path: Path) -> None:
    """There would be nothing to tell apart; the error names both other ways."""
    own = ('onnx = "odd.onnx"', 'network = "ds_cnn"')
    recipe = folder_with(tmp_path, b"", own, ('normal = ["left", "right"]', 'normal = ["left"]'))
    with pytest.raises(RecipeError, match=r"two labels or more.*network = 'auto_encoder'.*outputs = 'embedding'"):
        run(recipe, out=tmp_path / "build")


def test_a_step_without_a_loss_is_refused(tmp_path: Path) -> None:
    """Before anything is trained: a distance has no loss to fine-tune by."""
    prune = ("[[compress]]", '[[compress]]\nstep = "prune"\n[[compress]]')
    recipe = folder_with(tmp_path, foreign.classifier(), LOGITS, prune)
    with pytest.raises(
        CompressorError, match="Expected no step 'prune' in a recipe whose score is a distance"
    ) as caught:
        run(recipe, out=tmp_path / "build")
    assert caught.value.code == "recipe_invalid"


def test_a_file_without_a_score_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    """By its stated sizes."""
    recipe = folder_with(tmp_path, foreign.classifier())
    (tmp_path / "pictures.npz").unlink()
    with pytest.raises(ModelSignatureError, match="write \\[model\\] outputs = 'embedding'"):
        run(recipe, out=tmp_path / "build")
