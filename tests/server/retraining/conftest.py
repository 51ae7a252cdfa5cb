"""A server with one release, two drifted devices at a site, and a verdict about them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from server.drift.ledger import Finding, Verdicts
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.errors import RolloutRefusedError
from server.fleet.fleet import Fleet, Outbox
from server.people import By
from server.registry.blobs import Blobs
from server.registry.events import EventLog
from server.registry.versions import Versions
from server.retraining.audit import SteadyAudit
from server.retraining.config import AuditConfig, RetrainingConfig
from server.retraining.jobs import Jobs
from server.retraining.ledger import Triggers
from server.retraining.samples import SampleStore
from server.retraining.service import RetrainingService
from server.rollout.create import RolloutOptions
from server.rollout.model import Rollout, RolloutPhase
from server.store.database import open_database
from server.store.fleet import insert_device
from wire.bundle import build_bundle, parse_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Command, Sample
from wire.reference import Context, Reference, StreamSpec, write_reference
from wire.transport import Incoming
from wire.tuf_target import TargetCustom

MODEL = b"model bytes"
CONFIG = RetrainingConfig(
    sample_bytes_per_day=100_000, min_labelled=20, auto_rollout=True, request_interval_s=60, cooldown_s=3600
)


@dataclass(slots=True)
class RolloutBook:
    """Rollouts that end when the test ends them."""

    requests: list[RolloutOptions] = field(default_factory=list)
    by: list[By] = field(default_factory=list)
    phase: RolloutPhase = RolloutPhase.RUNNING
    refuses: bool = False

    def create(self, request: RolloutOptions, *, by: By = "") -> Rollout:
        """Note the request."""
        self.by.append(by)
        if self.refuses:
            raise RolloutRefusedError("Expected devices without an open rollout, got some of r1")
        self.requests.append(request)
        return self.get("r1")

    def get(self, rollout: str) -> Rollout:
        """Return the rollout in the phase of the test."""
        return Rollout(id=rollout, release=self.requests[-1].release, groups=(), phase=self.phase)

    def list(self) -> tuple[Rollout, ...]:
        """Return the newest rollout."""
        return (self.get("r1"),) if self.requests else ()


@dataclass(slots=True)
class Site:
    """The server's parts, and the messages that the devices received."""

    service: RetrainingService
    rollouts: RolloutBook
    audit: SteadyAudit
    heard: list[Incoming] = field(default_factory=list)

    def alarm(self, windows: int, kind: VerdictKind = VerdictKind.SITE) -> None:
        """Let a verdict be found in ``windows`` windows in a row."""
        verdict = DriftVerdict(kind=kind, devices=("d1", "d2"), attributes=(("site", "west"),))
        for window in range(windows):
            finding = Finding(verdict=verdict, cause="blurrier", release="model-1", model="model")
            self.service.verdicts.note([finding], window * 10, window * 10, quiet_ms=20, judged=True)

    def upload(
        self, count: int, *, wrong: int, lane: str = "audit", start: int = 0, model: bytes = MODEL
    ) -> None:  # fmt: skip
        """Let ``count`` labelled samples arrive, the first ``wrong`` of them predicted wrong."""
        for i in range(start, start + count):
            self.service.samples.accept("d1", sample(i, lane=lane, model=model), 50)
        for i, known in enumerate(self.service.samples.latest(unlabelled=True, limit=1000)):
            self.service.samples.label(known.id, "1" if i < wrong else "0", "a person", 60)

    def commands(self) -> list[Command]:
        """Return the commands that devices received."""
        from wire.codec import decode  # noqa: PLC0415 - only here

        return [decode(Command, message.payload) for message in self.heard if "/cmd/" in message.topic]

    def release(
        self, version: int, *, front_end: str = "", model: bytes = MODEL, name: str = "model", **changes: object
    ) -> None:  # fmt: skip
        """Publish another version, or one of another model, by ``name``; ``changes`` of its manifest."""
        _register(self.service.versions, version, front_end, model, name, **changes)


