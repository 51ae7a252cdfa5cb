"""Golden files, one per message type and version. They are never edited: a new version gets a new file."""

from dataclasses import replace
from pathlib import Path

import pytest

from wire.bundle import parse_bundle
from wire.codec import decode, encode
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.histogram import Counters, Shape
from wire.manifest import Budgets, Manifest, Preprocessing, TensorSpec, read_manifest
from wire.messages import (
    Ack,
    Batch,
    Command,
    Desired,
    DeviceState,
    Event,
    Get,
    InstalledRelease,
    Reported,
    Response,
    Sample,
    Severity,
    State,
    Stream,
    UpdatePhase,
    UpdateStatus,
    Watermark,
)
from wire.reference import Context, Reference, StreamSpec, read_reference, write_reference
from wire.tuf_target import TargetCustom

GOLDEN = Path(__file__).parent / "golden"
BOOT = "0123456789abcdef"
T_MS = 1_795_000_000_000
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

MESSAGES = {
    "state": State(state=DeviceState.READY, at_ms=T_MS, boot=BOOT, agent_version="0.1.0"),
    "reported": Reported(
        gen=3,
        at_ms=T_MS,
        boot=BOOT,
        agent_version="0.1.0",
        hardware="x86_64",
        runtimes=("onnx",),
        attributes={"camera": "ov5640"},
        current=InstalledRelease("meter-digits-1", SHA),
        previous=None,
        update=UpdateStatus(
            phase=UpdatePhase.PROBATION,
            gen=3,
            release="meter-digits-2",
            code="",
            text="healthy",
            since_ms=T_MS,
            done_bytes=4096,
            total_bytes=4096,
        ),
        safe_mode=False,
    ),
    "desired": Desired(
        gen=3,
        release="meter-digits-2",
        target="meter-digits-2/gateway.tfb",
        sha256=SHA,
        length_bytes=123_456,
        probation_s=60.0,
        max_bytes_per_s=65_536,
        config={"sample_bytes_per_day": 1_000_000},
    ),
    "event": Event(
        boot=BOOT,
        seq=4,
        oldest_seq=1,
        at_ms=T_MS,
        kind="update",
        code="digest_mismatch",
        severity=Severity.ERROR,
        text="refused",
        data={"release": "m-2"},
    ),
    "batch_infer": Batch(
        stream=Stream.INFER,
        boot=BOOT,
        seq=7,
        oldest_seq=1,
        t0_ms=T_MS,
        n=1,
        rows=({"at_ms": T_MS, "classes": [30, 30], "errors": 0, "n": 60, "p50_ms": 1.5, "p95_ms": 2.5},),
        late=True,
    ),
    "batch_hw": Batch(
        stream=Stream.HW,
        boot=BOOT,
        seq=8,
        oldest_seq=1,
        t0_ms=T_MS,
        n=1,
        rows=({"at_ms": T_MS, "cpu_ratio": 0.25, "rss_bytes": 65_011_712},),
    ),
    "sample": Sample(
        boot=BOOT,
        seq=9,
        oldest_seq=1,
        at_ms=T_MS,
        request="req-1",
        sha256=SHA,
        media_type="image/png",
        lane="drift",
        inclusion_ratio=0.25,
        predicted=3,
        confidence=0.5,
        artifact_sha256=SHA,
        data="iVBORw0KGgo=",
    ),
    "command": Command(
        id="c-1",
        verb="samples",
        issued_ms=T_MS,
        expires_ms=T_MS + 60_000,
        arguments={"request": "req-1", "count": 20, "lane": "drift"},
    ),
    "response": Response(id="c-1", ok=False, code="busy", text="an update is running", data={"phase": "probation"}),
    "ack": Ack((Watermark(Stream.DRIFT, BOOT, 41), Watermark(Stream.EVENT, BOOT, 4)), T_MS),
    "get": Get("desired", T_MS),
    "target": TargetCustom(
        model="meter-digits",
        version=2,
        target="gateway",
        runtime="onnx",
        opset=17,
        hardware=("x86_64",),
        security_floor=1,
        artifact_sha256=SHA,
        ref_id=SHA,
        certificate={"accuracy": 0.975},
        extra={"golden_sha256": SHA},
    ),  # signed before nobody read the last
}

