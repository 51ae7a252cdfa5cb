"""The agent's turn, with a fake clock, an in-memory broker and a child in memory: no threads, no sleeps."""

import contextlib
import errno
import itertools
import json
import logging
import queue
import shutil
import socket
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.config import AgentConfig, ChildConfig, SampleConfig, UpdateConfig
from edge_agent.control.agent import Agent, AgentParts, Notices, run
from edge_agent.control.requests import ANSWER, put
from edge_agent.control.supervisor import ChildEnded, ChildFrame
from edge_agent.device import last_end
from edge_agent.device.clock import FakeClock
from edge_agent.device.disk import RealDisk, trouble
from edge_agent.device.identity import Identity
from edge_agent.device.notify import Notifier
from edge_agent.device.record_file import Condition, condition, read_record
from edge_agent.in_flight import InFlight
from edge_agent.logs import LogRing
from edge_agent.pipe_frames import Frame
from edge_agent.telemetry.byte_meter import AirBytes
from edge_agent.transports.memory import MemoryBroker, MemoryTransport
from edge_agent.updater.ports import InlineWorker, MemoryFetcher, MemoryProber, MemoryVerifier, ProbeResult, TargetInfo
from edge_agent.updater.storage.imported import BUNDLE, FOLDER, StagedFetcher
from edge_agent.updater.storage.slots import SlotRelease, Slots
from edge_agent.updater.updater import UpdatePorts
from wire import leb128
from wire.bundle import build_bundle
from wire.canonical import canonical_bytes, sha256_hex
from wire.codec import Json, decode, encode, from_document, to_document
from wire.drift_report import decode_report
from wire.histogram import Shape
from wire.manifest import Manifest, Preprocessing, TensorSpec
from wire.messages import (
    Ack,
    Batch,
    BenchmarkAnswer,
    Command,
    DayUsage,
    Desired,
    DeviceState,
    DriftState,
    Event,
    LogsAnswer,
    Reported,
    Response,
    Sample,
    Severity,
    State,
    Stream,
    UpdatePhase,
    Watermark,
)
from wire.shadow import ShadowCounts
from wire.transport import Incoming, Link, LinkChange
from wire.tuf_target import TargetCustom

BOOT = "00000000000000aa"
DISK_BYTES = 4_000_000
SHAPE = Shape(2, 3)
UP = LinkChange(Link.UP)


@dataclass
class MemoryChild:
    """A child that follows its commands; ``swaps``: it answers a swap."""

    number: int
    bundle: Path
    put: Callable[[object], None]
    told: list[Mapping[str, object]] = field(default_factory=list)
    pid: int = 0

    def send(self, header: Mapping[str, object]) -> None:
        """Note it; answer a swap at once."""
        self.told.append(header)
        if header["type"] == "swap":
            self.bundle = Path(str(header["bundle"]))
            self.speak("swapped", bundle=str(self.bundle))

    def speak(self, kind: str, payload: bytes = b"", **header: object) -> None:
        """Send a frame to the agent."""
        self.put(ChildFrame(self.number, Frame({"type": kind, **header}, payload)))

    def kill(self) -> None:
        """End."""
        self.put(ChildEnded(self.number, "killed"))

    stop = kill


class FullDisk(RealDisk):
    """A disk without room."""

    def write(self, path: Path, data: bytes) -> None:
        """Fail as the kernel does."""
        raise OSError(errno.ENOSPC, f"No space left on device for {len(data)} bytes", str(path))


