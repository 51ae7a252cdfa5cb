"""A server on the in-memory transport, and devices that talk to it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from compressor.release.keys import init_keys
from scripts.bench.postgres import MISSING, clear, private_postgres, programs
from server.app.server import ServerApp
from server.app.state_directory import StateDirectory, init_state
from server.fleet.enrolment import EnrolledIdentity
from server.registry.versions import Versions
from server.store.database import open_database
from server.trust.online_keys import init_online_keys
from server.trust.roots import install_root
from wire.canonical import sha256_hex
from wire.codec import decode, encode
from wire.drift_report import DriftReport, encode_report
from wire.histogram import Counters, Shape
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Ack, Desired, Stream
from wire.transport import Incoming, Notice
from wire.tuf_target import TargetCustom, target_path

BOOT = "ab" * 8
SHAPE = Shape(3, 2)
EPOCH_MS = 1_800_000_000_000


@dataclass(slots=True)
class FakeClock:
    """A clock that does not advance by itself."""

    now_ms: int = EPOCH_MS

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms


@dataclass(slots=True)
class FakeDevice:
    """A device on the in-memory broker that keeps all messages it receives."""

    identity: EnrolledIdentity
    transport: MemoryTransport
    heard: list[Incoming] = field(default_factory=list)

    def connect(self) -> FakeDevice:
        """Subscribe as an agent does."""
        base = f"tf/1/{self.identity.site}/{self.identity.device}"
        self.transport.start(self._hear, subscriptions=(f"{base}/desired", f"{base}/cmd/#"))
        return self

    def _hear(self, notice: Notice) -> None:
        if isinstance(notice, Incoming):
            self.heard.append(notice)

    def say(self, leaf: str, message: object, *, retain: bool = False, site: str | None = None) -> None:
        """Publish bytes or a message below the device's own subtree (or that of another site)."""
        payload = message if isinstance(message, bytes) else encode(message)
        topic = f"tf/1/{site or self.identity.site}/{self.identity.device}/{leaf}"
        self.transport.publish(topic, payload, retain=retain)

    def report(self, seq: int, *, boot: str = BOOT, start_ms: int | None = None, oldest_seq: int = 0) -> None:
        """Publish a drift report of five inferences."""
        self.say("tele/drift", encode_report(make_report(seq, boot=boot, start_ms=start_ms, oldest_seq=oldest_seq)))

    def watermark(self, stream: Stream = Stream.DRIFT) -> int | None:
        """Return the watermark of ``stream`` in the last acknowledgement."""
        acks = [decode(Ack, item.payload) for item in self.heard if item.topic.endswith("/cmd/ack")]
        marks = [mark.through_seq for ack in acks for mark in ack.watermarks if mark.stream is stream]
        return marks[-1] if marks else None

    def desired(self) -> Desired | None:
        """Return the last ``desired`` received."""
        found = [item.payload for item in self.heard if item.topic.endswith("/desired")]
        return decode(Desired, found[-1]) if found else None


def make_report(
    seq: int, *, boot: str = BOOT, start_ms: int | None = None, oldest_seq: int = 0, count: int = 1
) -> DriftReport:
    """Return a drift report; window ``seq`` starts ``seq`` seconds after the clock's start by default."""
    start = EPOCH_MS + (1000 * seq if start_ms is None else start_ms)
    counters = Counters(SHAPE, 5, (count,) * SHAPE.total)
    return DriftReport(
        boot=boot,
        seq=seq,
        oldest_seq=oldest_seq,
        window_start_ms=start,
        window_len_ms=1000,
        context=0,
        artifact="cd" * 16,
        ref_id="ef" * 16,
        counters=counters,
    )


def publish_bytes(versions: Versions, model: str) -> None:
    """Register a first release of ``model`` whose bundle is its name, and no bundle that can be read."""
    data, custom = model.encode(), TargetCustom(model=model, version=1, target="gateway")
    versions.blobs.put(sha256_hex(data), [data])
    path = target_path(model, 1, "gateway")
    versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=1)


@dataclass(slots=True)
class MemoryFleet:
    """A server without threads, and its broker."""

    state: StateDirectory
    clock: FakeClock
    broker: MemoryBroker
    app: ServerApp
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def enrol(self, device: str = "cam-1", site: str = "berlin", *, target: str = "") -> FakeDevice:
        """Return a connected device."""
        enrolment, attributes = self.app.parts.enrolment, {"target": target} if target else {"lens": "a"}
        identity = enrolment.enrol(enrolment.claim(site, device, attributes))
        return FakeDevice(identity, MemoryTransport(broker=self.broker, client_id=device)).connect()

    def turn(self) -> None:
        """Let the server do all that is due."""
        self.app.turn(self.clock())

    def client(self, role: str | None = "operator") -> TestClient:
        """Return an HTTP client with the token of ``role``."""
        headers = {"Authorization": f"Bearer {self.state.token(role)}"} if role else {}
        return TestClient(self.app.web.api, headers=headers)

    def codes(self) -> list[str]:
        """Return the codes of all events, oldest first."""
        return [event.code for event in self.app.parts.events.after(0, 1000)]

    def restart(self, *, broker: MemoryBroker | None = None) -> None:
        """Stop the server and open it again, on another broker if there is one."""
        self.app.stop()
        self.broker = broker or self.broker
        self.app = _open(self.state, self.clock, self.broker)


def _open(state: StateDirectory, clock: FakeClock, broker: MemoryBroker) -> ServerApp:
    app = ServerApp.open(
        state.path, transport=MemoryTransport(broker=broker, client_id="server"), clock=clock, pages=False
    )
    app.connect()
    return app


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that does not advance by itself."""
    return FakeClock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a private PostgreSQL, started once; its tests leave their rows to the next."""
    if programs() is None:
        pytest.skip(MISSING)
    with private_postgres(durable=False) as url:
        open_database(url).close()
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked ``stores`` on both databases; all on PostgreSQL with TINYFLEET_TEST_STORE=postgresql."""
    if "store_kind" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("stores") is not None
        kinds = ["sqlite", "postgresql"] if both else [os.environ.get("TINYFLEET_TEST_STORE", "sqlite")]
        metafunc.parametrize("store_kind", kinds, ids=kinds if len(kinds) > 1 else [pytest.HIDDEN_PARAM], indirect=True)


@pytest.fixture
def store_kind(request: pytest.FixtureRequest) -> str:
    """The database of the test, see ``pytest_generate_tests``."""
    return str(request.param)


@pytest.fixture
def store_url(tmp_path: Path, store_kind: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if store_kind == "sqlite":
        return f"sqlite:///{tmp_path / 'fleet.db'}"
    url: str = request.getfixturevalue("postgres")
    clear(url)
    return url


@pytest.fixture
def state(tmp_path: Path, store_kind: str, request: pytest.FixtureRequest) -> StateDirectory:
    """A fresh state directory with online keys and a root that names them."""
    made = init_state(tmp_path / "state")
    if store_kind == "postgresql":
        url = request.getfixturevalue("store_url")
        made.config.write_text(f'[store]\nurl = "{url}"\n', encoding="utf-8")
    install_root(made.path, init_keys(tmp_path / "offline", init_online_keys(made.path)))
    return made


@pytest.fixture
def fleet(state: StateDirectory, clock: FakeClock) -> Iterator[MemoryFleet]:
    """A server on the in-memory transport, without threads."""
    broker = MemoryBroker()
    found = MemoryFleet(state, clock, broker, _open(state, clock, broker))
    yield found
    found.app.stop()


@pytest.fixture
def report() -> Callable[..., DriftReport]:
    """Make drift reports."""
    return make_report
