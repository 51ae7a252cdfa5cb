"""Keyword spotting from recipe to events: trained shortly, quantized for both formats, gated, answered in a stream."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compressor.api import RunResult, run
from compressor.data import spoken, word_streams
from compressor.data._event_windows import EventWindows, Recording, as_wav, tabled
from compressor.measurement.predictions import Candidate, predict, smoothed
from compressor.recipe.model import DataRecipe, Recipe
from compressor.recipe.read import read_recipe
from compressor.stand_ins.spoken_digits import write_clips
from compressor.tasks.stream_events import evidence
from edge_agent.api import open_bundle
from edge_agent.inference.answers import Answers
from edge_agent.inference.preprocess import to_tensor
from edge_agent.inference.served_model import ServedModel, load_model
from edge_agent.sources import Capture
from wire.answers import AnswerRecord, encode_answer
from wire.bundle import read_bundle
from wire.reference import read_reference

pytestmark = pytest.mark.slow
RECIPE = """
[model]
name = "few"
network = "ds_cnn"
network_options = {filters = 16}
[data]
dataset = "word_streams"
task = "stream_events"
path = "clips.zip"
width = 16
height = 24
colour = "grey"
front_end = "log_mel"
shares = {train = 0.35, calibration = 0.2, gate = 0.35, reference = 0.1}
[data.options]
sample_rate_hz = 8000
clip_s = 0.8
window_ms = 32
hop_ms = 32
mels = 16
low_hz = 100
floor_db = -90
ceiling_db = -19
stride_s = 0.2
recording_s = 30
pause_s = 1.0
noise_db = -55
keywords = 3
[smoothing]
kind = "events"
interval_ms = 200
window = 2
[train]
epochs = 8
batch = 32
learning_rate = 0.01
augment = 0.2
[[compress]]
step = "quantize"
[targets.onnx]
[targets.lite]
runtime = "litert"
[gates]
event_recall = {min = 0.5}
event_recall_drop = {max = 0.2}
false_accepts_per_hour = {max = 400.0}
false_accepts_increase = {max = 400.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the recipe and its clips."""
    made = tmp_path_factory.mktemp("few")
    (made / "recipe.toml").write_text(RECIPE)
    write_clips(made, DataRecipe(), 14).rename(made / "clips.zip")
    return made


@pytest.fixture(scope="module")
def outcome(folder: Path) -> RunResult:
    """Return the run of the recipe."""
    return run(folder / "recipe.toml", out=folder / "build")


@pytest.fixture(scope="module", params=["onnx", "lite"])
def bundle(outcome: RunResult, request: pytest.FixtureRequest) -> Path:
    """Return one of its two bundles."""
    return outcome.bundle(request.param)


def test_a_run_judges_events_and_reports_them(outcome: RunResult) -> None:
    """Every gate on events has a verdict; int8 loses little in both formats."""
    assert outcome.passed, outcome.gates
    assert {result.name for result in outcome.gates} >= {"event_recall", "event_recall_drop", "false_accepts_per_hour"}
    figures = [json.loads((outcome.report.parent / "gate.json").read_text())["figures"]]
    assert all(one["threshold"] == one["float_threshold"] for one in figures)
    page = outcome.report.read_text(encoding="utf-8")
    assert "truth, and detections" in page
    assert "false accepts, compressed" in page


def test_the_manifest_names_task_and_smoother(bundle: Path) -> None:
    """With all options, and a schema that older agents refuse; the reference has streams and a threshold."""
    read = read_bundle(bundle)
    manifest = read.manifest
    assert (manifest.task, manifest.smoothing, manifest.schema) == ("stream_events", "events", 4)
    assert manifest.labels == ("background", "0", "1", "2")
    assert (manifest.smoothing_options["refractory_ms"], manifest.stream_interval_ms) == (500, 200)
    reference = read_reference(read.files["reference.bin"])
    assert [one.name for one in reference.streams][-3:] == ["event_score", "event_active", "event_kind"]
    assert evidence.THRESHOLDS[0] <= reference.temperature <= evidence.THRESHOLDS[-1]


def test_a_device_accepts_the_bundle(bundle: Path) -> None:
    """Golden vectors are the outputs of single windows."""
    with open_bundle(bundle) as model:
        result = model.probe()
    assert (result.ok, result.code) == (True, "")


def records_of(model: ServedModel, recording: Recording, recipe: Recipe) -> list[AnswerRecord]:
    """Return the records of a device that hears ``recording`` in the windows of the recipe."""
    records: list[AnswerRecord] = []
    answers = Answers(watch=lambda record, _data, _model: records.append(record))
    rate, clip, hop = 8000, round(0.8 * 8000), round(recipe.data.options["stride_s"] * 8000)
    for number, start in enumerate(range(0, len(recording.sound) - clip + 1, hop)):
        data = as_wav(recording.sound[start : start + clip], rate)
        at = (1_000_000 + 200 * number, 0.0, 0.01)
        answers.answered(model, Capture(name=str(number), data=data), model.infer(data), at)
    return records


def test_a_device_finds_the_events_that_the_gates_counted(folder: Path, bundle: Path) -> None:
    """Window for window, at the threshold that it was judged by; records and gates run the same code."""
    recipe, model = read_recipe(folder / "recipe.toml"), load_model(bundle)
    clips = list(spoken.samples(folder / "clips.zip"))[::7]
    recording = next(word_streams.composed(clips, frozenset("012"), word_streams.Composed(keywords=3), 8000))
    table = tabled([recording], word_streams.front_end(recipe.data), EventWindows(stride_s=0.2))
    inputs = np.concatenate([to_tensor(image, model.manifest.preprocessing) for image in table.images])
    raw = predict(Candidate(model.manifest, read_bundle(bundle).artifact), inputs)
    said = replace(smoothed(raw, model.manifest, table.sources, 200), fitted=model.reference.temperature)
    points = evidence.heard(said, table.labels).points
    records = records_of(model, recording, recipe)
    begun = [event for record in records for event in record.events if event["state"] == "began"]
    assert len(begun) == len(points) > 3
    assert [event["label"] for event in begun] == [model.manifest.labels[kind] for kind in points.labels.tolist()]
    at_s = [(event["start_ms"] - 1_000_000) / 1000 + 0.4 for event in begun]  # type: ignore[operator]
    assert at_s == pytest.approx(points.at_s.tolist())
    ended = [event for record in records for event in record.events if event["state"] == "ended"]
    assert len(begun) - len(ended) in {0, 1}
    assert all(event["start_ms"] <= event["end_ms"] for event in ended)  # type: ignore[operator]


def test_a_record_has_its_events_as_json() -> None:
    """As every sink writes it; a record without one has no such key."""
    event = {"state": "began", "label": "1", "start_ms": 1, "end_ms": 1, "confidence": 0.9}
    written = json.loads(encode_answer(AnswerRecord(label="1", confidence=0.9, events=(event,))))
    assert written["events"] == [event]
    assert "events" not in json.loads(encode_answer(AnswerRecord(label="1", confidence=0.9)))