@dataclass
class World:
    """One agent and its broker; the test is the server."""

    state: Path
    clock: FakeClock = field(default_factory=FakeClock)
    broker: MemoryBroker = field(default_factory=MemoryBroker)
    heard: list[Incoming] = field(default_factory=list)
    children: list[MemoryChild] = field(default_factory=list)
    notices: Notices = field(default_factory=queue.SimpleQueue)
    targets: dict[str, TargetInfo] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    sample_bytes: int = 1024 * 1024

    wish: Desired | None = None

    def __post_init__(self) -> None:
        """Connect the server and start the agent."""
        self.server = MemoryTransport(broker=self.broker, client_id="server")
        self.server.start(self._hear, subscriptions=("tf/1/#",))
        self.worker = InlineWorker(self.notices.put)
        self.agent = self.make()

    def make(self, boot: str = BOOT, *, start: bool = True) -> Agent:
        """Return an agent on this state, started or not."""
        fetcher = MemoryFetcher(self.blobs, self.state / "blobs" / "sha256")
        ports = UpdatePorts(
            verifier=MemoryVerifier(self.targets),
            fetcher=fetcher,
            prober=MemoryProber(),
            worker=self.worker,
            hardware="x86_64",
            runtimes=("onnx",),
            import_verifier=MemoryVerifier(self.targets),
            import_fetcher=StagedFetcher(self.state, self.state / "blobs" / "sha256", RealDisk()),
        )
        parts = AgentParts(
            clock=self.clock,
            transport=MemoryTransport(broker=self.broker, client_id="dev"),
            launch=self.launch,
            disk=RealDisk(),
            ports=ports,
            notices=self.notices,
        )
        config = AgentConfig(
            child=ChildConfig(restart_min_s=1.0, restart_max_s=1.0, healthy_s=5.0),
            update=UpdateConfig(reserve_bytes=0, repair_s=10.0), samples=SampleConfig(self.sample_bytes),
        )  # fmt: skip
        agent = Agent(Identity(site="site", device="dev"), config, self.state, boot, parts)
        if start:
            agent.start()
        return agent

    def launch(self, number: int, bundle: Path, put: Callable[[object], None]) -> MemoryChild:
        """Start a child that is ready at once, or ends at once as a real one does on a damaged bundle."""
        self.children.append(MemoryChild(number, bundle, put))
        if condition(bundle, bundle.name) is Condition.WHOLE:
            self.children[-1].speak("ready")
        else:
            self.children[-1].kill()
        return self.children[-1]

    def launch_without_source(self, number: int, bundle: Path, put: Callable[[object], None]) -> MemoryChild:
        """Start a child that ends at once as a real one does whose source can't be opened."""
        self.children.append(MemoryChild(number, bundle, put))
        self.children[-1].speak("fault", code="source_invalid", text="Expected a folder", fatal=True)
        self.children[-1].kill()
        return self.children[-1]

    def _hear(self, notice: object) -> None:
        if isinstance(notice, Incoming):
            self.heard.append(notice)
            if notice.topic.endswith("/get") and self.wish is not None:
                self.say("desired", self.wish)

    def say(self, leaf: str, message: object) -> None:
        """Publish to the device."""
        self.server.publish(f"tf/1/site/dev/{leaf}", message if isinstance(message, bytes) else encode(message))

    def turns(self, count: int = 5, seconds: float = 1.0) -> None:
        """Turn, working off jobs, with time passing."""
        for _ in range(count):
            self.agent.turn()
            self.worker.work()
            self.clock.advance(seconds)

    def last(self, leaf: str) -> bytes:
        """Return the last payload on a topic of the device."""
        return [message.payload for message in self.heard if message.topic == f"tf/1/site/dev/{leaf}"][-1]

    def heard_on(self, leaf: str) -> list[Incoming]:
        """Return every message on a topic of the device."""
        return [message for message in self.heard if message.topic == f"tf/1/site/dev/{leaf}"]

    def events(self) -> list[str]:
        """Return the codes of all events, in order, each once."""
        payloads = [message.payload for message in self.heard if message.topic == "tf/1/site/dev/event"]
        found = {event.seq: event.code for event in (decode(Event, payload) for payload in payloads)}
        return [found[seq] for seq in sorted(found)]

    def release(self, version: int) -> Desired:
        """Sign and upload a release; return the wish for it."""
        manifest = Manifest(
            model="m",
            version=version,
            inputs=(TensorSpec(),),
            outputs=(TensorSpec(),),
            preprocessing=Preprocessing(width=8, height=8),
        )
        artifact = b"%d" % version
        data = build_bundle(manifest, {"model.onnx": artifact})
        custom = TargetCustom(model="m", version=version, artifact_sha256=sha256_hex(artifact))
        self.targets[f"m-{version}"] = TargetInfo(sha256_hex(data), len(data), custom)
        self.blobs[sha256_hex(data)] = data
        return Desired(
            gen=version,
            release=f"m-{version}",
            target=f"m-{version}",
            sha256=sha256_hex(data),
            length_bytes=len(data),
            probation_s=3.0,
        )

    def blobs_of(self, version: int) -> bytes:
        """Return the bundle of a release."""
        return self.blobs[self.release(version).sha256]

    def install(self, version: int) -> None:
        """Take a release to committed."""
        self.say("desired", self.release(version))
        self.turns(6, seconds=0.1)
        self.beat(version)
        self.turns(5)
        assert self.events()[-1] == "committed", self.events()

    def beat(self, version: int, **figures: object) -> None:
        """Let the child send a heartbeat."""
        self.children[-1].speak("beat", n=5, artifact=sha256_hex(b"%d" % version), **figures)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A fresh device, connected."""
    made = World(tmp_path)
    made.turns(2)
    return made


def _probation(world: World, *, without_source: bool = False) -> None:
    """Bring release 2 to probation beside release 1; without a source its child is started again."""
    if without_source:
        world.agent.supervisor.launch = world.launch_without_source
        world.children[-1].kill()
    world.say("desired", world.release(2))
    world.turns(6, seconds=0.1)
    assert world.agent.updater.record.phase is UpdatePhase.PROBATION


def test_a_source_that_is_away_to_the_end_of_probation_rolls_nothing_back(world: World) -> None:
    """The release was loaded and passed its golden vectors: it is kept, and the event gives the reason."""
    world.install(1)
    _probation(world, without_source=True)
    world.turns(8)
    reported = decode(Reported, world.last("reported"))
    assert (reported.current.release, reported.update.phase) == ("m-2", "committed")
    assert "no inferences in probation: the source was missing" in reported.update.text
    assert reported.update.answered == 0


def test_the_first_answers_after_an_unproven_commit_are_reported(world: World) -> None:
    """A rollout waits for them; once there were any, the number stands, and why there were none is said no more."""
    world.install(1)
    _probation(world)
    world.children[-1].speak("beat", n=0, artifact=sha256_hex(b"2"))
    world.turns(8)
    update = decode(Reported, world.last("reported")).update
    assert (update.answered, "no inferences in probation" in update.text) == (0, True)
    for _ in range(2):
        world.children[-1].speak("beat", n=3, artifact=sha256_hex(b"2"))
        world.turns(1)
    update = decode(Reported, world.last("reported")).update
    assert (update.answered, update.text) == (3, "")


def test_an_update_that_the_server_takes_back_is_no_error(world: World) -> None:
    """An aborted rollout: nobody has to look at the device; a release that fails stays an error."""
    world.install(1)
    _probation(world)
    world.say("desired", replace(world.release(1), gen=9))
    world.turns(3)
    heard = [decode(Event, message.payload) for message in world.heard if message.topic == "tf/1/site/dev/event"]
    assert {event.severity for event in heard if event.code == "superseded"} == {Severity.INFO}


@pytest.mark.parametrize(("link", "key"), [(Link.REFUSED, "refused"), (Link.UNREACHABLE, "unreached")])
def test_the_status_keeps_why_there_is_no_connection_until_there_is_one(world: World, link: Link, key: str) -> None:
    """The last reason is in the file that ``edge-agent status`` reads."""
    for change, kept in [(LinkChange(link, "Not authorized (135)"), "Not authorized (135)"), (UP, "")]:
        world.agent.parts.notices.put(change)
        world.turns(3)
        assert read_record(world.agent.state / "status.json")[key] == kept


def test_a_source_with_nothing_in_it_is_no_fault_of_a_release(world: World) -> None:
    """Heartbeats without an inference: the release is kept, and the event states it."""
    world.install(1)
    _probation(world)
    world.children[-1].speak("beat", n=0, artifact=sha256_hex(b"2"))
    world.turns(8)
    assert "the source gave no inputs" in decode(Reported, world.last("reported")).update.text


def test_a_committed_release_that_ignores_every_file_is_degraded_until_it_answers(world: World) -> None:
    """Reported with what is ignored, told once, the same after a restart, and gone with the first answer."""
    world.install(1)
    _probation(world)
    left = {"ignored": 2, "names": ["a.csv"], "text": "they hold rows"}
    for _ in range(12):
        world.children[-1].speak("beat", n=0, artifact=sha256_hex(b"2"), left=left)
        world.turns(1)
    reported = decode(Reported, world.last("reported"))
    assert (reported.update.phase, reported.reason, reported.unread.ignored) == ("committed", "answers_nothing", 2)
    assert "2 files ignored (a.csv)" in reported.update.text
    assert decode(State, world.last("state")).state is DeviceState.DEGRADED
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.agent.parts.notices.put(UP)
    world.turns(3)
    assert decode(Reported, world.last("reported")).unread.names == ("a.csv",)
    world.children[-1].speak("ready")
    world.children[-1].speak("beat", n=1, artifact=sha256_hex(b"2"), left=left)
    world.turns(2)
    reported = decode(Reported, world.last("reported"))
    assert (reported.reason, reported.unread) == ("", None)
    heard = [decode(Event, message.payload) for message in world.heard if message.topic == "tf/1/site/dev/event"]
    told = {(event.boot, event.seq): event for event in heard if event.code.startswith("answers_")}.values()
    assert [(event.code, event.severity.value) for event in told] == [
        ("answers_nothing", "error"),
        ("answers_again", "info"),
    ]


def test_a_release_on_probation_that_reads_nothing_has_never_answered(world: World) -> None:
    """There is no last answer to count from, before the commit either; after a first one there is."""
    world.install(1)
    _probation(world)
    left = {"ignored": 30, "names": ["a.csv"], "text": "they hold rows"}
    for _ in range(5):
        world.children[-1].speak("beat", n=0, artifact=sha256_hex(b"2"), left=left)
        world.turns(1, seconds=0.1)
    reported = decode(Reported, world.last("reported"))
    assert (reported.update.phase, reported.unread.never) == ("probation", True)
    world.children[-1].speak("beat", n=1, artifact=sha256_hex(b"2"), left=left)
    for _ in range(5):
        world.children[-1].speak("beat", n=0, artifact=sha256_hex(b"2"), left={**left, "ignored": 60})
        world.turns(1, seconds=0.1)
    assert decode(Reported, world.last("reported")).unread.never is False
    world.turns(3)
    heard = [decode(Event, message.payload) for message in world.heard if message.topic == "tf/1/site/dev/event"]
    texts = [event.text for event in heard if event.code == "answers_nothing"]
    assert texts[0].startswith("Expected answers of the release, got none yet: it ignores 30 files")


@pytest.mark.parametrize(("code", "severity"), [("measured", "info"), ("measure_timeout", "warning")])
def test_a_measurement_that_fails_is_a_warning(code: str, severity: str, world: World) -> None:
    """Somebody waits for its figures; its begin and its good end are none."""
    world.agent._measuring.report(code, "text")
    world.turns(2)
    heard = [decode(Event, message.payload) for message in world.heard if message.topic == "tf/1/site/dev/event"]
    assert {event.severity.value for event in heard if event.code == code} == {severity}


@pytest.mark.parametrize(("before", "phase"), [(0, "rolled_back"), (200, "committed")])
def test_inputs_that_no_release_could_serve_are_no_fault_of_the_new_one(world: World, before: int, phase: str) -> None:
    """A source that spoils its pictures under the old release too; one that only the new one refuses is its fault."""
    world.install(1)
    world.beat(1, errors=before)
    world.turns(2)
    _probation(world)
    for _ in range(6):
        world.children[-1].speak("beat", n=0, errors=10, artifact=sha256_hex(b"2"))
        world.turns(1)
    assert decode(Reported, world.last("reported")).update.phase == phase


def test_a_release_that_leaves_alone_what_was_served_before_is_rolled_back(world: World) -> None:
    """A sound model for a camera: nothing is refused, for no picture is taken."""
    world.install(1)
    _probation(world)
    world.children[-1].speak("fault", code="source_unread", text="Expected files ending in .wav, got 'a.png'")
    world.turns(2)
    update = decode(Reported, world.last("reported")).update
    assert (update.phase, update.code) == ("rolled_back", "inputs_unread")


def _replayed(world: World) -> list[str]:
    """Return the bundles whose replay the child may forget."""
    return [Path(str(one["bundle"])).name for one in world.children[-1].told if one["type"] == "replayed"]


def test_a_replay_is_confirmed_once_it_is_in_the_record(world: World) -> None:
    """Not while the disk is full; counts that come again change nothing, and those of another release go."""
    world.install(1)
    _probation(world)
    digest, payload = world.release(2).sha256, encode(ShadowCounts(n=9, disagreed=2))
    world.agent.updater.disk = FullDisk()
    world.children[-1].speak("replay", payload, bundle=f"/blobs/{digest}")
    world.turns(1)
    assert _replayed(world) == []
    world.agent.updater.disk = RealDisk()
    for bundle, counts in ((digest, payload), (digest, encode(ShadowCounts(n=7))), ("0" * 64, payload)):
        world.children[-1].speak("replay", counts, bundle=f"/blobs/{bundle}")
        world.turns(2)
    assert _replayed(world) == [digest, digest, "0" * 64]
    assert decode(Reported, world.last("reported")).update.replay == ShadowCounts(n=9, disagreed=2)


def test_a_replay_before_its_probation_is_sent_again(world: World) -> None:
    """A power cut between the switch of the slots and the record: the child is faster than the updater."""
    world.install(1)
    _probation(world)
    record = world.agent.updater.record
    world.agent.updater.record = replace(record, phase=UpdatePhase.STAGED)
    assert not world.agent._replayed(record.desired.sha256, ShadowCounts(n=9))
    world.agent.updater.record = record
    assert world.agent._replayed(record.desired.sha256, ShadowCounts(n=9))


def test_the_fault_of_one_sink_does_not_hide_that_of_another(world: World) -> None:
    """Two that fail in one minute are two events; the same one again is none."""
    world.install(1)
    for name in ("home", "log", "home"):
        world.children[-1].speak("fault", code="sink_failed", text=f"{name}: no connection")
    world.turns(2)
    assert world.events().count("sink_failed") == 2


def test_says_on_connecting_what_it_is_and_asks_what_is_desired(world: World) -> None:
    """State, reported and get are there after the first turns."""
    state = decode(State, world.last("state"))
    assert (state.state, state.reason) == ("init", "no_release")
    assert decode(Reported, world.last("reported")).boot == BOOT
    assert b"desired" in world.last("get")
    assert world.events() == ["started"]


def test_installs_a_release_and_reports_each_phase(world: World) -> None:
    """Every phase is an event, and the last reported document names the release."""
    world.install(1)
    assert world.events()[1:] == ["offered", "downloading", "verifying", "staged", "probation", "committed"]
    assert decode(Reported, world.last("reported")).current.release == "m-1"


def test_systemd_is_told_what_the_agent_serves(world: World) -> None:
    """Through a real socket: ready, the release and the connection, a sign of life, and the orderly end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(world.state / "notify"))
        systemd.settimeout(5)
        notifier = Notifier(address=str(world.state / "notify"), limit_s=60.0)
        world.agent.parts = replace(world.agent.parts, notifier=notifier)
        world.turns(1)
        assert systemd.recv(4096) == b"READY=1\nSTATUS=init (no_release), connected\nWATCHDOG=1"
        world.install(1)
        world.turns(2)
        world.agent.stop()
        systemd.setblocking(False)
        sent = systemd.recv(65_536).split(b"\n")
        while b"STOPPING=1" not in sent:
            last, sent = sent, systemd.recv(65_536).split(b"\n")
    assert last == [b"STATUS=ready, m-1, connected"]


