"""A detection from recipe to answer: trained shortly, quantized for both formats, bundled, answered with boxes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.api import RunResult, run
from compressor.data import scenes
from edge_agent.api import open_bundle
from edge_agent.inference.answers import Answers
from edge_agent.inference.served_model import ServedModel, load_model
from edge_agent.local_api import api
from edge_agent.local_api.open_inference import InferRequest, metadata
from edge_agent.sources import Capture
from wire.answers import AnswerRecord, encode_answer
from wire.bundle import read_bundle
from wire.reference import read_reference

pytestmark = pytest.mark.slow
RECIPE = """
[model]
name = "few"
network = "centre_net"
network_options = {filters = 8}
[data]
dataset = "scenes"
task = "detection"
width = 96
height = 96
colour = "grey"
[train]
epochs = 8
batch = 32
learning_rate = 0.01
augment = 0.0
[[compress]]
step = "quantize"
[targets.onnx]
[targets.lite]
runtime = "litert"
[gates]
map = {min = 0.3}
detection_map_drop = {max = 0.1}
detection_f1_drop = {max = 0.1}
worst_slice_map_drop = {max = 0.2}
worst_class_map_drop = {max = 0.3}
"""
WIDE, HIGH = 384, 192


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return the run of the recipe."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "recipe.toml").write_text(RECIPE)
    return run(folder / "recipe.toml", out=folder / "build")


@pytest.fixture(scope="module", params=["onnx", "lite"])
def bundle(outcome: RunResult, request: pytest.FixtureRequest) -> Path:
    """Return one of its two bundles."""
    return outcome.bundle(request.param)


def scene() -> tuple[bytes, np.ndarray]:
    """Return a scene, stretched to 384 x 192 pixels, as PNG, and its boxes in these pixels."""
    image, boxes = scenes.scene(scenes._pools()["gate"], 0, 30_002)
    buffer = io.BytesIO()
    Image.fromarray(image).resize((WIDE, HIGH)).save(buffer, "PNG")
    return buffer.getvalue(), boxes * np.array([1, WIDE, HIGH, WIDE, HIGH], np.float32)


def test_a_run_judges_boxes_and_reports_them(outcome: RunResult) -> None:
    """Every gate on boxes has a verdict; int8 loses little in both formats."""
    assert outcome.passed, outcome.gates
    assert {result.name for result in outcome.gates} >= {"map", "detection_map_drop", "worst_class_map_drop"}
    assert "Precision and recall" in outcome.report.read_text(encoding="utf-8")


def test_answers_are_boxes_in_pixels_of_the_picture(bundle: Path) -> None:
    """Most objects are found where they are; the number of each class are the values."""
    data, wanted = scene()
    with open_bundle(bundle) as model:
        said = model.answer(data)
    assert len(said.boxes) == sum(said.values.values())
    found = 0
    for kind, *edges in wanted.tolist():
        close = [b for b in said.boxes if np.abs(np.subtract([b["x0"], b["y0"], b["x1"], b["y1"]], edges)).max() < 24]  # type: ignore[arg-type]
        found += any(box["label"] == str(int(kind)) for box in close)
    assert found >= len(wanted) / 2


def test_a_device_accepts_the_bundle(bundle: Path) -> None:
    """Golden vectors of boxes agree on the device's own runtime."""
    with open_bundle(bundle) as model:
        result = model.probe()
    assert (result.ok, result.code) == (True, "")


def test_the_manifest_names_task_and_decoder(bundle: Path) -> None:
    """With all options, and the schema that older agents refuse; the reference has streams of boxes."""
    read = read_bundle(bundle)
    manifest = read.manifest
    assert (manifest.task, manifest.decoder, manifest.schema) == ("detection", "centres", 6)
    assert sorted(manifest.decoder_options) == ["least", "most", "overlap"]
    reference = read_reference(read.files["reference.bin"])
    assert [one.name for one in reference.streams][-5:] == ["boxes", "box_size", "box_x", "box_y", "box_score"]
    assert 0.05 <= reference.temperature <= 0.95


def recorded(model: ServedModel, data: bytes) -> AnswerRecord:
    """Return the record that sinks get."""
    records: list[AnswerRecord] = []
    answers = Answers(watch=lambda record, _data, _model: records.append(record))
    answers.answered(model, Capture(name="a.png", data=data, id="a.png"), model.infer(data), (1, 0.0, 0.01))
    return records[0]


def test_a_record_has_the_boxes_and_few_bytes(bundle: Path) -> None:
    """For sinks, the local interface and telemetry alike."""
    data, _ = scene()
    model = load_model(bundle)
    record = recorded(model, data)
    written = json.loads(encode_answer(record))
    assert written["boxes"] == [dict(box) for box in record.boxes] != []
    assert set(written["boxes"][0]) == {"label", "score", "x0", "y0", "x1", "y1"}
    assert all(0 <= box["x0"] < box["x1"] <= WIDE and 0 <= box["y0"] < box["y1"] <= HIGH for box in written["boxes"])
    assert len(encode_answer(record)) < 400 + 90 * len(record.boxes)


def test_the_local_interface_gives_boxes(bundle: Path) -> None:
    """Of an encoded picture as JSON, of a tensor as the decoder's numbers; the metadata names them."""
    data, _ = scene()
    model = load_model(bundle)
    said = api._outputs(model, InferRequest(image=data, wanted={}))
    assert json.loads(said["boxes"]) == [dict(box) for box in recorded(model, data).boxes]
    shape = (1, *model.manifest.inputs[0].shape[1:])
    of_tensor = api._outputs(model, InferRequest(tensor=np.zeros(shape, np.float32), wanted={}))
    assert of_tensor["box_rows"].shape == (1, 600)
    told = metadata(model.manifest, "detection", model.thresholds, model.answer_outputs)
    names = [one["name"] for one in told["outputs"]]  # type: ignore[union-attr,index,call-overload]
    assert names[0] == "box_rows"


def test_a_network_of_classes_is_refused_for_boxes(tmp_path: Path) -> None:
    """Before it is trained, with what to do."""
    from compressor.errors import RecipeError  # noqa: PLC0415

    text = RECIPE.replace('"centre_net"', '"resnet8"').replace("network_options = {filters = 8}", "")
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"outputs for the decoder 'centres'.*name another"):
        run(tmp_path / "recipe.toml", out=tmp_path / "build")
