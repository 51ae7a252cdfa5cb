"""A complete device with real parts: mosquitto, HTTP, inference child, probe, disk; only signatures are in memory."""

import http.server
import importlib.util
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.config import AgentConfig, ChildConfig, MonitorConfig, SpoolConfig, UpdateConfig
from edge_agent.control.agent import Agent, AgentParts, Notices
from edge_agent.control.assembly import child_arguments, mqtt_settings
from edge_agent.control.supervisor import ProcessLauncher
from edge_agent.device.clock import SystemClock
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.in_flight import read_held
from edge_agent.sources import SourceConfig
from edge_agent.transports.mqtt import MqttSettings, MqttTransport
from edge_agent.updater.children import ChildProber
from edge_agent.updater.download import FetchSettings, HttpFetcher
from edge_agent.updater.ports import MemoryVerifier, TargetInfo, ThreadWorker
from edge_agent.updater.updater import UpdatePorts
from wire.bundle import build_bundle
from wire.canonical import sha256_hex
from wire.codec import decode, encode
from wire.drift_report import decode_report
from wire.messages import Ack, Command, Desired, Event, Reported, State, Stream, UpdatePhase, Watermark
from wire.reference import write_reference
from wire.shadow import ShadowOrder
from wire.transport import Incoming, Notice
from wire.tuf_target import TargetCustom

pytestmark = [pytest.mark.broker, pytest.mark.slow]
pytest.importorskip("onnx")
LIMIT_S = 60.0
TINY = Path(__file__).parent / "inference" / "conftest.py"


def tiny() -> object:
    """Return the module that makes small real models."""
    spec = importlib.util.spec_from_file_location("tiny_models", TINY)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_models"] = module
    spec.loader.exec_module(module)
    return module


class Server:
    """The fleet's side: listens to everything, serves blobs."""

    def __init__(self, port: int, blobs: Path) -> None:
        """Start both."""
        self.heard: list[Incoming] = []
        self.queue: queue.SimpleQueue[Notice] = queue.SimpleQueue()
        self.mqtt = MqttTransport(
            MqttSettings(host="127.0.0.1", port=port, client_id="server", username="server", password="secret")
        )
        self.mqtt.start(self.queue.put, subscriptions=("tf/1/#",))
        handler = lambda *args: http.server.SimpleHTTPRequestHandler(*args, directory=str(blobs.parent))  # noqa: E731
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def look(self) -> None:
        """Receive the waiting messages."""
        while not self.queue.empty():
            notice = self.queue.get()
            if isinstance(notice, Incoming):
                self.heard.append(notice)

    def messages(self, pattern: str) -> list[bytes]:
        """Return the payloads on topics that match."""
        return [message.payload for message in self.heard if re.fullmatch(pattern, message.topic)]

    def say(self, leaf: str, message: object, *, retain: bool = False) -> None:
        """Publish to the device, as soon as the transport takes it."""
        deadline = time.monotonic() + LIMIT_S
        while self.mqtt.publish(f"tf/1/site/dev/{leaf}", encode(message), retain=retain) is None:
            assert time.monotonic() < deadline

    def close(self) -> None:
        """Stop both."""
        self.mqtt.stop()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(broker: object, tmp_path: Path) -> Iterator[Server]:
    """The fleet's side."""
    blobs = tmp_path / "www" / "blobs"
    blobs.mkdir(parents=True)
    running = Server(broker.port, blobs)
    yield running
    running.close()


CONFIG = AgentConfig(
    monitor=MonitorConfig(window_s=1.0, infer_s=1.0, hw_s=1.0, rows_a_batch=1),
    child=ChildConfig(beat_s=0.1, healthy_s=0.2), spool=SpoolConfig(commit_s=0.1), update=UpdateConfig(reserve_bytes=0),
)  # fmt: skip