def test_only_an_agent_that_was_told_to_end_has_ended_in_order(world: World) -> None:
    """After an error it counts as crashed at its next start: a release may cause that each time."""
    world.agent.stop()
    run(world.make(start=False), lambda: True)
    assert last_end.begin(world.state, RealDisk()) is last_end.LastEnd.IN_ORDER

    def broken() -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(world.make(start=False), broken)
    assert last_end.begin(world.state, RealDisk()) is last_end.LastEnd.AGENT


def test_rolls_back_when_the_child_ends_in_probation(world: World) -> None:
    """A crash of the child is a health fact; the old release is served again."""
    world.install(1)
    world.say("desired", world.release(2))
    world.turns(6, seconds=0.1)
    world.children[-1].kill()
    world.turns(4)
    assert "child_crashed" in world.events()
    assert decode(Reported, world.last("reported")).update.phase == "rolled_back"
    assert world.children[-1].bundle.name == world.release(1).sha256


def ends_on(world: World, item: str) -> None:
    """Let the child end while it works on ``item``, and the next one start."""
    held = InFlight(world.state)
    held._pid = world.children[-1].pid
    held.begin(item)
    world.children[-1].kill()
    world.turns(4)


def test_an_input_that_ends_the_child_in_probation_rolls_nothing_back(world: World) -> None:
    """Two inputs end it: events name them, and the release is committed."""
    world.install(1)
    world.say("desired", replace(world.release(2), probation_s=60.0))
    world.turns(6, seconds=0.1)
    for item in ("killer.png", "another.png"):
        ends_on(world, item)
    for _ in range(20):
        world.beat(2)
        world.turns(4)
    assert world.events().count("child_ended_on_input") == 2
    assert decode(Reported, world.last("reported")).current.release == "m-2"
    assert "rolled_back" not in world.events()


def test_a_release_that_ends_on_input_after_input_is_rolled_back(world: World) -> None:
    """From the third in a row on, the release is at fault."""
    world.install(1)
    world.say("desired", replace(world.release(2), probation_s=60.0))
    world.turns(6, seconds=0.1)
    for number in range(3):
        ends_on(world, f"{number}.png")
    assert world.events().count("child_ended_on_input") == 2
    assert decode(Reported, world.last("reported")).update.phase == "rolled_back"


def test_an_input_that_ends_the_child_costs_no_slot(world: World) -> None:
    """With two releases installed, many such inputs far apart cause neither a fallback nor safe mode."""
    world.install(1)
    world.install(2)
    for number in range(20):
        held = InFlight(world.state)
        held._pid, held._served = world.children[-1].pid, 500
        held.begin(f"{number}.png")
        world.children[-1].kill()
        world.turns(4)
    assert decode(Reported, world.last("reported")).current.release == "m-2"
    assert not {"slot_fallback", "safe_mode", "child_crashed"} & set(world.events())