def sample(number: int, *, lane: str = "audit", model: bytes = MODEL) -> Sample:
    """Return a sample whose image is its number, of a scene of its own, as ``model`` answered it."""
    data = b"image %d" % number
    return Sample(
        boot="b" * 16, seq=number, at_ms=40 + 600_000 * number, request="r", sha256=hashlib.sha256(data).hexdigest(),
        lane=lane, predicted=0, artifact_sha256=sha256_hex(model), data=base64.b64encode(data).decode(),
    )  # fmt: skip


@pytest.fixture
def without_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every release was made without labels: nobody knows how often it is wrong."""
    real = Versions.reference

    def bare(self: Versions, ref_id: str) -> Reference | None:
        found = real(self, ref_id)
        return found and replace(found, risk=0.0, table_right=(0,), table_seen=(0,))

    monkeypatch.setattr(Versions, "reference", bare)


def reference_of(artifact: bytes) -> Reference:
    """Return a small reference profile of ``artifact``."""
    return Reference(
        artifact_sha256=sha256_hex(artifact),
        streams=(StreamSpec(name="luma_mean"),),
        contexts=(Context(name="default", n=100, n_effective=100, counts=(6,) * 16),),
        classes=1,
        confidence_bins=1,
        table_right=(1,),
        table_seen=(1,),
        edges=(tuple(float(i) for i in range(15)),),
        risk=0.05,
    )


def _register(
    versions: Versions, version: int, front_end: str = "", model: bytes = MODEL, name: str = "model", **changes: object
) -> None:  # fmt: skip
    reference = reference_of(model)
    manifest = Manifest(
        model=name,
        version=version,
        target="pi",
        inputs=(TensorSpec(name="x"),),
        outputs=(TensorSpec(name="logits"),),
        preprocessing=Preprocessing(width=8, height=8, front_end=front_end),
        labels=("0", "1"),
    )
    manifest = replace(manifest, **changes)  # type: ignore[arg-type]
    manifest = replace(manifest, schema=manifest.needed_schema)
    data = build_bundle(manifest, {"model.onnx": model, "reference.bin": write_reference(reference)})
    digest = sha256_hex(data)
    versions.blobs.put(digest, [data])
    custom = TargetCustom(
        model=name, version=version, target="pi", artifact_sha256=parse_bundle(data).manifest.artifact_sha256,
        ref_id=reference.ref_id,
    )  # fmt: skip
    versions.register(f"{name}-{version}/pi.tfb", custom, sha256=digest, length_bytes=len(data), now_ms=0)


@pytest.fixture
def site(tmp_path: Path, store_url: str) -> Site:
    """A server that may retrain, roll out by itself, and ask for samples."""
    database = open_database(store_url)
    broker = MemoryBroker()
    transport, events = MemoryTransport(broker=broker, client_id="server"), EventLog(database)
    transport.start(lambda _notice: None, subscriptions=())
    fleet, versions = (
        Fleet(database=database, outbox=Outbox(transport), clock=lambda: 100),
        Versions(database, Blobs(tmp_path / "blobs")),
    )
    for device in ("d1", "d2"):
        with database.begin() as connection:
            insert_device(connection, {"device": device, "site": "west", "attributes": {}, "password_hash": "",
                                       "enrolled_ms": 0})  # fmt: skip
    _register(versions, 1)
    rollouts, samples = (
        RolloutBook(),
        SampleStore(
            database=database,
            folder=tmp_path / "samples",
            config=CONFIG,
            form_of=versions.label_form,
            model_of=versions.model_of,
        ),
    )
    audit = SteadyAudit(
        database=database, fleet=fleet, versions=versions, samples=samples, config=AuditConfig(), retraining=CONFIG
    )
    service = RetrainingService(
        triggers=Triggers(database),
        verdicts=Verdicts(database, events),
        samples=samples,
        jobs=Jobs(database, tmp_path / "jobs", CONFIG),
        fleet=fleet,
        versions=versions,
        rollouts=rollouts,
        audit=audit,
        events=events,
        config=CONFIG,
    )
    world = Site(service, rollouts, audit)

    def hear(notice: object) -> None:
        if isinstance(notice, Incoming):
            world.heard.append(notice)

    MemoryTransport(broker=broker, client_id="devices").start(hear, subscriptions=("tf/1/#",))
    return world


@pytest.fixture
def by_hand(site: Site) -> Site:
    """The same server, where a person starts rollouts."""
    site.service.config = replace(CONFIG, auto_rollout=False)
    return site