MANIFEST = Manifest(
    model="meter-digits",
    version=2,
    target="gateway",
    artifact_sha256=SHA,
    opset=17,
    session_options={"session.intra_op.allow_spinning": "0"},
    inputs=(TensorSpec(name="image", shape=(-1, 3, 32, 32), dtype="float32", layout="NCHW"),),
    outputs=(TensorSpec(name="logits", shape=(-1, 10)), TensorSpec(name="embedding", shape=(-1, 64))),
    preprocessing=Preprocessing(width=32, height=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    labels=tuple("0123456789"),
    hardware=("x86_64",),
    security_floor=1,
    budgets=Budgets(latency_p95_ms=5.0),
    lineage={"recipe_sha256": SHA},
    files={"model.onnx": SHA},
)

LUMA = (3, 5, 9, 4, 2, 6, 1, 0, 7, 4, 3, 5, 2, 4, 1, 4)
CONFIDENCE = (4, 2, 8, 3, 5, 1, 6, 2, 0, 9, 4, 3, 5, 2, 1, 4)
REPORT = DriftReport(
    boot=BOOT,
    seq=41,
    oldest_seq=40,
    window_start_ms=T_MS,
    window_len_ms=3_600_000,
    context=0,
    artifact=SHA[:32],
    ref_id=SHA[32:],
    counters=Counters(Shape(2, 2, 2), 60, (*LUMA, *CONFIDENCE, 0, 1, 10, 20, 0, 30)),
)

REFERENCE = Reference(
    artifact_sha256=SHA,
    streams=(StreamSpec(name="luma_mean", kind="input"), StreamSpec(name="max_confidence", kind="output")),
    contexts=(Context(name="default", n=320, n_effective=160, counts=(10,) * 32),),
    classes=2,
    confidence_bins=2,
    table_right=(70, 80, 75, 85),
    table_seen=(80, 80, 80, 80),
    temperature=1.25,
    risk=0.03125,
    edges=(tuple(i / 16 for i in range(1, 16)),) * 2,
    projection_mean=(0.5, -0.5),
    projection=((1.0, 0.25),) * 8,
    projection_scale=(1.0,) * 8,
)


@pytest.mark.parametrize("name", MESSAGES)
def test_decodes_a_golden_message_into_the_exact_dataclass(name: str) -> None:
    """Messages of an older program keep their meaning."""
    data = (GOLDEN / f"{name}.v1.json").read_bytes()
    assert decode(type(MESSAGES[name]), data) == MESSAGES[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_encodes_a_message_into_the_golden_bytes(name: str) -> None:
    """Our messages are those that an older program expects."""
    assert encode(MESSAGES[name]) == (GOLDEN / f"{name}.v1.json").read_bytes()


def test_reads_and_writes_the_golden_manifest() -> None:
    """The manifest is the same both ways."""
    data = (GOLDEN / "manifest.v1.json").read_bytes()
    assert read_manifest(data) == MANIFEST
    assert encode(MANIFEST) == data


def test_reads_and_writes_the_golden_manifest_of_a_task_from_outside() -> None:
    """Schema 3 is that of schema 1 and the name of the task."""
    told, data = replace(MANIFEST, schema=3, task="tags"), (GOLDEN / "manifest.v3.json").read_bytes()
    assert read_manifest(data) == told
    assert encode(told) == data


def test_reads_and_writes_the_golden_manifest_of_another_resizing() -> None:
    """Schema 5: what a pretrained vision model needs, and every later field."""
    crop = replace(
        MANIFEST.preprocessing, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize="centre_crop",
        resize_to=36, resample="bicubic",
    )  # fmt: skip
    boxed = Preprocessing(width=32, height=24, colour="grey", resize="letterbox", fill=114, antialias=False, bits=16)
    for name, told in (("crop", crop), ("letterbox", boxed)):
        new, data = replace(MANIFEST, schema=5, preprocessing=told), (GOLDEN / f"manifest_{name}.v5.json").read_bytes()
        assert read_manifest(data) == new
        assert encode(new) == data


def test_reads_and_writes_the_golden_drift_report() -> None:
    """The packed report is the same both ways."""
    data = (GOLDEN / "drift_report.v1.bin").read_bytes()
    assert decode_report(data) == REPORT
    assert encode_report(REPORT) == data


@pytest.mark.parametrize("coding", ["plain", "zlib"])
def test_reads_the_other_codings_of_the_golden_drift_report(coding: str) -> None:
    """A sender that packs less well is understood too."""
    assert decode_report((GOLDEN / f"drift_report_{coding}.v1.bin").read_bytes()) == REPORT


def test_reads_and_writes_the_golden_reference() -> None:
    """The reference keeps its bytes and with them its identity."""
    data = (GOLDEN / "reference.v1.bin").read_bytes()
    assert read_reference(data) == REFERENCE
    assert write_reference(REFERENCE) == data
    assert REFERENCE.ref_id == "cc2a8accb54dd38a259589a0e06825c347461fd1f0c5cb2867ca1a7ee2699dd6"


def test_opens_the_golden_bundle() -> None:
    """A bundle of version 1 opens, with every entry in place."""
    bundle = parse_bundle((GOLDEN / "bundle.v1.zip").read_bytes())
    assert bundle.manifest.release == "meter-digits-2"
    assert bundle.artifact == b"not a real model"
    assert sorted(bundle.files) == ["card.md", "model.onnx"]