def test_a_source_that_is_away_costs_no_slot(world: World) -> None:
    """A card that was pulled out is not the release's fault: no fallback, no safe mode; later it serves again."""
    world.install(1)
    world.install(2)
    good, world.agent.supervisor.launch = world.agent.supervisor.launch, world.launch_without_source
    world.children[-1].kill()
    world.turns(40)
    status = world.agent._reporter.status(connected=True)
    assert (status["state"], status["reason"]) == ("degraded", "source_invalid")
    assert decode(Reported, world.last("reported")).current.release == "m-2"
    assert not {"slot_fallback", "safe_mode"} & set(world.events())
    world.agent.supervisor.launch = good
    world.turns(6)
    assert world.agent._reporter.status(connected=True)["state"] == "ready"


def test_a_source_that_is_away_in_probation_rolls_nothing_back(world: World) -> None:
    """The release is judged when there are inputs again."""
    world.install(1)
    world.say("desired", replace(world.release(2), probation_s=60.0))
    world.turns(6, seconds=0.1)
    world.agent.supervisor.launch = world.launch_without_source
    world.children[-1].speak("fault", code="source_invalid", text="Expected a folder", fatal=True)
    world.children[-1].kill()
    world.turns(10)
    assert decode(Reported, world.last("reported")).update.phase == "probation"


def test_rolls_back_when_the_child_says_nothing(world: World) -> None:
    """A missed heartbeat is a hang."""
    world.install(1)
    world.say("desired", replace(world.release(2), probation_s=600.0))
    world.turns(6, seconds=0.1)
    world.turns(3, seconds=30.0)
    assert decode(Reported, world.last("reported")).update.code == "child_hung"


def test_sends_until_the_server_acknowledges(world: World) -> None:
    """A broker's acknowledgement deletes nothing, the server's does."""
    rows = world.agent.spool.count()
    assert rows > 0
    world.say("cmd/ack", Ack((Watermark(Stream.EVENT, BOOT, 99),)))
    world.turns(1)
    assert world.agent.spool.oldest("event", BOOT) == 0


def test_the_child_knows_what_the_server_says_of_the_inputs_for_six_hours(world: World) -> None:
    """It comes with acknowledgements; one without it, of a server that knows nothing, ends it too."""
    world.install(1)
    told = lambda: [one["state"] for one in world.children[-1].told if one["type"] == "drift"]  # noqa: E731
    for state in (DriftState.QUIET, DriftState.DRIFT, None, DriftState.DRIFT):
        world.say("cmd/ack", Ack(drift=state))
        world.turns(1)
    assert told() == ["quiet", "drift", "", "drift"]
    world.turns(1, seconds=6 * 3600.0 - 60.0)
    assert world.agent.supervisor.drift == "drift"
    world.turns(2, seconds=60.0)
    assert world.agent.supervisor.drift == ""


def test_sends_again_what_nobody_acknowledged(world: World) -> None:
    """After the timeout the same number is sent again."""
    before = len(world.heard)
    world.clock.advance(60.0)
    world.turns(1)
    assert "tf/1/site/dev/event" in [message.topic for message in world.heard[before:]]


def test_replays_the_last_boot_as_late(world: World) -> None:
    """After a restart old reports come with their own boot, marked late."""
    world.install(1)
    world.children[-1].speak(
        "window", leb128.encode([1] * SHAPE.total), artifact="ab" * 32, ref_id="cd" * 32, start_ms=5, len_ms=9, n=1,
        streams=2, classes=3,
    )  # fmt: skip
    world.turns(1)
    world.agent.stop()
    world.heard.clear()
    world.agent = world.make("00000000000000bb")
    world.turns(3)
    report = decode_report(world.last("tele/drift"))
    assert (report.boot, report.late, report.counters.n) == (BOOT, True, 1)


def test_garbage_is_counted_and_said_once_a_minute(world: World) -> None:
    """A flood of garbage is one event a kind and minute."""
    for _ in range(50):
        world.say("desired", b"\xff")
        world.say("cmd/ack", b"[]")
        world.children or world.say("cmd/what", b"{}")
    world.turns(2)
    assert world.events().count("garbage") == 2


@pytest.mark.parametrize(
    ("command", "verb", "code"),
    [
        (Command(id="1", verb="samples", arguments={"count": 3}), "samples", "budget_zero"),
        (Command(id="2", verb="samples", expires_ms=5, arguments={"count": 3}), "samples", "expired"),
        (Command(id="3", verb="samples", arguments={"count": 0}), "samples", "arguments_invalid"),
        (Command(id="4", verb="dance"), "dance", "unsupported"),
        (Command(id="5", verb="selftest"), "selftest", ""),
        (Command(id="9", verb="logs"), "logs", ""),
        (Command(id="10", verb="logs", arguments={"lines": 0}), "logs", "arguments_invalid"),
        (Command(id="11", verb="logs", arguments={"lines": 1001}), "logs", "arguments_invalid"),
        (Command(id="12", verb="logs", arguments={"lines": True}), "logs", "arguments_invalid"),
        (Command(id="13", verb="logs", arguments={"since_ms": -1}), "logs", "arguments_invalid"),
        (Command(id="14", verb="logs", arguments={"level": "LOUD"}), "logs", "arguments_invalid"),
        (Command(id="15", verb="benchmark"), "benchmark", "no_release"),
        (Command(id="6", verb="measure"), "measure", "arguments_invalid"),
        (Command(id="7", verb="measure", expires_ms=5, arguments={"order": {}}), "measure", "expired"),
        (Command(id="8", verb="measure", arguments={"order": {}}), "measure", "unsupported"),
    ],
)
def test_answers_commands_with_a_code(world: World, command: Command, verb: str, code: str) -> None:
    """Expired, over budget, malformed or unknown: each has its code."""
    world.say(f"cmd/{verb}", command)
    world.turns(2)
    response = decode(Response, world.last("res"))
    assert (response.id, response.code) == (command.id, code)


def test_sends_the_newest_lines_of_its_log(world: World) -> None:
    """Those of the level that is asked, and never more bytes than a message should have."""
    ring = LogRing(world.state, ["very-secret"])
    for number in range(200):
        level = logging.ERROR if number % 2 else logging.INFO
        ring.handle(logging.LogRecord("test", level, "", 0, "line %s %s", (number, "x" * 600), None))
    world.say("cmd/logs", Command(id="1", verb="logs", arguments={"lines": 1000, "level": "ERROR"}))
    world.turns(2)
    answer = from_document(LogsAnswer, decode(Response, world.last("res")).data)
    kept = [line.split("line ")[1].split()[0] for line in answer.lines]
    assert (kept[-1], len(kept) + answer.left_out) == ("119", 60)  # of the first 120, which is a minute's limit
    assert len(world.last("res")) < 60_000


def bring(world: World, version: int) -> None:
    """Leave a release that a person brought, and the request to install it."""
    wish = world.release(version)
    staged = world.state / FOLDER / BUNDLE
    staged.parent.mkdir(exist_ok=True)
    staged.write_bytes(world.blobs.pop(wish.sha256))
    put(world.state, Command(id="on site", verb="import", arguments=to_document(wish)))
    world.turns(8, seconds=0.2)


def test_installs_what_a_person_brought_without_the_server(world: World) -> None:
    """With the generation of the server's last assignment, so that its next one counts; nothing is left behind."""
    world.install(1)
    bring(world, 2)
    assert decode(Response, (world.state / ANSWER).read_bytes()).ok
    world.beat(2)
    world.turns(5)
    reported = decode(Reported, world.last("reported"))
    assert (reported.current.release, reported.update.release, reported.gen) == ("m-2", "m-2", 1)
    assert (world.events()[-1], (world.state / FOLDER).exists()) == ("committed", False)
    world.say("desired", replace(world.release(3), gen=2))
    world.turns(6, seconds=0.1)
    assert world.agent.updater.record.desired.release == "m-3"


