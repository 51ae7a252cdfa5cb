"""A server that went through the loop: release, rollout, samples, labels, job, second release, second rollout."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import pytest

from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.lineage.answers import LineageAnswers
from server.lineage.graph import LineageGraph, LineageNode
from server.people import Actor, ActorKind
from server.registry.versions import Versions
from server.rollout.create import RolloutOptions
from tests.server.conftest import FakeDevice, MemoryFleet
from wire.bundle import CARD, CERTIFICATE, build_bundle, parse_bundle
from wire.canonical import canonical_bytes, sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.messages import DeviceState, InstalledRelease, Reported, Sample, State, UpdatePhase, UpdateStatus
from wire.tuf_target import TargetCustom, target_path

INPUTS = {"recipe": "a1" * 32, "data": "b2" * 32, "float_weights": "c3" * 32, "baseline": "float"}
CERTIFICATE_DOCUMENT: dict[str, Any] = {
    "verdict": "pass", "baseline": "float", "gate_split": "d4" * 32,
    "gates": [
        {"name": "accuracy_drop", "verdict": "pass", "value": 0.001, "bound": 0.004, "limit": 0.01, "n": 900,
         "text": "0.1 points lost, at most 0.4"},
        {"name": "artifact_bytes", "verdict": "pass", "value": 90000.0, "limit": 100000.0, "text": "90 kB"},
    ],
    "counts": {"accuracy": [3, 2, 900], "slice:west": [2, 0, 300], "slice:east": [1, 2, 600]},
    "figures": {"accuracy": 0.97, "artifact_bytes": 90000.0},
}  # fmt: skip
CARD_TEXT = "# digits-1 for gateway\n\nA small network.\n\n| gate | verdict |\n|---|---|\n| accuracy | pass |\n"


def person(name: str) -> Actor:
    """Return somebody with an account."""
    return Actor(account=name, kind=ActorKind.USER)


def publish(versions: Versions, version: int, *, bare: bool = False, **changes: object) -> str:
    """Publish a release of digits as ``maria``; ``bare``: its bundle has no certificate, card or digests."""
    manifest = Manifest(
        model="digits", version=version, target="gateway", inputs=(TensorSpec(name="x"),),
        outputs=(TensorSpec(name="logits"),), preprocessing=Preprocessing(width=8, height=8), labels=("0", "1"),
        lineage={} if bare else INPUTS,
    )  # fmt: skip
    files = {"model.onnx": b"model %d" % version}
    if not bare:
        files |= {CERTIFICATE: canonical_bytes(CERTIFICATE_DOCUMENT), CARD: CARD_TEXT.encode()}
    data = build_bundle(replace(manifest, **changes), files)  # type: ignore[arg-type]
    digest = sha256_hex(data)
    versions.blobs.put(digest, [data])
    custom = TargetCustom(
        model="digits", version=version, target="gateway", artifact_sha256=parse_bundle(data).manifest.artifact_sha256
    )
    path = target_path("digits", version, "gateway")
    versions.register(path, custom, sha256=digest, length_bytes=len(data), now_ms=10 * version, by=person("maria"))
    return digest


@dataclass(slots=True)
class Loop:
    """The server, and what the loop made: its digests, rollouts, samples and job."""

    fleet: MemoryFleet
    devices: dict[str, FakeDevice]
    first: str = ""
    second: str = ""
    rollouts: tuple[str, ...] = ()
    job: str = ""

    @property
    def answers(self) -> LineageAnswers:
        """The answers of the server."""
        return self.fleet.app.parts.origins

    def runs(self, device: str, release: str, sha256: str) -> None:
        """Let ``device`` report that it runs a release and has committed it."""
        self.fleet.clock.now_ms += 1_000
        found = self.devices[device].desired()
        current = InstalledRelease(release=release, sha256=sha256) if release else None
        phase = UpdatePhase.COMMITTED if release else UpdatePhase.IDLE
        gen = found.gen if found else 0
        status = UpdateStatus(phase=phase, release=release, gen=gen, answered=5 if release else None)
        self.devices[device].say("state", State(state=DeviceState.READY), retain=True)
        self.devices[device].say("reported", Reported(
            at_ms=self.fleet.clock(), gen=gen, runtimes=("onnx",),
            attributes={"target": "gateway"}, current=current, update=status,
        ), retain=True)  # fmt: skip
        for _ in range(3):  # the rollout settles the device, then opens the next group, then assigns
            self.fleet.turn()

    def roll_out(self, release: str) -> str:
        """Let ``bo`` make a rollout of ``release``, and ``anna`` approve it."""
        rollouts = self.fleet.app.parts.rollouts
        made = rollouts.create(RolloutOptions(release=release, canary=("cam-1",)), by=person("bo"))
        rollouts.approve(made.id, by=person("anna"))
        self.fleet.turn()
        return made.id

    def take(self, number: int, device: str = "cam-1", *, artifact: bytes = b"model 1", label: str = "1") -> int:
        """Let ``device`` send an image; ``carla`` labels the even ones, ``dan`` the others; return the sample's id."""
        data = b"image %d" % number
        samples = self.fleet.app.parts.retraining.samples
        samples.accept(device, Sample(
            boot="b" * 16, seq=number, at_ms=self.fleet.clock() + 600_000 * number, request="r", lane="audit",
            sha256=sha256_hex(data), predicted=0, artifact_sha256=sha256_hex(artifact),
            data=base64.b64encode(data).decode(),
        ), self.fleet.clock())  # fmt: skip
        found = next(one for one in samples.latest() if one.sha256 == sha256_hex(data) and one.device == device)
        samples.label(found.id, label, person("carla" if number % 2 == 0 else "dan"), self.fleet.clock())
        return found.id

    def drift(self) -> int:
        """Let a verdict be found about cam-1 and its site, and turn until ``anna`` may approve a job; return the id."""
        parts = self.fleet.app.parts
        verdict = DriftVerdict(kind=VerdictKind.SITE, devices=("cam-1",), attributes=(("site", "berlin"),))
        finding = Finding(verdict=verdict, cause="blurrier", release="digits-1", model="digits")
        for _ in range(4):
            self.fleet.clock.now_ms += 10
            now_ms = self.fleet.clock()
            parts.drift.verdicts.note([finding], now_ms, now_ms, quiet_ms=20_000, judged=True)
            parts.retraining.turn(now_ms)
        (trigger,) = parts.retraining.triggers.all()
        return trigger.id

    def train(self, trigger: int) -> None:
        """Let ``anna`` approve the training, and a worker make digits-2 of it."""
        parts = self.fleet.app.parts
        parts.retraining.approve(trigger, by=person("anna"))
        for _ in range(3):
            parts.retraining.turn(self.fleet.clock())
        leased = parts.retraining.jobs.lease("worker-1", self.fleet.clock())
        assert leased is not None
        self.job, self.second = leased.id, publish(parts.versions, 2)
        parts.retraining.jobs.done(leased.id, "worker-1", "digits-2", {"look": 1}, self.fleet.clock())
        parts.retraining.turn(self.fleet.clock())

    def node(self, graph: LineageGraph, kind: str, name: str = "") -> LineageNode:
        """Return the node of a kind, and of an id if there are several."""
        (found,) = [one for one in graph.nodes if one.kind == kind and name in ("", one.id)]
        return found


@pytest.fixture
def state_config() -> str:
    """What server.toml has."""
    return "[retraining]\nsample_bytes_per_day = 100_000\nmin_labelled = 6\nsource_block_s = 60\n"


@pytest.fixture
def loop(fleet: MemoryFleet, state_config: str) -> Loop:
    """A server after the whole loop; only cam-1 has got digits-2."""
    config = fleet.state.config.read_text(encoding="utf-8") if fleet.state.config.exists() else ""
    fleet.state.config.write_text(config + state_config, encoding="utf-8")
    fleet.restart()
    made = Loop(fleet, {name: fleet.enrol(name, target="gateway") for name in ("cam-1", "cam-2")})
    made.first = publish(fleet.app.parts.versions, 1)
    for name in made.devices:
        made.runs(name, "", "")
    first = made.roll_out("digits-1")
    for name in made.devices:
        made.runs(name, "digits-1", made.first)
    trigger = made.drift()
    for number in range(8):
        made.take(number)
    made.take(50, "cam-2")
    made.train(trigger)
    second = made.roll_out("digits-2")
    made.runs("cam-1", "digits-2", made.second)
    made.rollouts = (first, second)
    return made
