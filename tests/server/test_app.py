"""The complete server on a real broker: start, stop, restart, and its persistent state."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from server.app.server import Overrides, ServerApp
from server.app.state_directory import StateDirectory, init_state
from server.broker.mqtt import BrokerTransport
from server.errors import AlreadyRunningError, ConfigError, PortInUseError
from wire.codec import decode, encode
from wire.drift_report import DriftReport, encode_report
from wire.messages import Ack, Desired, DeviceState, Reported, State
from wire.transport import Incoming, LinkChange, Notice

pytestmark = pytest.mark.broker

Run = Callable[[], ServerApp]
DeviceOf = Callable[..., "LiveDevice"]
MakeReport = Callable[..., DriftReport]


@dataclass
class LiveDevice:
    """A device enrolled over HTTP, connected by paho."""

    identity: dict
    transport: BrokerTransport
    heard: queue.Queue[Notice] = field(default_factory=queue.Queue)

    def topic(self, leaf: str) -> str:
        """Return a topic below the device."""
        return f"tf/1/{self.identity['site']}/{self.identity['device']}/{leaf}"

    def wait(self, wanted: Callable[[Notice], bool]) -> Notice:
        """Return the first wanted notice."""
        while True:
            notice = self.heard.get(timeout=20)
            if wanted(notice):
                return notice

    def wait_for(self, leaf: str) -> bytes:
        """Return the payload of the next message on ``leaf``."""
        notice = self.wait(lambda item: isinstance(item, Incoming) and item.topic == self.topic(leaf))
        return notice.payload


def _enrol(app: ServerApp, device: str) -> LiveDevice:
    claim = app.parts.enrolment.claim("berlin", device, {})
    identity = httpx.post(f"{app.http_url}/api/enrol", json={"claim": claim}, trust_env=False).json()
    transport = BrokerTransport(
        host=identity["mqtt_host"],
        port=identity["mqtt_port"],
        client_id=device,
        user=device,
        password=identity["password"],
    )
    live = LiveDevice(identity, transport)
    transport.start(live.heard.put, subscriptions=(live.topic("desired"), live.topic("cmd/#")))
    live.wait(lambda notice: isinstance(notice, LinkChange))
    return live


@pytest.fixture
def device_of() -> Iterator[Callable[[ServerApp, str], LiveDevice]]:
    """Enrol devices that are disconnected at the end."""
    made: list[LiveDevice] = []

    def make(app: ServerApp, device: str = "cam-1") -> LiveDevice:
        made.append(_enrol(app, device))
        return made[-1]

    yield make
    for device in made:
        device.transport.stop()


@pytest.fixture
def run(state: StateDirectory) -> Iterator[Callable[[], ServerApp]]:
    """Start servers that are stopped at the end."""
    started: list[ServerApp] = []

    def make() -> ServerApp:
        app = ServerApp.open(state.path)
        started.append(app)
        app.start()
        return app

    yield make
    for app in started:
        app.stop()


def test_a_device_enrols_reports_and_is_acknowledged(run: Run, device_of: DeviceOf, report: MakeReport) -> None:
    """The thinnest path through HTTP, mosquitto, ingest and store."""
    app = run()
    device = device_of(app)
    device.transport.publish(device.topic("tele/drift"), encode_report(report(0)))
    ack = decode(Ack, device.wait_for("cmd/ack"))
    assert ack.watermarks[0].through_seq == 0
    assert len(app.parts.windows.since(0)) == 1


def test_desired_survives_a_restart_on_the_same_addresses(run: Run, device_of: DeviceOf) -> None:
    """Devices know the ports; they find the server and their assignment there again."""
    app = run()
    device = device_of(app)
    app.parts.fleet.set_config("cam-1", {"sample_bytes_per_day": 7})
    app.stop()
    again = run()
    assert (again.http_url, again.address.mqtt_port) == (app.http_url, app.address.mqtt_port)
    device.wait(lambda notice: isinstance(notice, LinkChange) and notice.link.value == "up")
    assert decode(Desired, device.wait_for("desired")).config == {"sample_bytes_per_day": 7}


def test_a_killed_broker_comes_back_and_loses_nothing(run: Run, device_of: DeviceOf, report: MakeReport) -> None:
    """Unacknowledged messages are sent again and count once."""
    app = run()
    device = device_of(app)
    os.kill(app.broker.pid, signal.SIGKILL)
    device.wait(lambda notice: isinstance(notice, LinkChange) and notice.link.value == "up")
    _until(lambda: app.transport.idle_s() < 60)
    for _ in range(2):
        device.transport.publish(device.topic("tele/drift"), encode_report(report(0)))
    device.wait_for("cmd/ack")
    assert [window.n for window in app.parts.windows.since(0)] == [5]
    assert app.broker.restarts == 1


def test_devices_that_enrol_at_once_all_get_in(run: Run) -> None:
    """No list of passwords replaces a newer one, and no claim is lost."""
    app = run()

    def enrol(number: int) -> tuple[str, str]:
        claim = app.parts.enrolment.claim("berlin", f"cam-{number}", {})
        answer = httpx.post(f"{app.http_url}/api/enrol", json={"claim": claim}, trust_env=False, timeout=30)
        return f"cam-{number}", answer.raise_for_status().json()["password"]

    with ThreadPoolExecutor(12) as pool:
        known = list(pool.map(enrol, range(24)))
    assert [name for name, password in known if not app.broker.accepts(name, password)] == []


def test_state_is_seen_by_the_api(run: Run, device_of: DeviceOf) -> None:
    """The state that a device sends over MQTT is readable over HTTP."""
    app = run()
    device = device_of(app)
    device.transport.publish(device.topic("state"), encode(State(state=DeviceState.READY)), retain=True)
    headers = {"Authorization": f"Bearer {app.state.token('operator')}"}
    client = httpx.Client(base_url=app.http_url, headers=headers, trust_env=False)
    _until(lambda: client.get("/api/devices/cam-1").json()["state"] == "ready")
    client.close()


def test_says_where_it_runs(run: Run) -> None:
    """Scripts read run/address.json."""
    app = run()
    address = json.loads(app.state.address.read_text())
    assert address["http_url"] == app.http_url
    assert address["pid"] == os.getpid()


def test_a_second_server_is_refused(run: Run, state: StateDirectory) -> None:
    """Two servers on one directory would assign the same generations."""
    run()
    with pytest.raises(AlreadyRunningError, match=f"a running one, process {os.getpid()}: end that first"):
        ServerApp.open(state.path)


def test_a_busy_http_port_is_named_and_nothing_is_held(state: StateDirectory) -> None:
    """After the refusal the directory is free for another try."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for _ in range(2):
            with pytest.raises(PortInUseError, match=str(port)):
                ServerApp.open(state.path, overrides=Overrides(http_port=port))