def test_what_a_person_brought_is_refused_as_what_the_server_sends(world: World) -> None:
    """Below the security floor; what was copied is removed."""
    world.install(1)
    world.agent.updater.slots.raise_floor(5)
    bring(world, 2)
    assert (world.events()[-1], world.agent.updater.record.phase) == ("below_security_floor", UpdatePhase.REFUSED)
    assert not (world.state / FOLDER).exists()


def test_nothing_is_imported_during_a_probation(world: World) -> None:
    """The release on trial is judged to its end."""
    world.install(1)
    _probation(world)
    bring(world, 3)
    answer = decode(Response, (world.state / ANSWER).read_bytes())
    assert (answer.ok, answer.code, world.agent.updater.record.desired.release) == (False, "busy", "m-2")


def test_goes_back_where_an_update_was_refused_since(world: World) -> None:
    """The record is about the refused release; the event is one of its own."""
    world.install(1)
    world.install(2)
    world.say("desired", replace(world.release(3), target="m-9"))
    world.turns(3)
    put(world.state, Command(id="back", verb="rollback"))
    world.turns(3)
    reported = decode(Reported, world.last("reported"))
    assert (reported.current.release, reported.previous, reported.update.release) == ("m-1", None, "m-3")
    assert world.events()[-1] == "rolled_back_on_site"


def test_times_the_current_release_when_the_server_asks(world: World) -> None:
    """The figures of a fresh process are the answer; a second question meanwhile is refused."""
    world.agent.parts = replace(
        world.agent.parts, benchmarker=MemoryProber(ProbeResult(ok=True, latency_p99_ms=2.5, runs=50))
    )
    world.install(1)
    for number in ["1", "2"]:
        world.say("cmd/benchmark", Command(id=number, verb="benchmark"))
    world.turns(3)
    found = {answer.id: answer for answer in (decode(Response, one.payload) for one in world.heard_on("res"))}
    figures = from_document(BenchmarkAnswer, found["1"].data)
    assert (figures.release, figures.p99_ms, figures.runs, figures.shared) == ("m-1", 2.5, 50, True)
    assert found["2"].code == "busy"


def test_forwards_samples_within_the_budget(world: World) -> None:
    """The child is asked for at most the bytes that are left today; the second request has none."""
    wish = world.release(1)
    world.say("desired", replace(wish, config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    for number in ["1", "2"]:
        world.say("cmd/samples", Command(id=number, verb="samples", arguments={"count": 3, "budget_bytes": 5000}))
    world.turns(2)
    (grant,) = [told for told in world.children[-1].told if told["type"] == "samples"]
    assert grant["budget_bytes"] == 1000
    assert decode(Response, world.last("res")).code == "budget_zero"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"ratio": 0.25, "at_most": 3}, ""),
        ({"ratio": 0.25, "count": 3}, "arguments_invalid"),
        ({"ratio": 1.5, "at_most": 3}, "arguments_invalid"),
        ({"ratio": "x", "at_most": 3}, "arguments_invalid"),
    ],
)
def test_a_request_with_a_ratio_reaches_the_child(world: World, arguments: dict[str, Json], code: str) -> None:
    """The steady audit names a probability and a limit; the child gets both, and nonsense is refused."""
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    world.say("cmd/samples", Command(id="1", verb="samples", arguments=arguments))
    world.turns(2)
    told = [(told["ratio"], told["count"]) for told in world.children[-1].told if told["type"] == "samples"]
    assert (decode(Response, world.last("res")).code, told) == (code, [] if code else [(0.25, 3)])


def test_no_raw_input_leaves_unless_the_device_allows_it(world: World) -> None:
    """By default a server that asks gets nothing, and the answer names the setting."""
    world.sample_bytes = SampleConfig().max_bytes_per_day
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    world.say("cmd/samples", Command(id="1", verb="samples", arguments={"count": 3}))
    world.turns(2)
    response = decode(Response, world.last("res"))
    assert (response.code, "max_bytes_per_day in [samples]" in response.text) == ("budget_zero", True)
    assert [told for told in world.children[-1].told if told["type"] == "samples"] == []


def test_the_sample_budget_survives_a_restart(world: World) -> None:
    """Today's grants stay in force; an unreadable ledger counts as spent."""
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    world.say("cmd/samples", Command(id="1", verb="samples", arguments={"count": 3}))
    world.turns(2)
    for damage in [None, b"\x00"]:
        if damage:
            (world.state / "samples.json").write_bytes(damage)
        world.agent.stop()
        world.agent = world.make("00000000000000bb")
        world.turns(3)
        world.say("cmd/samples", Command(id="2", verb="samples", arguments={"count": 3}))
        world.turns(2)
        assert decode(Response, world.last("res")).code == "budget_zero"


def samples_sent(world: World) -> list[int]:
    """Return the bytes of each sample that arrived at the broker, in order, each once."""
    sent = (decode(Sample, message.payload) for message in world.heard if message.topic.endswith("tele/sample"))
    return [len(data) for data in {sample.seq: b64decode(sample.data) for sample in sent}.values()]


def test_a_steady_request_keeps_no_bytes_from_others_that_it_does_not_use(world: World) -> None:
    """Five inputs a day within a megabyte must not refuse what is asked for besides; all together stay in the limit."""
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    for name in ("audit", "once"):
        arguments = {"request": name, "ratio": 0.01, "at_most": 30, "budget_bytes": 5000}
        world.say("cmd/samples", Command(id=name, verb="samples", arguments=arguments))
    world.turns(2)
    assert granted(world) == [(30, 1000)] * 2
    for name, length in [("audit", 300), ("once", 701), ("once", 600), ("audit", 101), ("once", 100), ("audit", 1)]:
        world.children[-1].speak("sample", b"x" * length, request=name)
    world.turns(3)
    assert samples_sent(world) == [300, 600, 100]


def test_samples_of_a_request_that_many_others_displaced_are_charged_too(world: World) -> None:
    """Nine requests, of which eight are kept: what the child had drawn for the first stays within the day's bytes."""
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    for number in range(9):
        arguments = {"request": f"r{number}", "ratio": 0.01, "at_most": 3}
        world.say("cmd/samples", Command(id=f"{number}", verb="samples", arguments=arguments))
    world.turns(2)
    for length in (600, 600, 400):
        world.children[-1].speak("sample", b"x" * length, request="r0")
    world.turns(3)
    assert samples_sent(world) == [600, 400]


@pytest.mark.parametrize("arguments", [{"count": 10**9}, {"count": True}, {"count": 3, "lane": "x"}])
def test_a_request_that_the_child_would_refuse_is_refused_and_costs_no_budget(world: World, arguments: dict) -> None:
    """The server must not be told that it is granted, and the next request must have the day's bytes."""
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    world.say("cmd/samples", Command(id="1", verb="samples", arguments=arguments))
    world.turns(2)
    assert decode(Response, world.last("res")).code == "arguments_invalid"
    world.say("cmd/samples", Command(id="2", verb="samples", arguments={"count": 10_000}))
    world.turns(2)
    assert granted(world) == [(10_000, 1000)]


def test_samples_that_still_wait_do_not_leave_once_the_owner_forbids_it(world: World) -> None:
    """They were granted before an outage; with [samples] off, raw inputs of then stay on the device as well."""
    grant_three(world)
    world.agent.stop()
    world.sample_bytes = 0
    world.heard.clear()
    world.agent = world.make("00000000000000bb")
    world.turns(4)
    assert samples_sent(world) == []
    assert [row for row in world.agent.spool._rows("", ()) if row.stream == "sample"] == []
    assert "samples_withheld" in world.events()


