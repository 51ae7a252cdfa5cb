"""The real private mosquitto: who may connect, publish and receive what, and that it is restarted."""

from __future__ import annotations

import os
import queue
import resource
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.broker.mqtt import BrokerTransport
from server.broker.process import Broker, free_port
from server.config import BrokerConfig, TlsConfig
from server.errors import BrokerMissingError, PortInUseError
from server.fleet.identity.credentials import hash_password
from wire.transport import Delivered, Incoming, Link, LinkChange, Notice

pytestmark = pytest.mark.broker
PASSWORDS = {"server": "s", "cam-a": "a", "cam-b": "b"}
HASHES = {user: hash_password(password) for user, password in PASSWORDS.items()}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running mosquitto with a server and two devices."""
    made = _make(tmp_path)
    made.start(HASHES)
    yield made
    made.stop()


def _make(tmp_path: Path, **changes: object) -> Broker:
    config = replace(BrokerConfig(), **changes)
    return Broker(
        folder=tmp_path / "broker",
        config=config,
        tls=TlsConfig(),
        port=free_port("127.0.0.1"),
        user="server",
        password="s",
    )


class Client:
    """A connected user."""

    def __init__(self, broker: Broker, user: str, *subscriptions: str, client_id: str = "") -> None:
        """Connect."""
        self.heard: queue.Queue[Notice] = queue.Queue()
        self.transport = BrokerTransport(
            host="127.0.0.1", port=broker.port, client_id=client_id or user, user=user, password=PASSWORDS[user]
        )
        self.transport.start(self.heard.put, subscriptions=subscriptions)
        self.wait(lambda notice: isinstance(notice, LinkChange) and notice.link is Link.UP)

    def wait(self, wanted: Callable[[Notice], bool]) -> list[Notice]:
        """Return the messages received up to the wanted notice."""
        deadline_s = time.monotonic() + 10
        found = [self.heard.get(timeout=10)]
        while not wanted(found[-1]):
            found.append(self.heard.get(timeout=max(0.0, deadline_s - time.monotonic())))
        return found

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish and wait for the broker's answer."""
        handle = self.transport.publish(topic, payload, retain=retain)
        self.wait(lambda notice: notice == Delivered(handle))

    def topics_until(self, topic: str) -> list[str]:
        """Return the topics of the messages received up to the one on ``topic``."""
        notices = self.wait(lambda notice: isinstance(notice, Incoming) and notice.topic == topic)
        return [notice.topic for notice in notices if isinstance(notice, Incoming)]


Connect = Callable[..., Client]