@pytest.fixture
def agent(broker: object, server: Server, tmp_path: Path) -> Iterator[Callable[[dict[str, TargetInfo]], Agent]]:
    """A maker of agents on real parts; signed targets come as a mapping."""
    made: list[Agent] = []

    def make(targets: dict[str, TargetInfo]) -> Agent:
        state = tmp_path / "state"
        state.mkdir(exist_ok=True)
        url = f"http://127.0.0.1:{server.http.server_address[1]}"
        identity = Identity(
            site="site", device="dev", password="secret", mqtt_host="127.0.0.1", mqtt_port=broker.port, http_url=url
        )
        config = replace(CONFIG, source=SourceConfig("directory", {"path": str(tmp_path / "inbox")}))
        notices: Notices = queue.SimpleQueue()
        fetcher = HttpFetcher(
            FetchSettings(base_url=url, username="dev", password="secret"), state / "blobs" / "sha256", RealDisk()
        )
        ports = UpdatePorts(
            verifier=MemoryVerifier(targets),
            fetcher=fetcher,
            prober=ChildProber(),
            worker=ThreadWorker(notices.put),
            hardware="x86_64",
            runtimes=("onnx",),
        )
        launch = ProcessLauncher(child_arguments(config, state))
        parts = AgentParts(
            clock=SystemClock(),
            transport=MqttTransport(mqtt_settings(identity, config)),
            launch=launch,
            disk=RealDisk(),
            ports=ports,
            notices=notices,
        )
        made.append(Agent(identity, config, state, "00000000000000aa", parts))
        made[-1].start()
        return made[-1]

    yield make
    for device in made:
        device.stop()


def turn_until(device: Agent, server: Server, done: Callable[[], object]) -> None:
    """Turn the agent until ``done``; fail after the limit."""
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline, (device.updater.record, device.supervisor.last_fault)
        if not device.turn():
            device.wait(0.02)
        server.look()


def publish(tmp_path: Path, version: int) -> tuple[dict[str, TargetInfo], Desired]:
    """Build a small real bundle and put it on the server; return the signed metadata and the desired state."""
    models = tiny()
    manifest, artifact = replace(models.MANIFEST, version=version), models.tiny_onnx(version)
    reference = write_reference(models.reference_for(artifact))
    golden = models.golden_npz(manifest, artifact)
    data = build_bundle(manifest, {"model.onnx": artifact, "reference.bin": reference, "golden.npz": golden})
    (tmp_path / "www" / "blobs" / sha256_hex(data)).write_bytes(data)
    custom = TargetCustom(
        model="tiny", version=version, target="test", runtime="onnx", artifact_sha256=sha256_hex(artifact)
    )
    path = f"tiny-{version}/test.tfb"
    desired = Desired(
        gen=version,
        release=f"tiny-{version}",
        target=path,
        sha256=sha256_hex(data),
        length_bytes=len(data),
        probation_s=0.5,
    )
    return {path: TargetInfo(desired.sha256, len(data), custom)}, desired


def phases(server: Server) -> list[str]:
    """Return the phases in the events."""
    events = [decode(Event, payload) for payload in server.messages("tf/1/site/dev/event")]
    return [event.code for event in sorted(events, key=lambda event: event.seq) if event.kind == "update"]


def committed(device: Agent) -> bool:
    """Return whether the update was committed."""
    return device.updater.record.phase is UpdatePhase.COMMITTED


def test_installs_a_release_counts_and_reports_until_acknowledged(
    agent: Callable, server: Server, tmp_path: Path
) -> None:
    """From desired over MQTT to a committed release that counts images; the spool empties on acknowledgement only."""
    targets, desired = publish(tmp_path, 1)
    device = agent(targets)
    server.say("desired", desired, retain=True)
    turn_until(device, server, lambda: committed(device) and device.supervisor.serving)
    inbox, models = tmp_path / "inbox", tiny()
    for number, image in enumerate(models.some_images(20)):
        (inbox / f".{number}").write_bytes(models.png(image))
        (inbox / f".{number}").rename(inbox / f"{number:03}.png")

    def counted() -> int:
        reports = [decode_report(payload) for payload in server.messages("tf/1/site/dev/tele/drift")]
        return sum({report.seq: report.counters.n for report in reports}.values())

    turn_until(device, server, lambda: counted() == 20)
    turn_until(device, server, lambda: phases(server)[-1:] == ["committed"])
    assert phases(server) == ["offered", "downloading", "verifying", "staged", "probation", "committed"]
    assert decode(Reported, server.messages("tf/1/site/dev/reported")[-1]).current.release == "tiny-1"
    assert device.spool.count() > 0
    marks = tuple(Watermark(stream, "00000000000000aa", 10_000) for stream in Stream)
    server.say("cmd/ack", Ack(marks))
    turn_until(device, server, lambda: device.spool.oldest("drift", "00000000000000aa") == 0)


def test_swaps_to_the_next_release_without_a_new_child(agent: Callable, server: Server, tmp_path: Path) -> None:
    """The second release is swapped into the same process."""
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    device = agent({**first[0], **second[0]})
    server.say("desired", first[1], retain=True)
    turn_until(device, server, lambda: committed(device))
    pid = device.supervisor.child.pid
    server.say("desired", second[1], retain=True)
    turn_until(device, server, lambda: committed(device) and device.updater.record.desired.gen == 2)
    assert device.supervisor.child.pid == pid