def corrections(world: World) -> list[Sample]:
    """Return the samples that arrived at the broker, after one more correction of 300 bytes by a user."""
    world.children[-1].speak("sample", b"x" * 300, lane="correction", label="7", request="r")
    world.turns(3)
    sent = (message for message in world.heard if message.topic.endswith("tele/sample"))
    return list({sample.seq: sample for sample in (decode(Sample, message.payload) for message in sent)}.values())


def test_a_correction_takes_from_the_owner_s_budget_and_from_no_grant(world: World) -> None:
    """It needs no request; grant and lane of an audit stay untouched; beyond the budget an event says so."""
    world.sample_bytes = 1000
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 0}))
    world.turns(7, seconds=0.1)
    world.beat(1)
    found = [corrections(world) for _ in range(4)][-1]
    assert [(sample.lane, sample.label, sample.request) for sample in found] == [("correction", "7", "")] * 3
    assert "correction_dropped" in world.events()


def granted(world: World) -> list[tuple[int, int]]:
    """Return count and bytes of each grant that the last child received."""
    return [(told["count"], told["budget_bytes"]) for told in world.children[-1].told if told["type"] == "samples"]


def grant_three(world: World) -> None:
    """Install a release, grant three inputs within 1,000 bytes, and take one of 300."""
    world.say("desired", replace(world.release(1), config={"sample_bytes_per_day": 1000}))
    world.turns(7, seconds=0.1)
    world.beat(1)
    world.turns(4)
    world.say("cmd/samples", Command(id="1", verb="samples", arguments={"count": 3, "request": "r"}))
    world.turns(2)
    world.children[-1].speak("sample", b"x" * 300, request="r")
    world.turns(2)


@pytest.mark.parametrize("kill_agent", [False, True])
def test_a_grant_goes_on_after_a_kill_with_what_is_left(world: World, *, kill_agent: bool) -> None:
    """A restarted child continues the request: no more than was granted, and no less."""
    grant_three(world)
    if kill_agent:
        world.agent.spool.close()
        world.agent = world.make("00000000000000bb")
    else:
        world.children[-1].kill()
    world.turns(4)
    assert granted(world) == [(2, 700)]


def test_a_grant_ends_where_the_owner_takes_it_back(world: World) -> None:
    """With the device's own limit set to zero, earlier grants are no longer served."""
    grant_three(world)
    world.agent.stop()
    world.sample_bytes = 0
    world.agent = world.make("00000000000000bb")
    world.turns(4)
    assert granted(world) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_command_that_comes_again_after_a_restart_does_nothing(world: World, *, again: bool) -> None:
    """The broker delivers at least once: executed commands are stored on disk, and answered again."""
    grant_three(world)
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.turns(4)
    command = Command(
        id="1" if again else "2", verb="samples", arguments={"count": 1, "request": "r", "budget_bytes": 5}
    )
    world.heard.clear()
    world.say("cmd/samples", command)
    world.turns(2)
    assert decode(Response, world.last("res")).code == ("repeated" if again else "budget_zero")
    assert granted(world) == [(2, 700)]


def test_an_input_that_can_not_be_counted_does_not_leave(world: World) -> None:
    """A full disk: a sample whose bytes can't be recorded could be sent twice after a restart."""
    grant_three(world)
    world.agent._inbox.ledger = replace(world.agent._inbox.ledger, disk=FullDisk())
    world.children[-1].speak("sample", b"y" * 300, request="r")
    world.turns(2)
    rows = [row for row in world.agent.spool._rows("", ()) if row.stream == "sample"]
    assert len(rows) == 1


def test_says_that_its_update_record_was_damaged(world: World) -> None:
    """An event, not silence."""
    world.install(1)
    world.agent.stop()
    (world.state / "update.json").write_bytes(b"{")
    world.agent = world.make("00000000000000bb")
    world.turns(3)
    assert "record_damaged" in world.events()


def test_an_identity_in_use_twice_is_told_and_ends_nothing(world: World) -> None:
    """The agent continues to serve; once an hour there is an event, which is sent when the other client has gone."""
    for _ in range(3):
        thief = MemoryTransport(broker=world.broker, client_id="dev")
        thief.start(lambda _: None, subscriptions=())
        world.turns(2)
        assert not world.agent.uplink.up
        thief.stop()
        world.turns(3)
    assert world.agent.uplink.up
    assert world.events().count("identity_in_use_twice") == 1
    told = [message.payload for message in world.heard if b"identity in use twice" in message.payload]
    assert told
    assert not any(b"password" in payload for payload in told), "a device with a certificate has none"


def test_crashes_never_bring_back_what_lies_below_the_security_floor(world: World) -> None:
    """Crashes of the child must not activate an older, unsafe release: safe mode instead."""
    world.install(1)
    world.install(2)
    Slots(world.state, RealDisk()).raise_floor(5)
    for _ in range(12):
        world.children[-1].kill()
        world.turns(4)
    assert "slot_fallback" not in world.events()
    assert "safe_mode" in world.events()


def test_falls_back_to_the_other_slot_then_to_safe_mode(world: World) -> None:
    """A committed release that never becomes steady is replaced by the previous one; if both are bad: safe mode."""
    world.install(1)
    world.install(2)
    for _ in range(12):
        world.children[-1].kill()
        world.turns(4)
    assert {"slot_fallback", "safe_mode"} <= set(world.events())
    assert decode(Reported, world.last("reported")).safe_mode


def test_a_slot_that_serves_again_is_degraded_no_longer(world: World) -> None:
    """Once it has run long enough, its failed starts are forgotten and reported no more, without the next look."""
    world.install(1)
    slots = Slots(world.state, RealDisk())
    for _ in range(9):
        slots.count_start(slots.current_name())
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.agent._repair.period_s = 3600.0
    world.turns(3)
    assert world.agent._reporter.status(connected=True)["reason"] == "slot_failed"
    for _ in range(12):
        world.children[-1].speak("beat", n=1)
        world.turns(1)
    assert world.agent._reporter.status(connected=True)["state"] == "ready"


def test_serves_the_current_release_after_a_restart(world: World) -> None:
    """Offline too: nothing but the slots is needed."""
    Slots(world.state, RealDisk()).fill("a", SlotRelease(release="m-1", sha256="ff" * 32))
    Slots(world.state, RealDisk()).switch("a")
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.turns(1)
    assert world.children[-1].bundle.name == "ff" * 32


def test_a_full_disk_ends_nothing(world: World) -> None:
    """An update that can't be persisted is tried again later; the agent continues and reports it."""
    world.agent.updater.disk = FullDisk()
    world.say("desired", world.release(1))
    world.turns(2)
    assert "disk_failed" in world.events()
    world.agent.updater.disk = RealDisk()
    world.turns(10)
    assert "probation" in world.events()