def test_a_busy_broker_port_stops_what_was_started(state: StateDirectory) -> None:
    """The HTTP port and the lock are given back."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        for _ in range(2):
            app = ServerApp.open(state.path, overrides=Overrides(broker_port=other.getsockname()[1]))
            with pytest.raises(PortInUseError):
                app.start()


def test_refuses_to_listen_beyond_loopback_without_tls(state: StateDirectory) -> None:
    """Passwords would be sent unencrypted."""
    with pytest.raises(ConfigError, match="loopback"):
        ServerApp.open(state.path, overrides=Overrides(bind="0.0.0.0"))  # noqa: S104 - it is refused


def _until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not holds():
        if time.monotonic() > deadline_s:
            pytest.fail("Expected the condition to hold in 20 s")
        time.sleep(0.02)


def test_the_state_directory_is_private(state: StateDirectory) -> None:
    """It contains tokens and keys."""
    assert state.path.stat().st_mode & 0o077 == 0
    for path in (Path(state.path / "operator.token"), Path(state.path / "builder.token")):
        assert path.stat().st_mode & 0o777 == 0o600


GUESSES = (
    "$share/ingest/tf/1/+/+/tele/#", "$share/server/tf/1/+/+/tele/#", "$share//tf/1/+/+/tele/#",
    "$share/+/tf/1/+/+/tele/#", "$share/#", "#", "+/#", "tf/1/#", "tf/1/+/+/tele/#", "tf/1/berlin/cam-1/#", "$SYS/#",
)  # fmt: skip


def test_an_evil_device_takes_nothing_from_the_fleet(run: Run, device_of: DeviceOf, report: MakeReport) -> None:
    """Whatever it subscribes to, it receives nothing of others, and the server stores each of 100 reports."""
    app = run()
    spies = [_spy(device_of(app, f"evil-{number}"), guess) for number, guess in enumerate(GUESSES)]
    honest = device_of(app)
    for seq in range(100):
        assert honest.transport.publish(honest.topic("tele/drift"), encode_report(report(seq))) is not None
    honest.wait(lambda notice: isinstance(notice, Incoming) and _acknowledged(notice) == 99)
    assert sum(window.reports for window in app.parts.windows.since(0)) == 100
    for spy in spies:
        spy.stop()
        assert [notice for notice in spy.heard if isinstance(notice, Incoming)] == []


def test_the_shared_subscription_is_a_secret_that_lasts(state: StateDirectory) -> None:
    """Kept over restarts and private; a state directory of an older version gets one."""
    group = state.ingest_group()
    assert (len(group) >= 40, state.ingest_group()) == (True, group)
    assert (state.path / "ingest.group").stat().st_mode & 0o777 == 0o600
    (state.path / "ingest.group").unlink()
    assert state.ingest_group() not in {group, ""}


def test_another_state_directory_has_another_group(state: StateDirectory, tmp_path: Path) -> None:
    """The owner of another server learns nothing about this one."""
    assert init_state(tmp_path / "other").ingest_group() != state.ingest_group()


@dataclass
class Spy:
    """A device's connection with a subscription it has no right to."""

    transport: BrokerTransport
    heard: list[Notice] = field(default_factory=list)

    def stop(self) -> None:
        """Disconnect."""
        self.transport.stop()