def test_a_child_killed_in_probation_rolls_back(agent: Callable, server: Server, tmp_path: Path) -> None:
    """The old release serves again, the reason has a code."""
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    device = agent({**first[0], **second[0]})
    server.say("desired", first[1], retain=True)
    turn_until(device, server, lambda: committed(device))
    server.say("desired", replace(second[1], probation_s=60.0), retain=True)
    turn_until(device, server, lambda: device.updater.record.phase is UpdatePhase.PROBATION)
    device.supervisor.child.kill()
    turn_until(device, server, lambda: device.updater.record.phase is UpdatePhase.ROLLED_BACK)
    turn_until(device, server, lambda: device.supervisor.serving is not None)
    assert device.updater.status.code == "child_crashed"
    assert device.supervisor.serving.name == first[1].sha256


def _images(tmp_path: Path, count: int, seed: int = 1) -> None:
    """Put images into the inbox, each by one rename."""
    inbox, models = tmp_path / "inbox", tiny()
    for number, image in enumerate(models.some_images(count, seed)):
        (inbox / f".{seed}-{number}").write_bytes(models.png(image))
        (inbox / f".{seed}-{number}").rename(inbox / f"{seed}-{number:03}.png")


def _in_shadow(agent: Callable, server: Server, tmp_path: Path, order: ShadowOrder) -> Agent:
    """Return a device that serves tiny-1 and compares tiny-2 with it, and has counted."""
    first, second = publish(tmp_path, 1), publish(tmp_path, 2)
    device = agent({**first[0], **second[0]})
    server.say("desired", first[1], retain=True)
    turn_until(device, server, lambda: committed(device) and device.supervisor.serving)
    server.say("desired", replace(second[1], shadow=order), retain=True)
    turn_until(device, server, lambda: device.updater.record.phase is UpdatePhase.SHADOW)
    turn_until(device, server, lambda: device.updater.record.shadow.seconds > 0)
    _images(tmp_path, 30)
    turn_until(device, server, lambda: device.updater.record.shadow.n + device.updater.record.shadow.skipped == 30)
    return device


def test_a_release_is_compared_on_the_inputs_then_switched_to(agent: Callable, server: Server, tmp_path: Path) -> None:
    """Over a real broker, with real children: the counts are in the report of the committed release."""
    device = _in_shadow(agent, server, tmp_path, ShadowOrder(3.0))
    turn_until(device, server, lambda: committed(device) and device.updater.record.desired.gen == 2)
    turn_until(device, server, lambda: phases(server)[-1:] == ["committed"])
    assert phases(server)[-7:] == [
        "downloading", "verifying", "shadow", "verifying", "staged", "probation", "committed",
    ]  # fmt: skip
    shadow = decode(Reported, server.messages("tf/1/site/dev/reported")[-1]).update.shadow
    assert (shadow.n + shadow.skipped, shadow.errors) == (30, 0)
    assert shadow.n > 0
    assert shadow.seconds >= 3.0


def test_an_orderly_stop_in_the_shadow_loses_no_count(agent: Callable, server: Server, tmp_path: Path) -> None:
    """Neither what the child had not sent yet, nor what the agent had not written: server and next start have all."""
    device = _in_shadow(agent, server, tmp_path, ShadowOrder(600.0))
    _images(tmp_path, 20, seed=2)
    turn_until(device, server, lambda: not list((tmp_path / "inbox").glob("*.png")))
    device.stop()
    deadline = time.monotonic() + LIMIT_S
    while b"disconnected" not in server.messages("tf/1/site/dev/state")[-1]:
        assert time.monotonic() < deadline
        server.look()
    shadow = decode(Reported, server.messages("tf/1/site/dev/reported")[-1]).update.shadow
    assert shadow.n + shadow.skipped == 50
    assert device.updater._records.read()[0].shadow == shadow


def test_a_child_killed_in_the_shadow_refuses_the_challenger_and_serves_on(
    agent: Callable, server: Server, tmp_path: Path
) -> None:
    """Kill -9: the release that serves is not blamed, no start of its slot counts, and it serves the next inputs."""
    device = _in_shadow(agent, server, tmp_path, ShadowOrder(600.0))
    served = device.supervisor.serving
    device.supervisor.child.kill()
    turn_until(device, server, lambda: device.updater.record.phase is UpdatePhase.REFUSED)
    turn_until(device, server, lambda: device.supervisor.serving is not None)
    assert (device.updater.status.code, device.updater.status.shadow.errors) == ("challenger_crashed", 0)
    assert device.updater.status.shadow.n > 0
    assert (device.supervisor.serving, device.updater.slots.boots(device.updater.slots.current_name())) == (served, 0)
    _images(tmp_path, 5, seed=2)
    turn_until(device, server, lambda: not list((tmp_path / "inbox").iterdir()))