def fill(folder: Path) -> Path:
    """Write until the disk is full; return the file that fills it."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return folder / "filler"


def test_on_a_full_disk_it_is_degraded_until_there_is_room(small_disk: Path) -> None:
    """The state is sent with the next step; serving continues, nothing is lost, and the device recovers by itself."""
    world = World(small_disk)
    world.install(1)
    filler = fill(small_disk)
    live(world, 8)
    status = read_record(small_disk / "status.json")
    assert (status["state"], status["reason"], status["serving"]) == ("degraded", "disk_full", True)
    assert (decode(State, world.last("state")).state, trouble(small_disk)) == ("degraded", "disk_full")
    filler.unlink()
    live(world, 12)
    assert decode(State, world.last("state")).state == "ready"
    assert read_record(small_disk / "status.json")["reason"] == ""
    assert {"disk_full", "disk_writable"} < set(world.events())


def test_a_spool_that_can_not_be_written_makes_it_degraded(world: World) -> None:
    """Whatever the reason, which a look at the disk may not show: a quota, a fault."""
    world.install(1)
    world.agent.spool._database.execute("PRAGMA max_page_count = 1")
    for number in range(100):
        world.agent._event("test", f"test_{number}", Severity.INFO, "x" * 400)
    live(world, 12)
    assert decode(State, world.last("state")).reason == "disk_failed"
    world.agent.spool._database.execute("PRAGMA max_page_count = 100000")
    live(world, 12)
    assert decode(State, world.last("state")).state == "ready"
    assert "test_99" in world.events()


@pytest.mark.parametrize("off_s", [-1_500_000_000.0, 400 * 86_400.0])
def test_an_update_under_a_wrong_clock_waits_until_it_is_set(world: World, off_s: float) -> None:
    """In 1970, or a year ahead of the server: deferred, reported, and installed once the clock is right."""
    right_ms = world.clock.wall_ms
    world.clock.wall_ms += round(off_s * 1000)
    world.say("cmd/ack", Ack(at_ms=right_ms))
    world.turns(1)
    world.say("desired", replace(world.release(1), deadline_ms=right_ms + 60_000))
    world.turns(3, seconds=0.1)
    code = "clock_behind" if off_s < 0 else "clock_ahead"
    assert decode(Reported, world.last("reported")).update.code == code
    reported = decode(Reported, world.last("reported"))
    assert abs(reported.at_ms - right_ms) < 60_000
    assert abs(reported.clock_error_ms - off_s * 1000) < 60_000
    world.clock.wall_ms -= round(off_s * 1000)
    world.turns(6, seconds=0.1)
    world.turns(2)
    assert decode(Reported, world.last("reported")).clock_error_ms == 0
    assert "clock_set" in world.events()
    assert world.events()[-1] == "probation"
    told = [message.payload for message in world.heard if b": updates wait until it is set" in message.payload]
    assert b"the clock shows %d-" % (1979 if off_s < 0 else 2027) in told[0]


def test_an_open_window_outlives_a_kill_of_the_agent(world: World) -> None:
    """Without a stop: the next boot continues the window that the first one had written."""
    world.install(1)
    frame = {
        "artifact": "ab" * 32,
        "ref_id": "cd" * 32,
        "start_ms": 1_790_000_000_000 - 1_790_000_000_000 % 3_600_000,
        "len_ms": 3_600_000,
        "streams": 2,
        "classes": 3,
    }
    world.children[-1].speak("window", leb128.encode([1] * SHAPE.total), n=1, closed=False, **frame)
    world.turns(2)
    world.agent.spool.close()
    world.agent = world.make("00000000000000bb")
    world.turns(3)
    world.children[-1].speak("window", leb128.encode([2] * SHAPE.total), n=2, closed=True, **frame)
    world.turns(3)
    report = decode_report(world.last("tele/drift"))
    assert (report.boot, report.seq, report.counters.n) == (BOOT, 1, 3)


@pytest.mark.parametrize(("damage", "code"), [(b"no database" * 1000, "spool_damaged"), (None, "spool_newer")])
def test_says_that_its_spool_was_kept_beside(world: World, damage: bytes | None, code: str) -> None:
    """The rows of the old file are not sent: the event names the file."""
    if damage is None:
        world.agent.spool._database.execute("PRAGMA user_version = 99")
    world.agent.stop()
    if damage is not None:
        (world.state / "spool.db").write_bytes(damage)
    world.agent = world.make("00000000000000bb")
    world.turns(3)
    assert code in world.events()


def test_an_agent_at_rest_writes_little(world: World) -> None:
    """Without images and news, readings of the machine wait for each other: two rows in ten minutes, not ten."""
    world.say("cmd/ack", Ack((Watermark(Stream.EVENT, BOOT, 99),)))
    world.turns(10)
    before = world.agent.spool._database.total_changes
    world.turns(600)
    assert world.agent.spool._database.total_changes - before <= 3


@pytest.fixture
def device_with(tmp_path: Path) -> Callable[[int], World]:
    """A device that was stopped after so many releases were installed; its server sends the last one on request."""

    def make(count: int) -> World:
        (tmp_path / "state").mkdir()
        world = World(tmp_path / "state")
        for version in range(1, count + 1):
            world.install(version)
            world.wish = world.release(version)
        world.turns(3)
        world.agent.stop()
        return world

    return make


def serves(world: World, version: int) -> bool:
    """Return whether one release is current, complete on disk, served and reported."""
    sha256, agent = sha256_hex(world.blobs_of(version)), world.agent
    current = Slots(world.state, RealDisk()).current()
    served = agent.supervisor.serving.name if agent.supervisor.serving else ""
    whole = condition(world.state / "blobs" / "sha256" / sha256, sha256) is Condition.WHOLE
    told = decode(State, world.last("state")).state
    return (current.release if current else "", served, whole, told) == (f"m-{version}", sha256, True, "ready")


def live(world: World, seconds: int) -> None:
    """Let time pass, with a child that sends a heartbeat each second."""
    for _ in range(seconds):
        if world.agent.supervisor.serving is not None:
            world.children[-1].speak("beat", n=1)
        world.turns(1)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_any_one_damaged_file_is_repaired(
    device_with: Callable[[int], World], damage: Callable[[Path], None], count: int
) -> None:
    """For every persistent file in turn: afterwards the desired release is current, complete and served again."""
    world = device_with(count)
    whole = world.state.with_name("whole")
    shutil.copytree(world.state, whole)
    for name in sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file()):
        shutil.rmtree(world.state)
        shutil.copytree(whole, world.state)
        damage(world.state / name)
        world.agent = world.make("00000000000000bb")
        world.turns(12)
        assert serves(world, count), (str(name), world.events()[-8:], world.agent.updater.record)
        world.agent.stop()


@pytest.mark.slow
def test_any_two_damaged_files_are_repaired(device_with: Callable[[int], World], damages: dict[str, Callable]) -> None:
    """Also both copies of one record: the remaining files, the cache or the server restore it."""
    world = device_with(2)
    whole = world.state.with_name("whole")
    shutil.copytree(world.state, whole)
    names = [path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.suffix != ".db"]
    for first, second in itertools.combinations(sorted(names), 2):
        shutil.rmtree(world.state)
        shutil.copytree(whole, world.state)
        damages["flip"](world.state / first)
        damages["empty"](world.state / second)
        world.agent = world.make("00000000000000bb")
        world.turns(14)
        assert serves(world, 2), (str(first), str(second), world.events()[-8:], world.agent.updater.record)
        world.agent.stop()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("damage", ["flip", "lose"], indirect=True)
def test_a_damaged_bundle_waits_for_the_server(
    device_with: Callable[[int], World], count: int, damage: Callable[[Path], None]
) -> None:
    """Offline the previous release serves, if there is one, and the device reports the reason; then it is repaired."""
    world = device_with(count)
    blob = world.state / "blobs" / "sha256" / world.release(count).sha256
    kept, world.blobs = world.blobs, {}
    damage(blob)
    world.agent = world.make("00000000000000bb")
    world.turns(8)
    state, code = decode(State, world.last("state")), "bundle_damaged" if damage.__name__ == "flip" else "bundle_lost"
    assert (state.state, state.reason) == ("degraded", code)
    assert {code, "repair_failed"} <= set(world.events())
    served = world.agent.supervisor.serving
    assert (served.name if served else None) == (world.release(1).sha256 if count == 2 else None)
    world.agent.updater.ports.fetcher.blobs.update(kept)
    live(world, 40)
    assert serves(world, count)
    since = world.events()[world.events().index("repair_failed") :]
    assert {"repaired", "probation"} & set(since)  # in its slot, or by the update asked for again: jitter decides


def test_what_is_served_from_memory_goes_on_while_its_file_is_mended(
    device_with: Callable[[int], World], damages: dict[str, Callable]
) -> None:
    """A bit that flips under a running child ends nothing: the file is fetched again beside it."""
    world = device_with(1)
    world.agent = world.make("00000000000000bb")
    world.turns(3)
    started = len(world.children)
    damages["flip"](world.state / "blobs" / "sha256" / world.release(1).sha256)
    live(world, 15)
    assert serves(world, 1)
    assert (len(world.children), "bundle_damaged" in world.events()) == (started, True)


def test_a_fallback_returns_when_it_was_the_bundle(
    device_with: Callable[[int], World], damages: dict[str, Callable]
) -> None:
    """Failed starts of a damaged bundle do not count against the release: after the repair it is current again."""
    world = device_with(2)
    damages["flip"](world.state / "blobs" / "sha256" / world.release(2).sha256)
    slots = Slots(world.state, RealDisk())
    for _ in range(9):
        slots.count_start(slots.current_name())
    world.agent = world.make("00000000000000bb")
    world.turns(12)
    assert serves(world, 2)
    assert not decode(Reported, world.last("reported")).safe_mode


def test_a_release_in_safe_mode_may_be_sent_again(world: World) -> None:
    """A second assignment starts it again; the server need not create another release."""
    world.install(1)
    for _ in range(12):
        world.children[-1].kill()
        world.turns(4)
    assert decode(Reported, world.last("reported")).safe_mode
    world.say("desired", replace(world.release(1), gen=2))
    world.turns(3)
    assert not decode(Reported, world.last("reported")).safe_mode
    assert serves(world, 1)


@pytest.mark.parametrize("gen", [2**63 - 1, 2**53 + 1, 2**53, 2**32 + 1, -1])
def test_a_gen_that_is_no_servers_blocks_nothing(world: World, gen: int) -> None:
    """It is counted as garbage; the next valid one is accepted."""
    document = {**to_document(world.release(1)), "gen": gen}
    world.say("desired", canonical_bytes(document))
    world.turns(2)
    assert (world.events(), world.agent.updater.record.desired.gen) == (["started", "garbage"], 0)
    world.install(1)


def test_a_gen_far_ahead_is_taken_up_and_passed_by_the_next(world: World) -> None:
    """Within the bound it is accepted; the server sees it in the device's report and continues above it."""
    world.say("desired", replace(world.release(1), gen=2**32))
    world.turns(2)
    assert decode(Reported, world.last("reported")).gen == 2**32
    world.say("desired", replace(world.release(2), gen=2**32 + 1))
    world.turns(2)
    assert world.agent.updater.record.desired.release == "m-2"


