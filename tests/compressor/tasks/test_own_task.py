"""An external task, one folder on each side: through run, gate, bundle, agent and report without any other edit."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressor import data, tasks
from compressor.errors import PluginError, RecipeError
from compressor.exploration.explore import explore
from compressor.gates import Verdict
from compressor.progress import Silent
from compressor.recipe import preflight
from compressor.recipe.read import parse_recipe
from compressor.release.regate import gate_again
from compressor.release.verify import verify_bundle
from compressor.run.pipeline import Outcome, run_recipe
from edge_agent import tasks as device_tasks
from edge_agent.api import open_bundle
from edge_agent.errors import TaskMissingError
from edge_agent.inference.probe import probe
from edge_agent.pipe_frames import encode_frame, read_frame
from wire.bundle import read_bundle
from wire.manifest import Manifest, TensorSpec

HERE = Path(__file__).parent
GUIDE = HERE.parents[2] / "docs" / "how-to" / "own-task.md"
BLOCKS = re.findall(r"^```(\w+)\n(?:# (\S+)\n)?(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
RECIPE = """
[model]
name = "tags"
network = "resnet8"
network_options = {filters = 4, stem_stride = 1}
[data]
task = "trial_tags:TASK"
dataset = "trial_tags.pictures:load"
width = 8
height = 8
shares = {train = 0.4, calibration = 0.1, gate = 0.3, reference = 0.2}
[train]
epochs = 8
batch = 32
augment = 0.0
learning_rate = 0.01
[[compress]]
step = "prune"
macs_ratio = 0.9
rounds = 1
fine_tune_epochs = 1
[[compress]]
step = "qat"
epochs = 1
reduce_range = true
allow_unchanged = true
[[compress]]
step = "quantize"
reduce_range = true
[targets.host]
runtime = "onnx"
[gates]
"trial_tags.evidence:RIGHT_TAGS" = {min = 0.9}
size_bytes = {max = 1000000}
parity_cosine = {min = 0.8}
"""
MODEL = '[model]\nname = "m"\n'


def on_path(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put the compressor's half on the path, and the device's half as an installed package declares it."""
    info = folder / "trial_tags_device-0.1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trial-tags-device\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[edge_agent.tasks]\ntrial-tags = trial_tags_device:make\n")
    ways = [HERE / "trial", HERE / "trial_device", folder]
    for way in ways:
        patch.syspath_prepend(way)
    patch.setenv("PYTHONPATH", os.pathsep.join(map(str, ways)), prepend=os.pathsep)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run, shared."""
    folder = tmp_path_factory.mktemp("tags")
    with pytest.MonkeyPatch.context() as patch:
        on_path(patch, folder)
        return run_recipe(parse_recipe(RECIPE.encode()), out=folder / "build")


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both halves are there."""
    on_path(monkeypatch, tmp_path)


def test_it_learns_and_its_own_gate_passes(outcome: Outcome) -> None:
    """Its figures, its gate and that it beats one answer to everything are in the certificate."""
    certificate = outcome.certificate
    assert outcome.verdict is Verdict.PASS, [line.text for line in certificate.gates]
    names = {line.name for line in certificate.gates}
    assert {"trial_tags.evidence:RIGHT_TAGS", "better_than_constant"} <= names
    assert certificate.figures["tag_accuracy"] > 0.9
    assert "trial_tags.evidence" in certificate.code_digests
    assert not any("accuracy_drop" in name or "mae" in name for name in certificate.figures)


def test_the_report_shows_it_in_its_own_words(outcome: Outcome) -> None:
    """The picture, the tiles and the loss of each step."""
    page = outcome.report.read_text()
    for said in ("Right tags (compressed, gate split)", "right tags, compressed", "hits on search rows"):
        assert said in page


def test_the_bundle_names_it_and_is_judged_again(outcome: Outcome) -> None:
    """Manifest of schema 3, card, golden vectors, certificate."""
    bundle = read_bundle(outcome.bundles[0])
    assert (bundle.manifest.task, bundle.manifest.schema, bundle.manifest.labels) == ("trial-tags", 3, ("left", "top"))
    assert b"the tags left, top" in bundle.files["card.md"]
    assert verify_bundle(outcome.bundles[0]).verdict == "pass"
    assert gate_again(outcome.bundles[0]).verdict == "pass"


def test_a_device_probes_and_answers_with_it(outcome: Outcome) -> None:
    """The answer is a set of tags; the drift streams are its own."""
    assert probe(outcome.bundles[0]).ok
    image = np.full((8, 8, 3), 40, np.uint8)
    image[:, :4] += 80
    with open_bundle(outcome.bundles[0]) as model:
        answer = model.answer(image)
        assert (answer.label, set(answer.values)) == ("left", {"left", "top"})
        assert (answer.streams["tags"], "confidence" in answer.streams) == (1.0, False)