def test_a_source_that_is_away_commits_the_release_and_serves_when_it_is_back(
    agent: Callable, server: Server, tmp_path: Path
) -> None:
    """A real child that loads the release and has no source: kept, with the reason, and no start of a slot counted."""
    (tmp_path / "inbox").write_text("where the card is mounted")
    targets, desired = publish(tmp_path, 1)
    device = agent(targets)
    server.say("desired", desired, retain=True)
    turn_until(device, server, lambda: committed(device))
    assert "no inferences in probation: the source was missing" in device.updater.record.text
    assert (device.supervisor.serving, device._slots.boots("a"), device.supervisor.safe_mode) == (None, 0, False)
    (tmp_path / "inbox").unlink()
    turn_until(device, server, lambda: device.supervisor.serving)
    assert device.supervisor.serving.name == desired.sha256


def test_a_picture_that_kills_the_child_costs_neither_the_slot_nor_the_picture_behind_it(
    agent: Callable, server: Server, tmp_path: Path
) -> None:
    """Killed in the middle of a large picture: an event names both, the next picture is served, no safe mode."""
    targets, desired = publish(tmp_path, 1)
    device, inbox, models = agent(targets), tmp_path / "inbox", tiny()
    server.say("desired", desired, retain=True)
    turn_until(device, server, lambda: committed(device) and device.supervisor.serving)
    large = np.repeat(np.repeat(models.some_images(1)[0], 500, axis=0), 500, axis=1)
    for name, data in (("0.png", models.png(large)), ("1.png", models.png(models.some_images(1)[0]))):
        (inbox / f".{name}").write_bytes(data)
        (inbox / f".{name}").rename(inbox / name)
    turn_until(device, server, lambda: (held := read_held(device.state)) and held.item == "0.png")
    device.supervisor.child.kill()
    turn_until(device, server, lambda: not list(inbox.glob("*.png")))
    events = [decode(Event, payload) for payload in server.messages("tf/1/site/dev/event")]
    texts = {event.code: event.text for event in events}
    assert texts["child_ended_on_input"] == "killed by SIGKILL while it held 0.png"
    assert (device.supervisor.safe_mode, device.updater.record.phase) == (False, UpdatePhase.COMMITTED)
    assert [path.name for path in (device.state / "bad").iterdir()] == ["00000001-input_crashed-0.png"]


def test_garbage_on_every_topic_is_counted_and_ends_nothing(agent: Callable, server: Server) -> None:
    """Whatever the broker delivers, the agent continues and reports it once per kind."""
    device = agent({})
    turn_until(device, server, lambda: device.uplink.up)
    for leaf in ["desired", "cmd/ack", "cmd/samples", "cmd/selftest"]:
        for payload in [b"\xff\x00", b"[]", b'{"gen": "x", "watermarks": 5, "id": []}', b"{" * 5000]:
            server.mqtt.publish(f"tf/1/site/dev/{leaf}", payload)
    turn_until(device, server, lambda: sum(device._limiter.counts.values()) >= 15)
    turn_until(device, server, lambda: len(server.messages("tf/1/site/dev/event")) >= 4)


def test_refuses_samples_without_a_budget(agent: Callable, server: Server) -> None:
    """Raw inputs stay on the device unless a budget was granted."""
    device = agent({})
    turn_until(device, server, lambda: device.uplink.up)
    server.say("cmd/samples", Command(id="c1", verb="samples", arguments={"count": 5}))
    turn_until(device, server, lambda: server.messages("tf/1/site/dev/res"))
    assert b'"code":"budget_zero"' in server.messages("tf/1/site/dev/res")[0]


def test_says_that_it_is_there_and_goodbye(agent: Callable, server: Server) -> None:
    """Without a release the state is init after connecting, and disconnected after an orderly end."""
    device = agent({})
    turn_until(device, server, lambda: server.messages("tf/1/site/dev/get"))
    device.stop()
    limit = time.monotonic() + LIMIT_S
    while decode(State, (server.messages("tf/1/site/dev/state") or [b"{}"])[-1]).state != "disconnected":
        assert time.monotonic() < limit
        server.look()
    states = [decode(State, payload).state for payload in server.messages("tf/1/site/dev/state")]
    assert states[0] == "init"