def _spy(device: LiveDevice, subscription: str) -> Spy:
    device.transport.stop()
    spy = Spy(device.transport)
    settled = queue.Queue[LinkChange]()

    def hear(notice: Notice) -> None:
        (settled.put if isinstance(notice, LinkChange) else spy.heard.append)(notice)

    spy.transport.start(hear, subscriptions=(subscription,))
    settled.get(timeout=20)
    return spy


def _acknowledged(notice: Incoming) -> int:
    return decode(Ack, notice.payload).watermarks[0].through_seq if notice.topic.endswith("/cmd/ack") else -1


def test_devices_that_connect_at_once_are_known_at_once(run: Run, device_of: DeviceOf) -> None:
    """Eight enrol and speak within the same second: each is known, its first state and report are stored."""
    app = run()

    def speak(number: int) -> None:
        device = device_of(app, f"cam-{number}")
        for leaf, message in (
            ("state", State(state=DeviceState.READY, at_ms=1)),
            ("reported", Reported(boot=f"{number:016x}")),
        ):
            assert device.transport.publish(device.topic(leaf), encode(message), retain=True) is not None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(speak, range(8)))
    _until(lambda: all(known.reported is not None for known in app.parts.fleet.devices()))
    assert {known.state for known in app.parts.fleet.devices()} == {DeviceState.READY}
    assert [known.reported.boot for known in app.parts.fleet.devices()] == [f"{number:016x}" for number in range(8)]
    assert [event.code for event in app.parts.events.after(0) if event.code == "unknown_device"] == []
