"""A real server on a free port with an in-memory transport, five devices, evidence and a verdict; and a browser."""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from sklearn.datasets import load_digits

from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.clock import system_now_ms
from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.ingest.packed_counts import pack
from server.retraining.policy import RetrainingPhase, Trigger
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from server.store.monitoring.checkpoints import add_baselines
from server.store.monitoring.evidence import replace_slot
from server.store.monitoring.ingest import insert_batches
from server.store.monitoring.usage import put_device_days
from server.store.monitoring.windows import insert_windows
from server.store.retraining import insert_job
from server.trust.online_keys import init_online_keys
from wire.bundle import CARD, CERTIFICATE, build_bundle
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import Json, encode
from wire.histogram import Shape
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import (
    DeviceState,
    Event,
    InstalledRelease,
    Reported,
    Sample,
    Severity,
    State,
    UpdatePhase,
    UpdateStatus,
)
from wire.reference import Context, Reference, StreamSpec, write_reference
from wire.shadow import ShadowCounts, ShadowOrder, ShadowPair
from wire.topics import Kind, Topic
from wire.tuf_target import TargetCustom, target_path

HOUR_MS = 3_600_000
PASSWORD = "a long enough password"
THRESHOLD = math.log(24 * 5 / 0.05)
BOOT = "0123456789abcdef"
DEVICES = {
    "gate-01": ("harbour", UpdatePhase.COMMITTED, DeviceState.READY),
    "gate-02": ("harbour", UpdatePhase.DOWNLOADING, DeviceState.UPDATING),
    "meter-07": ("techem", UpdatePhase.COMMITTED, DeviceState.READY),
    "meter-08": ("techem", UpdatePhase.REFUSED, DeviceState.DEGRADED),
    "press-03": ("mill", UpdatePhase.IDLE, DeviceState.LOST),
}
DRIFTING = ("meter-07", "meter-08")
POOLS = (("", "", 3, 1.2), ("site", "harbour", 2, 2.1), ("camera", "ov5640", 2, 6.4))
CHROMIUM_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class World:
    """The server under test and its facts that a test needs."""

    app: ServerApp
    token: str
    broker: MemoryBroker

    @property
    def url(self) -> str:
        """The address of the pages."""
        return self.app.http_url


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve a seeded fleet, anew for each file: a server that another test opens meanwhile takes the pages over."""
    state = init_state(tmp_path_factory.mktemp("browser") / "state")
    init_online_keys(state.path)
    cheap = "[access]\npassword_memory_kib = 64\npassword_passes = 1\n"
    state.config.write_text(state.config.read_text(encoding="utf-8") + cheap, encoding="utf-8")
    broker = MemoryBroker()
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=broker, client_id="server"))
    _enrol(app)
    app.start()
    _speak(broker)
    _evidence(app, system_now_ms() // HOUR_MS * HOUR_MS)
    _rollouts(app)
    _samples(app)
    _measurements(app, system_now_ms() // HOUR_MS * HOUR_MS)
    _jobs(app)
    app.parts.users.add("ada", "admin", PASSWORD, by="test")
    yield World(app, state.token("operator"), broker)
    app.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium; what is expected of a page may take as long as on a machine that does much else."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture
def visitor(browser: Browser, world: World) -> Iterator[Page]:
    """Return a page that is not logged in; the test fails if it requests anything beyond this host."""
    page = browser.new_page(base_url=world.url, viewport={"width": 1280, "height": 900})
    strange: list[str] = []

    def only_here(route: Route) -> None:
        if not route.request.url.startswith((world.url, "data:", "blob:")):
            strange.append(route.request.url)
        route.continue_()

    page.route("**/*", only_here)
    yield page
    page.close()
    assert strange == []


@pytest.fixture
def operator(visitor: Page, world: World) -> Page:
    """Return a page whose person has logged in."""
    return _logged_in(visitor, world, "operator", world.token)


@pytest.fixture
def admin(visitor: Page, world: World) -> Page:
    """Return a page on which the admin ada has logged in."""
    return _logged_in(visitor, world, "ada", PASSWORD)


def _logged_in(visitor: Page, world: World, name: str, password: str) -> Page:
    visitor.goto("/login")
    visitor.get_by_label("Name").fill(name)
    visitor.get_by_label("Password or token").fill(password)
    visitor.get_by_role("button", name="Log in").click()
    visitor.wait_for_url(f"{world.url}/")
    return visitor


def _enrol(app: ServerApp) -> None:
    for device, (site, _, _) in DEVICES.items():
        claim = app.parts.enrolment.claim(site, device, {"camera": "ov5640" if site == "techem" else "ov2640"})
        app.parts.enrolment.enrol(claim)


def _speak(broker: MemoryBroker) -> None:
    now_ms = system_now_ms()
    transport = MemoryTransport(broker=broker, client_id="devices")
    transport.start(lambda _: None, subscriptions=())
    for seq, (device, (site, phase, state)) in enumerate(DEVICES.items(), start=1):
        code = "digest_mismatch" if phase is UpdatePhase.REFUSED else ""
        update = UpdateStatus(
            phase=phase,
            gen=2,
            release="digits-2",
            code=code,
            text="",
            since_ms=now_ms,
            done_bytes=300_000,
            total_bytes=420_000,
            fetched_bytes=39_000,
            shadow=ShadowCounts(seconds=60, n=900, disagreed=9, pairs=(ShadowPair("3", "8", 9),))
            if device == "gate-02"
            else None,
        )
        reported = Reported(
            gen=2,
            at_ms=now_ms,
            boot=BOOT,
            agent_version="0.1.0",
            hardware="x86_64",
            runtimes=("onnx",),
            attributes={},
            current=InstalledRelease("digits-1", "ab" * 32),
            previous=None,
            update=update,
        )
        event = Event(
            boot=BOOT,
            seq=1,
            oldest_seq=1,
            at_ms=now_ms - seq * 60_000,
            kind="update",
            code=code or phase.value,
            severity=Severity.INFO,
            text="digits-2",
        )
        for kind, message in (
            (Kind.STATE, State(state=state, at_ms=now_ms, boot=BOOT, agent_version="0.1.0")),
            (Kind.REPORTED, reported),
            (Kind.EVENT, event),
        ):
            transport.publish(str(Topic(site=site, device=device, kind=kind)), encode(message))


def _evidence(app: ServerApp, newest_ms: int) -> None:
    for age in range(47, -1, -1):
        start_ms = newest_ms - age * HOUR_MS
        rows = [_row(device, index, start_ms, age) for index, device in enumerate(DEVICES)]
        with app.parts.database.begin() as connection:
            replace_slot(connection, start_ms, start_ms + HOUR_MS, rows, [_pool(start_ms, *pool) for pool in POOLS])
    verdict = DriftVerdict(kind=VerdictKind.COHORT, devices=DRIFTING, attributes=(("camera", "ov5640"),))
    finding = Finding(verdict=verdict, cause="darker, blurrier, less confident", release="digits-1", model="digits")
    app.parts.drift.verdicts.note([finding], newest_ms, system_now_ms(), quiet_ms=2 * HOUR_MS, judged=True)


def _row(device: str, index: int, start_ms: int, age: int) -> dict[str, object]:
    drifting = device in DRIFTING
    wave = 1.1 + math.sin(age / 3 + index) + 0.5 * math.sin(age * 1.7 + index)
    value = wave + (max(0, 8 - age) * 1.3 if drifting else 0.0)
    flagged = value >= THRESHOLD
    streams = [
        ("luma_mean", "darker", 0.52),
        ("laplacian", "blurrier", 0.31),
        ("max_confidence", "less confident", 0.1),
    ]
    return {
        "device": device, "start_ms": start_ms, "ref_id": "ab" * 16, "n": 60 + 7 * index,
        "phase": "judged" if age < 40 else "commissioning", "log_value": value if age < 40 else None,
        "training_log_value": wave + 1, "log_threshold": THRESHOLD, "flagged": flagged, "fault": "",
        "cause": "darker, blurrier, less confident" if flagged else "",
        "streams": [{"stream": s, "shape": "down", "share_ratio": r, "words": w} for s, w, r in streams if drifting],
        "summaries": {},
    }  # fmt: skip


def _pool(start_ms: int, attribute: str, value: str, members: int, log_value: float) -> dict[str, object]:
    return {
        "start_ms": start_ms, "ref_id": "ab" * 16, "attribute": attribute, "value": value, "members": members,
        "log_value": log_value, "log_threshold": THRESHOLD, "alarm": log_value >= THRESHOLD,
    }  # fmt: skip


def _rollouts(app: ServerApp) -> None:
    now_ms = system_now_ms()
    for device in ("gate-01", "gate-02"):
        app.parts.fleet.set_desired(device, release="digits-2", target="t", sha256="cd" * 32, length_bytes=420_000)
    members = [
        Member(device="gate-01", group=0, standing=MemberStanding.ASSIGNED, gen=1, assigned_ms=now_ms),
        Member(device="gate-02", group=0, standing=MemberStanding.ASSIGNED, gen=1, assigned_ms=now_ms),
        Member(device="meter-07", group=1),
        Member(device="meter-08", group=1),
        Member(device="press-03", group=1),
    ]
    groups = (
        Group(name="canary", success_ratio=1.0, error_ratio=0.5),
        Group(name="rest", success_ratio=0.9, error_ratio=0.2),
    )
    done = tuple(replace(member, standing=MemberStanding.COMMITTED, air_bytes=420_000) for member in members)
    for rollout in (
        Rollout(
            id="r1",
            release="digits-1",
            groups=groups,
            members=done,
            phase=RolloutPhase.SUCCEEDED,
            opened=2,
            created_ms=now_ms - 30 * HOUR_MS,
        ),
        Rollout(
            id="r2",
            release="digits-2",
            groups=groups,
            members=tuple(members),
            phase=RolloutPhase.RUNNING,
            opened=1,
            dynamic=False,
            shadow=ShadowOrder(3600.0, 0.02),
            created_ms=now_ms,
        ),
        Rollout(
            id="r3",
            release="digits-3",
            groups=groups,
            members=(
                Member(device="meter-08", group=0, standing=MemberStanding.FAILED, gen=1),
                Member(device="press-03", group=1),
            ),
            phase=RolloutPhase.PAUSED,
            code="error_threshold",
            text="1 of 1 in canary failed",
            opened=1,
            dynamic=False,
            created_ms=now_ms,
        ),
    ):
        app.parts.rollouts.ledger.add(rollout)


def _samples(app: ServerApp) -> None:
    _, artifact = _release(app, 1), _release(app, 2)
    digits, parts, now_ms = load_digits(), app.parts, system_now_ms()
    for seq in range(8):
        buffer = io.BytesIO()
        Image.fromarray((digits.images[seq] * 15).astype("uint8")).save(buffer, "PNG")
        data = buffer.getvalue()
        encoded, lane = base64.b64encode(data).decode(), "drift" if seq % 3 else "audit"
        sample = Sample(
            boot=BOOT,
            seq=seq + 1,
            oldest_seq=1,
            at_ms=now_ms - seq * 60_000,
            request="req",
            sha256=sha256_hex(data),
            media_type="image/png",
            lane=lane,
            inclusion_ratio=1.0,
            predicted=(seq * 3) % 10,
            confidence=0.41 + seq / 20,
            artifact_sha256=artifact,
            data=encoded,
        )
        parts.retraining.samples.accept(DRIFTING[seq % 2], sample, now_ms)
    cause = {"words": "darker, blurrier, less confident", "verdict": 1, "devices": DRIFTING, "release": "digits-1"}
    trigger = Trigger(
        id=0, model="digits", cause="cohort:camera=ov5640:", since_ms=now_ms - HOUR_MS, opened_ms=now_ms, **cause
    )
    parts.retraining.triggers.add(replace(trigger, phase=RetrainingPhase.COLLECTING, updated_ms=now_ms))
    parts.retraining.triggers.add(
        replace(trigger, cause="site:site=mill:", phase=RetrainingPhase.SETTLED, text="rollout of digits-1: succeeded",
                result="digits-1", words="brighter", devices=("press-03",), opened_ms=now_ms - 50 * HOUR_MS)
    )  # fmt: skip


def _jobs(app: ServerApp) -> None:
    now_ms = system_now_ms()
    job: dict[str, object] = {
        "id": "job-failed", "retraining": 1, "model": "digits", "base_release": "digits-1", "base_sha256": "ab" * 32,
        "cause": "cohort:camera=ov5640:", "labelled": 40, "samples_sha256": "cd" * 32, "state": "failed",
        "worker": "gpu-host", "attempts": 1, "lease_until_ms": 0, "created_ms": now_ms, "ended_ms": now_ms,
        "release": "", "code": "gate_fail", "text": "accuracy_drop fail: 3 points", "certificate": {}, "look": 1,
    }  # fmt: skip
    with app.parts.database.begin() as connection:
        insert_job(connection, job)
        insert_job(connection, {**job, "id": "job-waits", "state": "queued", "code": "", "text": "", "ended_ms": 0})


JUDGED: dict[str, Json] = {
    "verdict": "pass", "baseline": "float", "remarks": ["<i>Few</i> rows of 7."],
    "gates": [
        {"name": "accuracy_drop", "verdict": "pass", "value": 0.001, "bound": 0.004, "limit": 0.01, "n": 900,
         "text": "0.1 points lost, at most 0.4 with 95 %"},
        {"name": "worst_slice_drop", "verdict": "fail", "value": 0.02, "bound": 0.07, "limit": 0.05, "n": 120,
         "text": "slice harbour: 2 points lost, at most 7", "on": "pi-<zero>"},
        {"name": "artifact_bytes", "verdict": "pass", "value": 90000.0, "limit": 100000.0, "text": "90 kB"},
    ],
    "counts": {"accuracy": [3, 2, 900], "slice:harbour": [4, 0, 120], "slice:mill": [0, 2, 300],
               "slice:" + 12 * "a long name ": [1, 1, 200]},
    "figures": {"accuracy": 0.97, "artifact_bytes": 90000.0},
}  # fmt: skip


def _release(app: ServerApp, version: int) -> str:
    model = f"not a real model {version}".encode()
    manifest = Manifest(
        model="digits",
        version=version,
        target="gateway",
        inputs=(TensorSpec(name="image"),),
        outputs=(TensorSpec(name="logits"),),
        artifact_sha256=sha256_hex(model),
        preprocessing=Preprocessing(width=8, height=8),
        labels=tuple("0123456789"),
        lineage={"recipe": "a1" * 32, "data": "b2" * 32} if version == 1 else {},
    )
    reference = _reference(sha256_hex(model))
    files = {"model.onnx": model, "reference.bin": write_reference(reference)}
    if version == 1:
        files |= {CERTIFICATE: canonical_bytes(JUDGED), CARD: b"# digits-1 for gateway\n\n<b>A small</b> network.\n"}
    data = build_bundle(manifest, files)
    digest, artifact = sha256_hex(data), sha256_hex(model)
    app.parts.blobs.put(digest, [data])
    custom = TargetCustom(model="digits", version=version, target="gateway", runtime="onnx", artifact_sha256=artifact,
                          ref_id=reference.ref_id)  # fmt: skip
    app.parts.versions.register(
        target_path("digits", version, "gateway"), custom, sha256=digest, length_bytes=len(data), now_ms=1
    )
    return artifact


STREAMS = (("luma_mean", "input"), ("laplacian_log", "input"), ("a<b>&'long'" + 12 * "_name", "input"),
           ("confidence", "output"), ("predicted", "output"))  # fmt: skip


def _reference(artifact: str) -> Reference:
    streams = tuple(StreamSpec(name=name, kind=kind, categorical=name == "predicted") for name, kind in STREAMS)
    edges = tuple(tuple(0.05 * (i + 1) for i in range(15)) for _ in STREAMS)
    context = Context(n=1600, n_effective=1600, counts=(100,) * (16 * len(STREAMS)))
    return Reference(artifact_sha256=artifact, streams=streams, contexts=(context,), classes=1, edges=edges,
                     confidence_bins=1, table_seen=(0,), table_right=(0,))  # fmt: skip


def day_before(at_ms: int, days: int) -> str:
    """Return the UTC day so many days before ``at_ms``."""
    return time.strftime("%Y-%m-%d", time.gmtime(at_ms / 1000 - 86_400 * days))


def _measurements(app: ServerApp, newest_ms: int) -> None:
    """Store windows of one device, which is darker than training and than its usual, and what it measured.

    The windows are too old to be judged again, and too new to be merged.
    """
    seen_ms = newest_ms - 32 * 24 * HOUR_MS
    release = next(one for one in app.parts.versions.releases() if one.name == "digits-1")
    shape = Shape(len(STREAMS), 1, 1)
    flat, dark = [4] * 16, [14, 12, 9, 7, 5, 4, 3, 2, 2, 2, 1, 1, 1, 1, 0, 0]
    values = [*dark, *flat * (len(STREAMS) - 1), *[0] * len(STREAMS), 64]
    key = {"device": "meter-07", "artifact": release.custom.artifact_sha256[:32], "ref_id": release.custom.ref_id[:32],
           "context": 0}  # fmt: skip
    with app.parts.database.begin() as connection:
        insert_windows(connection, [
            {**key, "site": "techem", "start_ms": seen_ms - age * HOUR_MS, "len_ms": HOUR_MS,
             "streams": shape.streams, "classes": 1, "confidence_bins": 1, "n": 64, "reports": 1,
             "received_ms": newest_ms,
             "values": pack(np.array(values, np.uint32).tobytes())}
            for age in range(12)
        ])  # fmt: skip
        counts = np.full((shape.streams, 16), 80, "<i8")
        add_baselines(connection, [
            {**key, "since_ms": 0, "completed_ms": seen_ms - 40 * HOUR_MS, "windows": 20, "counts": counts.tobytes(),
             "squares": np.zeros((shape.streams, 3), "<f8").tobytes(), "movement": None, "provisional": False}
        ])  # fmt: skip
        put_device_days(connection, [
            {"device": "meter-07", "day": day_before(newest_ms, day), "sent_bytes": 300_000 + 9_000 * day,
             "received_bytes": 40_000, "written_bytes": 0, "dropped": {}, "merged": 0, "received_ms": newest_ms}
            for day in range(25) if day not in {12, 13}
        ])  # fmt: skip
        for hour in range(20):
            if hour in {7, 8, 9}:  # a gap
                continue
            at_ms = newest_ms - hour * HOUR_MS
            rows = {
                "infer": {"n": 60, "errors": hour % 3, "p50_ms": 11 + hour % 5, "p95_ms": 14 + hour % 7},
                "hw": {"rss_bytes": 55_000_000 + hour * 100_000, "cpu_ratio": 0.04 + hour / 500,
                       "temperature_celsius": 0.0, "disk_free_bytes": 10**9, "spool_bytes": 900 * hour},
            }  # fmt: skip
            insert_batches(connection, [
                {"device": "meter-07", "stream": stream, "t0_ms": at_ms, "n": 6, "received_ms": at_ms + HOUR_MS,
                 "rows": [{"at_ms": at_ms + 600_000 * i, **row} for i in range(6)]}
                for stream, row in rows.items()
            ])  # fmt: skip
