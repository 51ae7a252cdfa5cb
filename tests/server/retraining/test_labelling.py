"""A sample is labelled as the task of its model asks: with a class or with numbers."""

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_agent.tasks import is_told, names
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.retraining.labelling import NOTHING, LabelForm
from server.retraining.samples import build_archive
from server.trust.online_keys import init_online_keys
from tests.server.retraining.conftest import reference_of
from wire.bundle import build_bundle, parse_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Sample
from wire.reference import write_reference
from wire.tuf_target import TargetCustom

IMAGE = b"image"
OUTPUT = TensorSpec(name="values", mean=(12.5,), spread=(3.0,))
METER = Manifest(
    model="meter", version=1, target="pi", inputs=(TensorSpec(name="x"),), outputs=(OUTPUT,), values=("litres",),
    preprocessing=Preprocessing(width=8, height=8),
)  # fmt: skip


def _publish(app: ServerApp, manifest: Manifest) -> str:
    """Register the release of ``manifest``; return the digest of its artifact."""
    model = manifest.model.encode()
    data = build_bundle(manifest, {"model.onnx": model, "reference.bin": write_reference(reference_of(model))})
    artifact = parse_bundle(data).manifest.artifact_sha256
    custom = TargetCustom(model=manifest.model, version=1, target="pi", artifact_sha256=artifact)
    app.parts.versions.blobs.put(sha256_hex(data), [data])
    app.parts.versions.register(
        f"{manifest.release}/pi.tfb", custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1
    )
    return artifact


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ServerApp]:
    """A running server with the release of a meter and one of its samples."""
    state = init_state(tmp_path / "state")
    init_online_keys(state.path)
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    artifact = _publish(app, METER)
    app.parts.retraining.samples.accept("cam", Sample(
        boot="b", seq=1, at_ms=40, sha256=hashlib.sha256(IMAGE).hexdigest(), data=base64.b64encode(IMAGE).decode(),
        artifact_sha256=artifact,
    ), 50)  # fmt: skip
    app.start()
    yield app
    app.stop()


@pytest.fixture
def operator(app: ServerApp) -> Iterator[httpx.Client]:
    """An operator with a session and a token."""
    token = app.state.token("operator")
    with httpx.Client(base_url=app.http_url, headers={"Authorization": f"Bearer {token}"}) as client:
        client.post("/login", data={"token": token})
        yield client


def test_the_page_of_a_regression_has_a_number_field(operator: httpx.Client) -> None:
    """Its name is that of the value, its hint the usual range."""
    page = operator.get("/samples").text
    assert "litres of sample 1" in page
    assert "in training 12.5" in page
    assert "What does the image show?" not in page


@pytest.mark.parametrize("label", ["empty", "nan", "3,7", "1 2", "inf"])
def test_a_label_that_is_no_number_is_refused(operator: httpx.Client, label: str) -> None:
    """It would fail the job that trains with it."""
    answer = operator.put("/api/samples/1/label", json={"label": label, "by": "ada"})
    assert (answer.status_code, answer.json()["code"]) == (422, "label_refused")
    assert "Expected a number as label (litres)" in answer.json()["text"]


@pytest.mark.parametrize(("label", "stored"), [("13.25", "13.25"), (13.25, "13.25"), (-4, "-4")])
def test_a_number_reaches_what_a_retraining_reads(
    app: ServerApp, operator: httpx.Client, label: str | float, stored: str
) -> None:
    """As text or as a number of JSON."""
    assert operator.put("/api/samples/1/label", json={"label": label, "by": "ada"}).status_code == 200
    samples = app.parts.retraining.samples
    data = build_archive(samples.labelled(["cam"], 0, "meter"), lambda device: device, samples.image)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
    assert [row["label"] for row in rows] == [stored]
    (act,) = [one for one in app.parts.acts.after(0, 99) if one.act == "sample.label"]
    assert (act.account, act.said, act.subject, act.data["label"]) == ("operator", "ada", "1", stored)


def test_a_form_follows_the_manifest() -> None:
    """Classes, values with or without their usual range, or any text."""
    assert LabelForm.of(Manifest(labels=("no", "yes"))) == LabelForm(classes=("no", "yes"))
    meter, unnamed = LabelForm.of(METER), LabelForm.of(Manifest())
    assert (meter.values, meter.usual, meter.refusal) == (("litres",), ((12.5, 3.0),), "")
    assert (unnamed.problem("any text"), unnamed.can_train("any text")) == ("", True)
    assert meter.not_asked == unnamed.not_asked != ""


@pytest.mark.parametrize("name", [name for name in names() if is_told(name)])
def test_a_task_with_other_answers_takes_no_label(name: str) -> None:
    """Of boxes, sets of labels, scores and events, one of their names would be half of the truth."""
    form = LabelForm.of(Manifest(task=name, labels=("0", "1")))
    for label in ("0", "0|1", NOTHING):
        assert f"answers of the task {name!r}: a label here is one class" in form.problem(label)
        assert not form.can_train(label)
    assert form.problem("0").endswith("add them to the data of its recipe, and run the recipe")
    assert (form.classes, form.not_asked) == ((), form.refusal)
    assert form.pictures
    assert 0 < len(form.not_asked_reason) < len(form.not_asked)
    assert "run the recipe" not in form.not_asked_reason


def test_a_verdict_s_advice_knows_what_is_asked_for(app: ServerApp) -> None:
    """The server's drift detection asks the form of the release."""
    (release,) = app.parts.versions.releases()
    assert app.parts.drift.not_asked(release).startswith("answers without classes: devices report no number")


def test_what_a_front_end_reads_takes_no_label() -> None:
    """Devices send only pictures, so nobody sees what is labelled."""
    form = LabelForm.of(Manifest(labels=("0", "1"), preprocessing=Preprocessing(front_end="log_mel")))
    assert "the front end 'log_mel' reads: devices send only pictures" in form.problem("0")


def test_a_sample_of_boxes_is_refused_by_the_page_and_the_interface(app: ServerApp, operator: httpx.Client) -> None:
    """As an older agent sends it, corrected by its user: no button offers a class, and the answer says what to do."""
    scenes = Manifest(
        model="scenes", version=1, target="pi", inputs=(TensorSpec(name="x"),), outputs=(TensorSpec(name="boxes"),),
        labels=("circle", "square"), task="detection", preprocessing=Preprocessing(width=8, height=8), schema=3,
    )  # fmt: skip
    image = b"scene"
    app.parts.retraining.samples.accept("cam", Sample(
        boot="b", seq=2, at_ms=40, sha256=hashlib.sha256(image).hexdigest(), data=base64.b64encode(image).decode(),
        artifact_sha256=_publish(app, scenes), lane="correction", label="circle",
    ), 50)  # fmt: skip
    for path in ("/samples", "/samples/2"):
        page = operator.get(path).text
        assert "Model: its answer is more than one class; a user says circle" in page
        assert "Not labelled here: answers of the task" in page
        assert "Label sample 2 as circle" not in page
    answer = operator.put("/api/samples/2/label", json={"label": "circle", "by": "ada"})
    assert (answer.status_code, answer.json()["code"]) == (422, "label_refused")
    assert "such as in Label Studio" in answer.json()["text"]


@pytest.mark.parametrize(
    ("label", "fits"), [("1 2", True), (" 1.5  -2e3 ", True), ("1", False), ("1 2 3", False), ("1 x", False)]
)
def test_several_values_need_as_many_numbers(label: str, *, fits: bool) -> None:
    """Separated by spaces."""
    assert (LabelForm(values=("height_m", "width_m")).problem(label) == "") is fits