def test_a_record_with_an_impossible_gen_is_left_behind(device_with: Callable[[int], World]) -> None:
    """A value that an older agent accepted no longer blocks: the server's next one is accepted."""
    world = device_with(1)
    for name in ("update.json", "gen.json"):
        text = (world.state / name).read_text()
        (world.state / name).write_text(text.replace('"gen":1', f'"gen":{2**63 - 1}'))
    world.agent = world.make("00000000000000bb")
    world.turns(3)
    assert serves(world, 1)
    assert world.agent.updater.record.desired.gen == 1


def test_reports_what_a_day_costs_and_keeps_it_over_a_restart(world: World) -> None:
    """A row of ``hw`` has the day's bytes and the spool's losses; ``status.json`` carries the day on."""
    world.agent.parts.meter.add(AirBytes(1000, 500))
    world.turns(3, seconds=60.0)
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.turns(2, seconds=60.0)
    world.agent.stop()
    rows = [
        row
        for message in world.heard
        if message.topic.endswith("/tele/hw")
        for row in decode(Batch, message.payload).rows
    ]
    found = [from_document(DayUsage, row["usage"]) for row in rows if "usage" in row]
    assert [(used.sent_bytes, used.received_bytes, used.merged) for used in found][-1] == (1000, 500, 0)
    assert read_record(world.state / "status.json")["usage"]["today"]["sent_bytes"] == 1000


@pytest.mark.parametrize(("in_order", "uncounted_s"), [(True, None), (False, 46.0)])
def test_a_start_after_a_power_cut_says_how_much_may_be_uncounted(
    world: World, *, in_order: bool, uncounted_s: float | None
) -> None:
    """A checkpoint of the counts and a commit: the server sees where a gap may be, and how long it is at most."""
    world.install(1)
    if in_order:
        last_end.end(world.state, RealDisk())
    world.agent.stop()
    world.agent = world.make("00000000000000bb")
    world.turns(2)
    started = [decode(Event, one.payload) for one in world.heard if one.topic.endswith("/event")]
    assert [one.data.get("uncounted_s") for one in started if one.code == "started"][-1] == uncounted_s


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20)
    | st.integers(-(2**70), 2**70) | st.sampled_from([10**400, "\ud800", "\x00", "x" * 70_000, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
TO_DEVICE: Mapping[str, Mapping[str, object]] = {
    "desired": to_document(Desired(gen=1, release="m-1", target="m-1", sha256="ab" * 32, length_bytes=9)),
    "cmd/ack": to_document(Ack(watermarks=(Watermark(stream=Stream.DRIFT.value, boot=BOOT),))),
    "cmd/samples": {"id": "a", "arguments": {"count": 1, "budget_bytes": 9, "lane": "audit", "request": "r"}},
    "cmd/logs": {"id": "a", "arguments": {"lines": 3, "since_ms": 0, "level": "INFO"}},
    **{f"cmd/{verb}": {"id": "a", "arguments": {"key": 1}} for verb in ("selftest", "benchmark", "measure", "unknown")},
}


def replaced(document: object, value: object, draw: Callable[[st.SearchStrategy[int]], int]) -> object:
    """Return ``document`` with ``value`` in the place of one of its fields, at any depth."""
    if not isinstance(document, dict | list) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[draw(st.integers(0, len(keys) - 1))]
    inner = value if draw(st.integers(0, 1)) else replaced(document[key], value, draw)
    pairs = [(one, inner if one == key else document[one]) for one in keys]
    return dict(pairs) if isinstance(document, dict) else [item for _, item in pairs]


@st.composite
def payloads(draw: Callable[[st.SearchStrategy[object]], object], document: object) -> bytes:
    """Draw random bytes, a cut or a mutated ``document``, or one nested beyond every limit."""
    whole = json.dumps(document).encode()
    way = draw(st.sampled_from(["bytes", "cut", "replaced", "replaced", "replaced", "deep"]))
    if way == "bytes":
        return draw(st.binary(max_size=200))  # type: ignore[return-value]  # as drawn
    if way == "cut":
        return whole[: draw(st.integers(0, len(whole)))]  # type: ignore[misc]  # as drawn
    if way == "deep":
        return draw(st.sampled_from([b"[", b'{"a":'])) * 50_000  # type: ignore[operator]  # as drawn
    return json.dumps(replaced(document, draw(JSON_VALUES), draw)).encode()  # type: ignore[arg-type]  # as drawn


@pytest.mark.parametrize("leaf", sorted(TO_DEVICE))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_arrives_on_a_topic_of_the_device_it_goes_on(world: World, leaf: str, data: st.DataObject) -> None:
    """Random bytes and mutated documents: no turn raises, the next command is answered, and little is kept."""
    world.heard.clear()
    world.say(leaf, data.draw(payloads(TO_DEVICE[leaf])))
    world.turns(2)
    asked = f"ask-{world.clock.now_ms()}-{data.draw(st.integers(0, 2**60))}"
    world.say("cmd/selftest", Command(id=asked))
    world.turns(1)
    assert decode(Response, world.last("res")).id == asked
    assert sum(path.stat().st_size for path in world.state.rglob("*.json")) < 2_000_000
