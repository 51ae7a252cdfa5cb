"""Several labels a row, from a CSV to the answer: trained shortly, quantized for both formats, bundled, answered."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from compressor.api import RunResult, run
from edge_agent.api import open_bundle
from edge_agent.inference.answers import Answers
from edge_agent.inference.served_model import load_model
from edge_agent.local_api import api
from edge_agent.local_api.open_inference import InferRequest
from edge_agent.sources import Capture
from wire.answers import AnswerRecord, encode_answer
from wire.bundle import read_bundle
from wire.codec import encode
from wire.errors import ManifestError
from wire.manifest import read_manifest
from wire.reference import read_reference

pytestmark = pytest.mark.slow
COLOURS = {"blue": 2, "green": 1, "red": 0}
RECIPE = """
[model]
name = "lamps"
network_options = {filters = 8}
[data]
dataset = "labelled_images"
path = "set"
task = "multi_label"
width = 16
height = 16
shares = {train = 0.4, calibration = 0.2, gate = 0.3, reference = 0.1}
[train]
epochs = 5
batch = 32
learning_rate = 0.01
augment = 0.0
class_weights = "balanced"
[[compress]]
step = "quantize"
[targets.onnx]
[targets.lite]
runtime = "litert"
[gates]
map = {min = 0.9}
label_map_drop = {max = 0.05}
label_f1_drop = {max = 0.1}
worst_class_drop = {max = 0.3}
flip_ratio = {max = 0.3}
"""


def picture(lit: tuple[str, ...], number: int) -> bytes:
    """Return a dark picture with a spot of each colour of ``lit``, as PNG."""
    rng = np.random.default_rng([5, number])
    pixels = rng.integers(0, 60, (16, 16, 3))
    for name in lit:
        y, x = rng.integers(0, 11, 2)
        pixels[y : y + 6, x : x + 6, COLOURS[name]] = rng.integers(150, 255)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return the run on 480 pictures, of which an eighth has no label; blue is rare."""
    folder = tmp_path_factory.mktemp("lamps")
    (folder / "set").mkdir()
    rng, lines = np.random.default_rng(1), ["path,label"]
    for number in range(480):
        lit = tuple(name for name in COLOURS if rng.random() < (0.2 if name == "blue" else 0.5))
        (folder / "set" / f"{number}.png").write_bytes(picture(lit, number))
        lines.append(f"{number}.png,{'|'.join(reversed(lit))}")
    (folder / "set" / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    return run(folder / "recipe.toml", out=folder / "build")


@pytest.fixture(params=["onnx", "lite"])
def bundle(outcome: RunResult, request: pytest.FixtureRequest) -> Path:
    """Return one of its two bundles."""
    return outcome.bundle(request.param)


def test_a_run_judges_sets_of_labels_and_reports_each_label(outcome: RunResult) -> None:
    """Every gate has a verdict; the figures of each label are in the certificate, its line in the report."""
    assert outcome.passed, outcome.gates
    assert {result.name for result in outcome.gates} >= {"map", "label_map_drop", "label_f1_drop", "flip_ratio"}
    figures = json.loads((outcome.report.parent / "gate.json").read_text())["targets"][0]["figures"]
    assert figures["recall blue"] > 0.6
    assert 0 < figures["threshold red"] < 1
    assert figures["f1"] > 0.9
    assert "Labels (compressed beside float, gate split)" in outcome.report.read_text(encoding="utf-8")


def test_an_answer_has_the_labels_above_their_thresholds(bundle: Path) -> None:
    """By name with their probabilities, the surest first; the values have every label; none is an answer too."""
    with open_bundle(bundle) as model:
        thresholds = dict(zip(model.manifest.labels, model.manifest.thresholds, strict=True))
        assert model.manifest.labels == ("blue", "green", "red")
        right = 0
        for number, lit in enumerate([("green", "red"), ("red",), (), ("blue", "green", "red")] * 5, start=2000):
            said = model.answer(picture(lit, number))
            right += set(said.scores) == set(lit)
            assert set(said.values) == set(thresholds)
            assert all((name in said.scores) == (said.values[name] >= at - 1e-4) for name, at in thresholds.items())
            assert list(said.scores.values()) == sorted(said.scores.values(), reverse=True)
            assert said.streams["labels"] == len(said.scores)
            assert [said.streams[f"label_{at}"] for at in range(3)] == [name in said.scores for name in thresholds]
        assert right >= 16  # of 20


def test_a_record_and_the_local_api_say_the_labels(bundle: Path) -> None:
    """An answer without labels is no error."""
    model = load_model(bundle)
    records: list[AnswerRecord] = []
    answers = Answers(watch=lambda record, _data, _model: records.append(record))
    for lit in (("green", "red"), ()):
        data = picture(lit, 2000)
        answers.answered(
            model, Capture(name="a.png", data=data, id="a.png"), model.with_row(model.infer(data)), (1, 0.0, 0.1)
        )
        given = api._outputs(model, InferRequest(image=data, wanted={}))
        assert json.loads(given["labels"]) == list(records[-1].labels) == list(records[-1].scores)
        assert 0 <= float(given["red"][0]) <= 1
    assert set(records[0].scores) == {"green", "red"}
    assert (records[1].scores, records[1].error, records[1].task) == ({}, "", "multi_label")
    assert b'"scores":{' in encode_answer(records[0])


def test_a_device_accepts_the_bundle(bundle: Path) -> None:
    """Golden vectors give the same sets of labels on the device's own runtime."""
    with open_bundle(bundle) as model:
        result = model.probe()
    assert (result.ok, result.code) == (True, "")


def test_the_reference_counts_labels_and_rates(bundle: Path) -> None:
    """It has no table of classes; the manifest names the task, so that older agents refuse it."""
    read = read_bundle(bundle)
    reference = read_reference(read.files["reference.bin"])
    names = [spec.name for spec in reference.streams if spec.kind == "output"]
    assert names == ["labels", "top", "label_0", "label_1", "label_2"]
    assert reference.classes == 0
    assert (read.manifest.task, read.manifest.schema) == ("multi_label", 3)


def test_a_file_that_ends_in_a_sigmoid_is_taken(outcome: RunResult, tmp_path: Path) -> None:
    """Its outputs are probabilities without being asked about; the answers are those of its own labels."""
    weights = np.zeros((3 * 16 * 16, 3), np.float32)  # a label a colour: how much of it is above the dark
    for column, name in enumerate(("red", "green", "blue")):
        weights[COLOURS[name] * 256 : (COLOURS[name] + 1) * 256, column] = 4 / 256
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["scores"]),
            helper.make_node("Sigmoid", ["scores"], ["said"]),
        ],
        "lamps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.full(3, 5.0, np.float32), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "lamps.onnx")
    labels = 'onnx = "lamps.onnx"\nlabels = ["red", "green", "blue"]'
    text = RECIPE.replace("network_options = {filters = 8}", labels).replace(
        'path = "set"', f'path = "{outcome.report.parent.parent / "set"}"'
    )
    text = re.sub(r"(?s)\[train\].*?\[\[compress", "[[compress", text).replace(
        '[targets.lite]\nruntime = "litert"\n', ""
    )
    (tmp_path / "recipe.toml").write_text(text)
    done = run(tmp_path / "recipe.toml", out=tmp_path / "build")
    assert done.passed, done.gates
    with open_bundle(done.bundle("onnx")) as model:
        assert model.manifest.outputs[0].meaning == "sigmoid"
        assert model.manifest.labels == ("red", "green", "blue")
        assert set(model.answer(picture(("green", "red"), 2000)).scores) == {"green", "red"}


@pytest.mark.parametrize("change", [b"[0.5,0.5]", b"[0.5,0.5,1.0]", b"[0,0.5,0.5]"])
def test_a_manifest_with_other_thresholds_is_refused(outcome: RunResult, change: bytes) -> None:
    """Fewer than labels, or none of a probability."""
    document = json.loads(encode(read_bundle(outcome.bundle("onnx")).manifest))
    document["thresholds"] = json.loads(change)
    with pytest.raises(ManifestError, match="Expected a threshold above 0 and below 1 for each of 3 labels"):
        read_manifest(json.dumps(document).encode())
