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

from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.retraining.labelling import LabelForm
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
    data = build_archive(samples.labelled(["cam"], 0), lambda device: device, samples.image)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
    assert [row["label"] for row in rows] == [stored]


def test_a_form_follows_the_manifest() -> None:
    """Classes, values with or without their usual range, or any text."""
    assert LabelForm.of(Manifest(labels=("no", "yes"))) == LabelForm(classes=("no", "yes"))
    assert LabelForm.of(METER) == LabelForm(values=("litres",), usual=((12.5, 3.0),))
    assert LabelForm.of(Manifest()) == LabelForm()


@pytest.mark.parametrize(
    ("label", "fits"), [("1 2", True), (" 1.5  -2e3 ", True), ("1", False), ("1 2 3", False), ("1 x", False)]
)
def test_several_values_need_as_many_numbers(label: str, *, fits: bool) -> None:
    """Separated by spaces."""
    assert (LabelForm(values=("height_m", "width_m")).problem(label) == "") is fits
