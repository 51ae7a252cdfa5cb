"""A device without a network for a season: real spool and telemetry, a real server, a fake clock, windows of an hour.

91 days with a power cut every ten days, in a spool of 64 KiB: what the server has in the end equals what the device
counted, what did not fit is counted as dropped, and nothing of it is an alarm.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from compressor.release.keys import init_keys
from edge_agent.config import AgentConfig, MonitorConfig, SpoolConfig
from edge_agent.control.agent import Agent, AgentParts
from edge_agent.device.clock import FakeClock
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.telemetry.rows import WindowPart
from edge_agent.updater.ports import InlineWorker, MemoryFetcher, MemoryProber, MemoryVerifier
from edge_agent.updater.updater import UpdatePorts
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.drift.service import DriftService
from server.registry.versions import Release
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.histogram import BINS, Counters, Shape
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Severity, Stream
from wire.reference import Context, Reference, StreamSpec
from wire.transport import Listener, Will
from wire.tuf_target import TargetCustom

HOUR_MS = 3_600_000
STREAMS, SAMPLES = 8, 60
SHAPE = Shape(STREAMS, 1, 1)
REF_ID, ARTIFACT = "a1" * 32, "b1" * 32
BEFORE_H, AWAY_H, TURN_S = 96, 91 * 24, 1200.0
CUT_H = 240


@dataclass
class Radio:
    """The device's transport; without reception it connects only once there is some."""

    broker: MemoryBroker
    reception: bool = True
    inner: MemoryTransport | None = None
    waiting: tuple[Listener, tuple[str, ...], Will | None] | None = None

    def start(self, listener: Listener, *, subscriptions: tuple[str, ...], will: Will | None = None) -> None:
        """Connect, now or later."""
        self.waiting = (listener, subscriptions, will)
        self.inner = MemoryTransport(broker=self.broker, client_id="dev")
        if self.reception:
            self.inner.start(listener, subscriptions=subscriptions, will=will)

    def receive(self, *, on: bool) -> None:
        """Switch the reception."""
        self.reception = on
        if not on:
            self.broker.disconnect("dev", lost=True)
        elif self.waiting is not None:
            listener, subscriptions, will = self.waiting
            self.start(listener, subscriptions=subscriptions, will=will)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """Publish."""
        return self.inner.publish(topic, payload, retain=retain) if self.inner is not None and self.reception else None

    def idle_s(self) -> float:
        """Return 0 with reception."""
        return 0.0 if self.reception else float("inf")

    def stop(self) -> None:
        """Disconnect."""


@dataclass
class Shelf:
    """The registry: one release, whose reference is uniform."""

    def reference(self, ref_id: str) -> Reference | None:
        """Return it."""
        if not REF_ID.startswith(ref_id):
            return None
        counts = (250,) * BINS * STREAMS
        return Reference(
            artifact_sha256=ARTIFACT,
            streams=tuple(StreamSpec(name=f"s{i}", kind="input") for i in range(STREAMS)),
            contexts=(Context(name="default", n=4000, n_effective=4000, counts=counts),),
            classes=1, confidence_bins=1, table_right=(1,), table_seen=(1,),
            edges=(tuple(float(edge) for edge in range(BINS - 1)),) * STREAMS,
        )  # fmt: skip

    def releases(self) -> tuple[Release, ...]:
        """Return it."""
        custom = TargetCustom(ref_id=REF_ID)
        return (
            Release(name="m-1", model="m", version=1, target="pi", path="p", sha256="0" * 64, length_bytes=1,
                    certificate={}, custom=custom, registered_ms=0),
        )  # fmt: skip