def test_the_agents_child_serves_and_counts_it(outcome: Outcome, tmp_path: Path) -> None:
    """The real process: windows of its streams, a heartbeat without classes."""
    from PIL import Image  # noqa: PLC0415 - this test alone

    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for row in range(6):
        Image.fromarray(np.full((8, 8, 3), 20 * row, np.uint8)).save(inbox / f"{row}.png")
    source = json.dumps({"kind": "directory", "path": str(inbox)})
    command = [sys.executable, "-m", "edge_agent.inference.child", "--bundle", str(outcome.bundles[0]), "--source"]
    with subprocess.Popen(
        [*command, source, "--beat-s", "0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        served = 0
        while served < 6 and (frame := read_frame(process.stdout)) is not None:  # type: ignore[arg-type]
            served += int(frame.header["n"]) if frame.kind == "beat" else 0  # type: ignore[call-overload]
        process.stdin.write(encode_frame({"type": "stop"}))
        process.stdin.close()
        heard = []
        while (frame := read_frame(process.stdout)) is not None:  # type: ignore[arg-type]
            heard.append(frame)
    window = next(frame for frame in heard if frame.kind == "window")
    assert (window.header["streams"], window.header["classes"]) == (10 + 9 + 2, 0)  # of image, embedding and tags


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            'task = "regresion"',
            "or detection or multi_label or regression or stream_events, or 'module:attribute', got 'regresion'",
        ),
        ('task = "not_there_at_all:TASK"', "the module 'not_there_at_all'"),
        ('task = "trial_tags:TAKS"', "'TAKS' in trial_tags, got no such name: did you mean 'TASK'"),
        ('task = "trial_tags:TASK"\nlabel = "number"', "which is of regression: leave one of the two out"),
        ('task = "trial_tags:TASK"\n[train]\nclass_weights = "balanced"', "class_weights in a recipe of classes alone"),
        ('task = "trial_tags:TASK"\n[gates]\naccuracy = {min = 0.5}', "that is for one of classes"),
    ],
)
def test_a_recipe_is_checked_by_its_task(lines: str, said: str) -> None:
    """Before any data is read, with the known names."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"{MODEL}[data]\n{lines}".encode())
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["classification", "detection", "multi_label", "regression"])
def test_a_task_of_the_folder_may_be_named(name: str) -> None:
    """Without a name the label decides."""
    recipe = parse_recipe(f'{MODEL}[data]\ntask = "{name}"'.encode())
    assert tasks.of(recipe.data).name == name
    with pytest.raises(PluginError, match="classification, detection, multi_label, regression, stream_events or"):
        tasks.named("nothing_such")


def test_a_build_host_without_the_devices_half_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained: the drift reference is made with it."""
    monkeypatch.setattr(
        sys, "path", [str(HERE / "trial"), *(way for way in sys.path if "trial" not in way and way != str(tmp_path))]
    )
    with pytest.raises(PluginError, match="device half 'trial-tags'"):
        preflight.check(parse_recipe(RECIPE.encode()), tmp_path / "build")


def test_a_device_without_its_half_refuses_the_model() -> None:
    """A manifest can't cause an import; only a task that an installed package declares is loaded."""
    manifest = Manifest(model="m", version=1, task="os:system", outputs=(TensorSpec(name="logits", shape=(-1, 2)),))
    with pytest.raises(TaskMissingError, match="got 'os:system': install the package"):
        device_tasks.of_manifest(manifest)


COUNTED = """
import numpy as np
from compressor.data._table import make_table


def load(data, root):
    random = np.random.default_rng(0)
    pieces = random.integers(0, 10, 600)
    noise = random.integers(0, 9, (600, 8, 8, 3), dtype=np.uint8)
    images = list((20 * pieces[:, None, None, None]).astype(np.uint8) + noise)
    sold = pieces + random.integers(-2, 3, 600)
    return make_table(images, [str(count) for count in sold], slices=["all"] * 600)
"""


@pytest.mark.slow
def test_the_examples_of_the_guide_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantile is learnt, and above the mean; the tags are counted and answered."""
    (tmp_path / "counted.py").write_text(COUNTED)
    for kind, name, text in BLOCKS:
        if kind == "python":
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    shown = next(text for kind, _, text in BLOCKS if kind == "toml" and "quantile:TASK" in text)
    recipe = RECIPE.partition("[gates]")[0].replace('"trial_tags:TASK"', '"quantile:TASK"')
    recipe = recipe.replace("trial_tags.pictures:load", "counted:load") + shown.partition("\n\n")[2]
    outcome = run_recipe(parse_recipe(recipe.encode()), out=tmp_path / "build")
    assert outcome.certificate.figures["mae"] < 3
    assert {line.name for line in outcome.certificate.gates} == {"error_increase", "better_than_constant"}
    made = importlib.import_module("tags_on_device").make(2)
    assert made.values(np.array([1.0, -1.0]), 1.0) == [1.0]
    assert made.answer([1.0, -1.0], [1.0], ("left", "top")).label == "left"


def test_its_data_are_explored_in_groups(tmp_path: Path) -> None:
    """`compressor data` shows sets of tags as classes, and judges no label."""
    recipe = parse_recipe(RECIPE.encode())
    table = data.load(recipe.data, tmp_path)
    found = explore(table, Silent())
    assert set(found.classes) == {"left", "left+top", "none", "top"}
    assert any("sets of tags" in note for note in found.notes)
    assert any("not one class a row" in note for note in found.notes)