@pytest.mark.parametrize(("own_files", "said"), [(50, False), (2**40, True)])
def test_the_broker_may_open_as_many_files_as_the_hard_limit_says(
    own_files: int, *, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the usual soft limit of 1,024, devices beyond a thousand could not connect; too low a limit is reported."""
    monkeypatch.setattr("server.broker.process._OWN_FILES", own_files)
    before, broker = resource.getrlimit(resource.RLIMIT_NOFILE), _make(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[0]), before[1]))
        broker.start(HASHES)
        assert resource.prlimit(broker.pid or 0, resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        broker.stop()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert ("raise the hard limit" in caplog.text) is said


@pytest.fixture
def connect(broker: Broker) -> Iterator[Callable[..., Client]]:
    """Connect users who are disconnected at the end."""
    clients: list[Client] = []

    def make(user: str, *subscriptions: str, client_id: str = "") -> Client:
        clients.append(Client(broker, user, *subscriptions, client_id=client_id))
        return clients[-1]

    yield make
    for client in clients:
        client.transport.stop()


def test_a_device_publishes_only_below_itself(connect: Connect) -> None:
    """Messages of device A under device B's topics, or the server's, are not delivered."""
    server, device = connect("server", "tf/1/#"), connect("cam-a")
    for topic in ("tf/1/x/cam-b/event", "tf/1/x/cam-a/desired", "tf/1/x/cam-a/cmd/ack", "tf/2/x/cam-a/event"):
        device.say(topic, b"forged")
    device.say("tf/1/x/cam-a/event", b"own")
    assert server.topics_until("tf/1/x/cam-a/event") == ["tf/1/x/cam-a/event"]


def test_a_device_hears_only_what_is_for_it(connect: Connect) -> None:
    """Device A receives neither messages nor retained messages of device B, whatever it subscribes to."""
    server = connect("server")
    server.say("tf/1/x/cam-b/desired", b"secret", retain=True)
    device = connect("cam-a", "tf/1/#", "tf/1/x/cam-b/desired", "tf/1/+/+/tele/#")
    server.say("tf/1/x/cam-b/cmd/logs", b"secret")
    connect("cam-b").say("tf/1/x/cam-b/tele/hw", b"secret")
    server.say("tf/1/x/cam-a/desired", b"mine")
    assert device.topics_until("tf/1/x/cam-a/desired") == ["tf/1/x/cam-a/desired"]


def test_refuses_strangers(broker: Broker) -> None:
    """Neither a wrong password, nor another's name, nor no name gets in."""
    assert broker.accepts("cam-a", "a")
    assert not broker.accepts("cam-a", "b")
    assert not broker.accepts("ghost", "a")
    assert not broker.accepts("", "")


@pytest.mark.parametrize("victim", ["server", "cam-b"])
def test_a_device_takes_nobody_elses_session(connect: Connect, victim: str) -> None:
    """A client id is not a credential: a client with another's id ends only its own session."""
    held = connect(victim, "tf/1/x/cam-b/#")
    connect("cam-a", client_id=victim)
    handle = held.transport.publish("tf/1/x/cam-b/event", b"still here")
    assert held.wait(lambda notice: not isinstance(notice, Incoming))[-1] == Delivered(handle)


def test_admits_a_new_user_while_it_runs(broker: Broker) -> None:
    """When ``wait_for_user`` returns the device may connect; a removed user no longer may."""
    broker.update_users({**HASHES, "cam-c": hash_password("c")})
    broker.wait_for_user("cam-c", "c")
    assert broker.accepts("cam-c", "c")
    broker.update_users({**HASHES, "cam-d": hash_password("d")})
    broker.wait_for_user("cam-d", "d")
    assert not broker.accepts("cam-c", "c")


def test_is_started_again_when_it_dies(broker: Broker, connect: Connect) -> None:
    """On the same port, and clients come back by themselves; a second death soon after waits."""
    device = connect("cam-a")
    first = broker.pid
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    assert broker.turn(1_000)
    device.wait(lambda notice: isinstance(notice, LinkChange) and notice.link is Link.UP)
    os.kill(broker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, broker._process.pid, os.WEXITED | os.WNOWAIT)
    assert not broker.turn(1_500)
    assert broker.turn(2_000)


def test_ends_what_a_killed_server_left_behind(broker: Broker, tmp_path: Path) -> None:
    """The next server takes the port over from the mosquitto of its own folder."""
    heir = Broker(
        folder=tmp_path / "broker", config=broker.config, tls=broker.tls, port=broker.port, user="server", password="s"
    )
    heir.start(HASHES)
    assert broker.pid is None
    heir.stop()


def test_ends_it_also_where_a_backup_took_the_folders_place(broker: Broker, tmp_path: Path) -> None:
    """A restored folder has no process id; the mosquitto of the lost one still has the port."""
    (tmp_path / "broker").rename(tmp_path / "lost")
    heir = Broker(
        folder=tmp_path / "broker", config=broker.config, tls=broker.tls, port=broker.port, user="server", password="s"
    )
    heir.start(HASHES)
    assert (broker.pid, heir.accepts("server", "s")) == (None, True)
    heir.stop()


def test_refuses_a_port_in_use(tmp_path: Path) -> None:
    """The error names port and setting; nothing was started."""
    broker = _make(tmp_path)
    with socket.socket() as other:
        other.bind(("127.0.0.1", broker.port))
        other.listen()
        with pytest.raises(PortInUseError, match=rf"{broker.port}.*broker.port"):
            broker.start(HASHES)
    assert broker.pid is None


def test_says_how_to_get_a_missing_mosquitto(tmp_path: Path) -> None:
    """The error carries the next step, and nothing was written."""
    with pytest.raises(BrokerMissingError, match=r"apt-get install.*broker\.program"):
        _make(tmp_path, program="no-such-mosquitto").start(HASHES)
    assert list(tmp_path.iterdir()) == []


def test_its_files_are_for_nobody_else(broker: Broker) -> None:
    """Passwords and configuration are 0600."""
    for name in ("passwords", "acl", "mosquitto.conf"):
        assert stat.S_IMODE((broker.folder / name).stat().st_mode) == 0o600


def test_a_listener_that_raises_does_not_end_the_connection(broker: Broker) -> None:
    """An exception in a call-back would kill paho's thread while it looks connected."""
    heard: queue.Queue[Notice] = queue.Queue()

    def listen(notice: Notice) -> None:
        heard.put(notice)
        raise RuntimeError("boom")

    transport = BrokerTransport(host="127.0.0.1", port=broker.port, client_id="cam-a", user="cam-a", password="a")
    transport.start(listen, subscriptions=())
    assert heard.get(timeout=10) == LinkChange(Link.UP)
    handle = transport.publish("tf/1/x/cam-a/event", b"1")
    assert heard.get(timeout=10) == Delivered(handle)
    transport.stop()