@dataclass
class Season:
    """One device and its server; ``given`` is what the device was given to count, by stream."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(11))
    given: Counter[str] = field(default_factory=Counter)
    values: np.ndarray = field(default_factory=lambda: np.zeros(SHAPE.total, np.int64))
    hour: int = 0

    def __post_init__(self) -> None:
        """Start both, and a judge of drift."""
        self.clock.advance(-self.clock.now_ms() % HOUR_MS / 1000)
        self.start_ms = self.clock.now_ms()
        state = init_state(self.folder / "server")
        install_root(state.path, init_keys(self.folder / "keys", init_online_keys(state.path)))
        self.server = ServerApp.open(
            state.path, transport=MemoryTransport(broker=self.broker, client_id="server"), clock=self.clock.now_ms,
            pages=False,
        )  # fmt: skip
        self.server.connect()
        self.http = TestClient(
            self.server.web.api, headers={"Authorization": f"Bearer {state.token('operator')}"}
        )  # fmt: skip
        parts = self.server.parts
        parts.enrolment.enrol(parts.enrolment.claim("site", "dev", {}))
        self.judge = DriftService(
            database=parts.database, windows=parts.windows, fleet=parts.fleet, references=Shelf(), events=parts.events
        )
        self.radio = Radio(self.broker)
        (self.folder / "device").mkdir()
        self.agent = self.boot()

    def boot(self) -> Agent:
        """Return a started agent on the device's state."""
        state = self.folder / "device"
        notices: queue.SimpleQueue = queue.SimpleQueue()
        ports = UpdatePorts(
            verifier=MemoryVerifier({}), fetcher=MemoryFetcher({}, state / "blobs" / "sha256"), prober=MemoryProber(),
            worker=InlineWorker(notices.put), hardware="x", runtimes=(),
        )  # fmt: skip
        parts = AgentParts(
            clock=self.clock,
            transport=self.radio,
            launch=lambda *_: None,
            disk=RealDisk(),
            ports=ports,
            notices=notices,
        )
        config = AgentConfig(spool=SpoolConfig(limit_bytes=64 * 1024), monitor=MonitorConfig(hw_s=TURN_S / 2))
        agent = Agent(Identity(site="site", device="dev"), config, state, f"{self.hour:016x}", parts)
        agent.start()
        self.given["event"] += 1
        return agent

    def live(self, hours: int, *, cuts: bool = False) -> None:
        """Let the device count for some hours."""
        for _ in range(hours):
            rows = self.chance.multinomial(SAMPLES, np.full(BINS, 1 / BINS), size=STREAMS)
            values = np.concatenate([rows.reshape(-1), np.zeros(STREAMS, int), [SAMPLES]])
            start_ms = self.start_ms + self.hour * HOUR_MS
            for _ in range(round(HOUR_MS / 1000 / TURN_S)):
                for stream in (Stream.INFER, Stream.ANSWER):
                    self.agent.telemetry.row(stream, {"at_ms": self.clock.now_ms(), "n": 20, "id": "x" * 40})
                    self.given[stream.value] += 1
                self.turn(TURN_S)
            self.clock.advance((start_ms + HOUR_MS - self.clock.now_ms()) / 1000)
            counters = Counters(SHAPE, SAMPLES, tuple(int(value) for value in values))
            self.agent.telemetry.window(
                WindowPart(
                    artifact=ARTIFACT, ref_id=REF_ID, start_ms=start_ms, len_ms=HOUR_MS, context=0, counters=counters
                )
            )
            self.values += values
            self.given["drift"] += 1
            self.hour += 1
            if self.hour % 12 == 0:
                self.agent.telemetry.event("test", "noon", at_ms=start_ms, severity=Severity.INFO)
                self.given["event"] += 1
            if cuts and self.hour % CUT_H == 0:
                self.turn(0.0)
                self.agent.spool.close()  # and nothing is flushed
                self.agent = self.boot()

    def turn(self, seconds: float) -> None:
        """One turn of the device, and of the server."""
        for _ in range(2):
            due_s = self.agent._due.hw_s
            self.agent.turn()
            self.given["hw"] += self.agent._due.hw_s != due_s
            self.server.parts.ingest.turn(self.clock.now_ms())
        self.clock.advance(seconds)

    def settle(self, limit: int = 3000) -> int:
        """Turn until the spool is empty but for what is open; return the seconds that took."""
        for tenth in range(limit):
            self.turn(0.1)
            if tenth >= 15 and not self.agent.spool.count():  # what was added last is committed a second later
                return tenth // 10
        pytest.fail(f"{self.agent.spool.count()} rows are left")

    def stored(self, stream: str) -> int:
        """Return how many records of a stream the server has."""
        if stream == "event":
            return len([one for one in self.server.parts.events.after(0, 9999, device="dev") if one.boot])
        batches = self.http.get(f"/api/devices/dev/telemetry?stream={stream}&limit=500").json()["batches"]
        return sum(batch["n"] for batch in batches)


@pytest.fixture
def season(tmp_path: Path) -> Iterator[Season]:
    """A fresh device and its server."""
    made = Season(tmp_path)
    yield made
    made.server.stop()


@pytest.mark.nightly
def test_ninety_days_without_a_network_cost_resolution_and_readings_but_no_count(season: Season) -> None:
    """Sums on the server equal the device's, losses are counted and shown, late windows are no alarm."""
    season.live(BEFORE_H)
    season.settle()
    season.judge.turn(season.clock.now_ms())
    season.radio.receive(on=False)
    season.live(AWAY_H, cuts=True)
    held_bytes = season.agent.spool.held_bytes
    season.radio.receive(on=True)
    took_s = season.settle()
    season.live(2)
    season.settle()
    season.agent.telemetry.flush()
    season.settle()

    dropped, merged = season.agent.spool.dropped(), season.agent.spool.merged()
    windows = season.server.parts.windows.since(0, 9999)
    assert sum(window.n for window in windows) == SAMPLES * season.given["drift"]
    assert (sum(window.values for window in windows) == season.values).all()
    ends_ms = [window.start_ms + window.len_ms for window in sorted(windows, key=lambda one: one.start_ms)]
    starts_ms = sorted(window.start_ms for window in windows)
    assert starts_ms[1:] == ends_ms[:-1]  # every hour is covered, and none twice
    assert "drift" not in dropped
    for stream in ("infer", "hw", "answer", "event"):
        assert season.stored(stream) + dropped.get(stream, 0) == season.given[stream], stream
    assert held_bytes < 72 * 1024  # open rows and those of the last second included
    assert merged > 1500

    season.clock.advance(TURN_S)
    season.settle()  # with a reading of the machine, which has the losses
    season.agent.telemetry.flush()
    season.settle()
    usage = season.http.get("/api/devices/dev/usage?days=1").json()
    assert (usage["days"][0]["dropped"], usage["days"][0]["merged"]) == (dropped, merged)
    assert usage["late"]["windows"] == len(windows) - BEFORE_H - 3  # that of the last hour away came in time
    assert usage["late"]["n"] == SAMPLES * (AWAY_H - 1)
    season.judge.turn(season.clock.now_ms() + 2 * HOUR_MS)
    assert season.judge._outcome.flagged == frozenset()
    assert season.judge.verdicts.open() == ()
    assert took_s < 60
