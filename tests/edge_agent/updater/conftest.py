"""A device's updater on a real disk with seams in memory; releases are small real bundles."""

import queue
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.config import UpdateConfig
from edge_agent.device.disk import Disk, RealDisk
from edge_agent.device.last_end import LastEnd
from edge_agent.updater.ports import (
    InlineWorker,
    JobDone,
    MemoryFetcher,
    MemoryProber,
    MemoryVerifier,
    ProbeResult,
    Refusal,
    TargetInfo,
)
from edge_agent.updater.states import UpdateRecord
from edge_agent.updater.storage.slots import SlotRelease, Slots
from edge_agent.updater.updater import UpdatePorts, Updater
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.messages import Desired, UpdatePhase
from wire.tuf_target import TargetCustom, target_path

NOW_MS = 1_000_000


@dataclass(frozen=True)
class Release:
    """A bundle, its signed metadata, and the desired state for it."""

    data: bytes
    target: TargetInfo
    desired: Desired


def make_release(version: int, *, floor: int = 0, gen: int = 0) -> Release:
    """Return release ``m-<version>``, desired as generation ``gen`` (default: its version)."""
    manifest = Manifest(
        model="m",
        version=version,
        target="t",
        security_floor=floor,
        inputs=(TensorSpec(name="input", shape=(-1, 1, 8, 8)),),
        outputs=(TensorSpec(name="logits", shape=(-1, 2)),),
        preprocessing=Preprocessing(width=8, height=8),
    )
    artifact = f"model {version}".encode()
    data = build_bundle(manifest, {"model.onnx": artifact})
    custom = TargetCustom(
        model="m",
        version=version,
        target="t",
        runtime="onnx",
        hardware=("x86_64",),
        security_floor=floor,
        artifact_sha256=sha256_hex(artifact),
    )
    target = TargetInfo(sha256_hex(data), len(data), custom)
    desired = Desired(
        gen=gen or version,
        release=f"m-{version}",
        target=target_path("m", version, "t"),
        sha256=target.sha256,
        length_bytes=len(data),
        probation_s=10.0,
    )
    return Release(data, target, desired)


@dataclass
class Device:
    """The updater, its clock, and its recorded actions."""

    state: Path
    disk: Disk
    targets: dict[str, TargetInfo | Refusal] = field(default_factory=dict)
    blobs: dict[str, bytes | Refusal] = field(default_factory=dict)
    probe: ProbeResult = field(default_factory=lambda: ProbeResult(ok=True))
    now_s: float = 0.0
    phases: list[str] = field(default_factory=list)
    served: list[SlotRelease | None] = field(default_factory=list)
    compared: list[SlotRelease | None] = field(default_factory=list)
    done: queue.SimpleQueue[JobDone] = field(default_factory=queue.SimpleQueue)
    config: UpdateConfig = field(default_factory=lambda: UpdateConfig(reserve_bytes=0))

    def __post_init__(self) -> None:
        """Switch on."""
        self.boot()

    def boot(self) -> None:
        """Start the updater as after a reboot: memory is lost, the disk is not."""
        self.done = queue.SimpleQueue()
        self.worker = InlineWorker(self.done.put)
        fetcher = MemoryFetcher(self.blobs, self.state / "blobs" / "sha256")
        ports = UpdatePorts(
            verifier=MemoryVerifier(self.targets),
            fetcher=fetcher,
            prober=MemoryProber(self.probe),
            worker=self.worker,
            hardware="x86_64",
            runtimes=("onnx",),
        )
        self.updater = Updater(
            state=self.state,
            disk=self.disk,
            ports=ports,
            config=self.config,
            activate=self.served.append,
            changed=self._heard,
            compare=self.compared.append,
        )

    def _heard(self, record: UpdateRecord) -> None:
        self.phases.append(record.code or str(record.phase))

    @property
    def slots(self) -> Slots:
        """The slots on the disk."""
        return Slots(self.state, self.disk)

    @property
    def now_ms(self) -> int:
        """The wall clock."""
        return NOW_MS + round(self.now_s * 1000)

    def publish(self, release: Release) -> Release:
        """Sign and upload a release."""
        self.targets[release.desired.target] = release.target
        self.blobs[release.target.sha256] = release.data
        return release

    def offer(self, desired: Desired) -> bool:
        """Pass a desired state to the updater."""
        return self.updater.offer(desired, self.now_ms, self.now_s)

    def work(self) -> None:
        """Run jobs and take their results until nothing is left to do."""
        while self.worker.work():
            while not self.done.empty():
                job = self.done.get()
                self.updater.finished(job.token, job.result, self.now_ms, self.now_s)

    def work_out(self, tries: int = 10) -> None:
        """Work, and let time pass for whatever waits for another try."""
        for _ in range(tries):
            self.work()
            self.pass_time(self.config.defer_max_s)
        self.work()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, then turn."""
        self.now_s += seconds
        self.updater.turn(self.now_ms, self.now_s)

    def beat(self, *, n: int = 10, errors: int = 0, p95_ms: float = 1.0) -> None:
        """Let the child send a heartbeat."""
        self.updater.health = self.updater.health.beat(n=n, errors=errors, p95_ms=p95_ms)

    def install(self, release: Release) -> None:
        """Take a release all the way to committed."""
        self.publish(release)
        self.offer(release.desired)
        self.work()
        self.beat()
        self.pass_time(release.desired.probation_s)
        assert self.updater.record.phase is UpdatePhase.COMMITTED, self.updater.record

    def restart(self, ended: LastEnd = LastEnd.AGENT) -> None:
        """Reboot and restore the persisted state; ``ended``: how the agent's previous run ended."""
        self.boot()
        self.updater.resume(self.now_ms, self.now_s, ended)

    def fail_probe(self, code: str) -> None:
        """Let every probe fail from now on."""
        self.updater.ports = replace(self.updater.ports, prober=MemoryProber(ProbeResult(code=code)))

    def current(self) -> str:
        """Return the current release's name."""
        found = self.slots.current()
        return found.release if found is not None else ""


@pytest.fixture
def device(tmp_path: Path) -> Device:
    """A device without a release."""
    return Device(tmp_path, RealDisk())


@pytest.fixture
def release() -> Callable[..., Release]:
    """The maker of releases."""
    return make_release


@pytest.fixture
def device_on() -> Callable[[Path, Disk], Device]:
    """Return a function that makes devices on a small disk."""
    return Device
