"""Anomalies from recipe to answer: trained on normal rows, in both formats, bundled, answered with a score."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.api import RunResult, run
from edge_agent.api import open_bundle
from edge_agent.inference.answers import Answers
from edge_agent.inference.served_model import load_model
from edge_agent.local_api import api
from edge_agent.local_api.open_inference import InferRequest, metadata
from edge_agent.sources import Capture
from wire.answers import AnswerRecord, encode_answer
from wire.bundle import read_bundle
from wire.reference import read_reference

pytestmark = pytest.mark.slow
RECIPE = """
[model]
name = "odd"
network = "auto_encoder"
network_options = {filters = 4, hidden = 32, code = 4}
[data]
dataset = "arrays"
task = "anomaly"
path = "pictures.npz"
normal = ["usual"]
colour = "grey"
width = 16
height = 16
shares = {train = 0.3, calibration = 0.3, gate = 0.3, reference = 0.1}
[train]
epochs = 8
augment = 0.0
[alarm]
interval_s = 1200.0
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


def picture(rng: np.random.Generator, *, odd: bool) -> np.ndarray:
    """Return a bright spot on a slope, uint8 (16, 16); an odd picture has a bar beside it."""
    rows, columns = np.mgrid[:16, :16]
    y, x = rng.uniform(4, 12, 2)
    made = 60 + 4 * rows + 120 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8) + rng.normal(0, 2, (16, 16))
    if odd:
        made[2:14, 3:5] = 230
    return np.clip(made, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Return the run of the recipe."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "recipe.toml").write_text(RECIPE)
    rng = np.random.default_rng(0)
    rows = [picture(rng, odd=place >= 2400) for place in range(2700)]
    sources = [str(place // 4) for place in range(2700)]
    names = np.array(["usual", "odd"])
    np.savez(
        folder / "pictures.npz", x=np.stack(rows), y=np.repeat([0, 1], [2400, 300]), class_names=names, source=sources
    )
    return run(folder / "recipe.toml", out=folder / "build")


@pytest.fixture(scope="module", params=["onnx", "lite"])
def bundle(outcome: RunResult, request: pytest.FixtureRequest) -> Path:
    """Return one of its two bundles."""
    return outcome.bundle(request.param)


def pictures() -> tuple[bytes, bytes]:
    """Return a usual and an odd picture that no split has, both as PNG."""
    made = []
    for odd in (False, True):
        buffer = io.BytesIO()
        Image.fromarray(picture(np.random.default_rng(77), odd=odd)).save(buffer, "PNG")
        made.append(buffer.getvalue())
    return made[0], made[1]


def test_a_run_judges_scores_and_reports_them(outcome: RunResult) -> None:
    """Every gate has a verdict; the report shows the scores and the threshold."""
    assert outcome.passed, outcome.gates
    assert {result.name for result in outcome.gates} >= {"auc", "auc_drop", "false_alarms_per_day"}
    page = outcome.report.read_text(encoding="utf-8")
    assert "the dashed line is the threshold" in page
    assert "false alarms a day" in page


def test_an_answer_is_a_score_and_whether_it_is_anomalous(bundle: Path) -> None:
    """Both formats, with the threshold of the file's own calibration."""
    usual, odd = pictures()
    with open_bundle(bundle) as model:
        normal, strange = model.answer(usual), model.answer(odd)
    assert (normal.label, normal.anomalous) == ("normal", False)
    assert (strange.label, strange.anomalous) == ("anomaly", True)
    assert normal.scores["anomaly"] <= normal.scores["threshold"] < strange.scores["anomaly"]
    assert [np.float32(one) for one in strange.outputs] == [np.float32(strange.scores["anomaly"])]
    assert np.float32(strange.streams["score"]) == np.float32(strange.scores["anomaly"])


def test_a_device_accepts_the_bundle(bundle: Path) -> None:
    """Golden scores agree on the device's own runtime."""
    with open_bundle(bundle) as model:
        result = model.probe()
    assert (result.ok, result.code) == (True, "")


def test_the_manifest_names_task_and_decoder(bundle: Path) -> None:
    """With the schema that older agents refuse; the reference has the stream of the score and the threshold."""
    read = read_bundle(bundle)
    assert (read.manifest.task, read.manifest.decoder, read.manifest.schema) == ("anomaly", "residual", 6)
    assert read.manifest.labels == ("normal", "anomaly")
    reference = read_reference(read.files["reference.bin"])
    assert [one.name for one in reference.streams][-1] == "score"
    assert 0 < reference.temperature < 10


def test_a_record_has_the_score_for_every_sink(bundle: Path) -> None:
    """And the heartbeat counts an anomaly as the second class."""
    _, odd = pictures()
    model = load_model(bundle)
    records: list[AnswerRecord] = []
    answers = Answers(watch=lambda record, _data, _model: records.append(record))
    outcome = model.infer(odd)
    answers.answered(model, Capture(name="a.png", data=odd, id="a.png"), outcome, (1, 0.0, 0.01))
    written = json.loads(encode_answer(records[0]))
    assert (written["label"], written["anomalous"], written["task"]) == ("anomaly", True, "anomaly")
    assert sorted(written["scores"]) == ["anomaly", "threshold"]
    assert "boxes" not in written
    assert model.task.seen(model.task.values(outcome.logits[0], 0.0)).predicted == 1


def test_the_local_interface_gives_score_and_verdict(bundle: Path) -> None:
    """Of an encoded picture, and of a tensor as the decoder's number."""
    _, odd = pictures()
    model = load_model(bundle)
    said = api._outputs(model, InferRequest(image=odd, wanted={}))
    assert said["label"] == b"anomaly"
    assert said["anomalous"].tolist() == [True]
    assert said["anomaly"] > said["threshold"]
    assert "confidence" not in said
    shape = (1, *model.manifest.inputs[0].shape[1:])
    of_tensor = api._outputs(model, InferRequest(tensor=np.zeros(shape, np.float32), wanted={}))
    assert of_tensor["anomaly"].shape == (1, 1)
    told = metadata(model.manifest, "anomaly", model.thresholds, model.answer_outputs)
    names = [one["name"] for one in told["outputs"]]  # type: ignore[union-attr,index,call-overload]
    assert names[0] == "anomaly"


SERIES = """
[model]
name = "course"
network = "window_forecast"
network_options = {ahead = 2}
[data]
dataset = "windows"
task = "anomaly"
path = "series"
front_end = "window"
colour = "grey"
width = 4
height = 18
options = {steps = 18, stride = 1, source_windows = 60, low_0 = 0, high_0 = 100}
shares = {train = 0.25, calibration = 0.35, gate = 0.3, reference = 0.1}
[train]
epochs = 8
augment = 0.0
[alarm]
false_alarms_per_day = 2.0
interval_s = 300.0
gap_s = 3600.0
[[compress]]
step = "quantize"
[targets.onnx]
[gates]
false_alarms_per_day = {max = 12.0}
"""


def test_a_series_is_forecast_and_its_course_judged(tmp_path: Path) -> None:
    """All windows of a source are counted, in their order; a jump is answered as an anomaly."""
    (tmp_path / "recipe.toml").write_text(SERIES)
    (tmp_path / "series").mkdir()
    steps = np.arange(4000)
    values = 50 + 10 * np.sin(steps / 15) + np.random.default_rng(0).normal(0, 0.5, len(steps))
    values[2000:2060] += np.where(np.arange(60) % 8 < 4, 25, 0)
    times = [f"2026-01-{1 + step // 288:02d} {step % 288 // 12:02d}:{step % 12 * 5:02d}:00" for step in steps.tolist()]
    rows = [f"{time},{value:.3f}" for time, value in zip(times, values.tolist(), strict=True)]
    (tmp_path / "series" / "a.csv").write_text("\n".join(["timestamp,value", *rows]))
    (tmp_path / "series" / "combined_windows.json").write_text(json.dumps({"a.csv": [[times[2000], times[2059]]]}))
    outcome = run(tmp_path / "recipe.toml", out=tmp_path / "build")
    figures = outcome.figures["onnx"]
    assert outcome.passed, outcome.gates
    assert figures["normal_rows"] > 5 * figures["sources_gate"]
    assert figures["auc"] > 0.8
    with open_bundle(outcome.bundle("onnx")) as model:
        usual = values[500:518]
        jump = usual.copy()
        jump[-2:] += 25
        assert [model.answer(one[:, None]).anomalous for one in (usual, jump)] == [False, True]
