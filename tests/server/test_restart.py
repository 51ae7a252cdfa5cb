"""A real server that starts with windows to fold assigns an approved rollout first."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pytest

from server.app.server import ServerApp
from server.app.services import ServerParts
from server.clock import system_now_ms
from server.registry.versions import Release, Versions
from server.rollout.create import RolloutOptions
from server.store.monitoring.windows import insert_windows
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.histogram import BINS
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.memory_broker import MemoryTransport
from wire.messages import DeviceState, State
from wire.reference import Context, Reference, StreamSpec, write_reference
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from conftest import MemoryFleet

STREAMS, DEVICES, HOURS, HOUR_MS = 23, 2, 5, 3_600_000
HANGS_S = 120.0  # far above what any step takes: nothing but a server that never gets there waits so long
ARTIFACT = b"int8 model"


def _publish(parts: ServerParts) -> Reference:
    """Register a release with its reference."""
    reference = Reference(
        artifact_sha256=sha256_hex(ARTIFACT),
        streams=tuple(StreamSpec(name=f"s{i}", kind="input") for i in range(STREAMS)),
        contexts=(Context(name="default", n=2000, n_effective=2000, counts=(125,) * (BINS * STREAMS)),),
        classes=1,
        confidence_bins=1,
        table_right=(1,),
        table_seen=(1,),
        edges=(tuple(float(i) for i in range(BINS - 1)),) * STREAMS,
    )
    manifest = Manifest(
        model="meter",
        version=1,
        target="gateway",
        inputs=(TensorSpec(name="x"),),
        outputs=(TensorSpec(name="logits"),),
        preprocessing=Preprocessing(width=8, height=8),
        labels=("0",),
    )
    data = build_bundle(manifest, {"model.onnx": ARTIFACT, "reference.bin": write_reference(reference)})
    parts.versions.blobs.put(sha256_hex(data), [data])
    custom = TargetCustom(
        model="meter",
        version=1,
        target="gateway",
        runtime="onnx",
        artifact_sha256=reference.artifact_sha256,
        ref_id=reference.ref_id,
    )
    path = target_path("meter", 1, "gateway")
    parts.versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1)
    return reference


def _report(parts: ServerParts, reference: Reference, first_hour: int) -> None:
    """Let the windows of ``HOURS`` hours arrive."""
    drawn = np.random.default_rng(1).multinomial(60, np.full(BINS, 1 / BINS), size=(DEVICES, STREAMS))
    words = np.concatenate([drawn.ravel().reshape(DEVICES, -1), np.zeros((DEVICES, STREAMS), int)], axis=1)
    values = [np.append(row, 60).astype(np.uint32).tobytes() for row in words]
    with parts.database.begin() as connection:
        for hour in range(first_hour, first_hour + HOURS):
            insert_windows(connection, [
                {"device": f"cam-{i}", "site": "berlin", "start_ms": hour * HOUR_MS, "len_ms": HOUR_MS, "context": 0,
                 "artifact": reference.artifact_sha256[:32], "ref_id": reference.ref_id[:32], "streams": STREAMS,
                 "classes": 1, "confidence_bins": 1, "n": 60, "reports": 1, "values": values[i],
                 "received_ms": (hour + 1) * HOUR_MS}
                for i in range(DEVICES)
            ])  # fmt: skip


@dataclass(slots=True)
class Held:
    """The releases as the drift service asks for them; the first reference of a fold is held until ``go``."""

    versions: Versions
    begun: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    waited: bool = False

    def releases(self) -> tuple[Release, ...]:
        """Return the releases."""
        return self.versions.releases()

    def reference(self, ref_id: str) -> Reference | None:
        """Return the reference once the test lets it go."""
        self.begun.set()
        self.waited = self.go.wait(HANGS_S)
        return self.versions.reference(ref_id)


@pytest.mark.slow
def test_an_approved_rollout_is_assigned_after_a_restart_before_its_windows_are_folded(fleet: MemoryFleet) -> None:
    """Folding a month of them takes far longer (``scripts/bench/fleet.py`` has the seconds); here it never ends.

    The fold is held at its beginning until the rollout is assigned: a server that folds first would wait for itself.
    """
    fleet.clock.now_ms = system_now_ms()
    device, parts, last_hour = fleet.enrol("cam-0", target="gateway"), fleet.app.parts, fleet.clock() // HOUR_MS
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock(), boot="ab" * 8), retain=True)
    fleet.turn()
    _report(parts, _publish(parts), last_hour - HOURS)
    parts.rollouts.create(RolloutOptions(release="meter-1", canary=["cam-0"], approved=True))
    fleet.app.stop()
    app = ServerApp.open(
        fleet.state.path, transport=MemoryTransport(broker=fleet.broker, client_id="server"), pages=False
    )
    held = app.parts.drift.references = Held(app.parts.versions)
    app.start()
    try:
        assert held.begun.wait(HANGS_S), "the windows are folded by the drift service"
        until_s = time.monotonic() + HANGS_S
        while not app.parts.fleet.device("cam-0").desired_gen and time.monotonic() < until_s:
            time.sleep(0.01)  # the server's own threads work
        assigned, folded = app.parts.fleet.device("cam-0").desired_release, app.parts.drift._moment.state.slot
    finally:
        held.go.set()
        app.stop()
    assert (assigned, held.waited) == ("meter-1", True)
    assert folded < last_hour - HOURS
