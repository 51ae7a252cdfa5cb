"""Behaviour with a real broker only: outages, limits, liveness, refusals."""

import queue
import random
import socket
import subprocess
from typing import Protocol

import pytest

from edge_agent.config import TransportConfig
from edge_agent.transports.mqtt import MqttSettings, MqttTransport
from wire.transport import Delivered, Incoming, Link, LinkChange, Notice, Will

pytestmark = pytest.mark.broker
LIMIT_S = 10.0


class Broker(Protocol):
    """The fixture of ``conftest.py``."""

    port: int
    process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """End it."""


Notices = queue.SimpleQueue[Notice]


def start(
    port: int, client_id: str = "dev", *subscriptions: str, will: Will | None = None, keepalive_s: int = 30
) -> tuple[MqttTransport, Notices]:
    """Return a started transport and its notices."""
    notices: Notices = queue.SimpleQueue()
    settings = MqttSettings(
        host="127.0.0.1", port=port, client_id=client_id, username=client_id, password="secret",
        pace=TransportConfig(min_backoff_s=0.01, max_backoff_s=0.1, keepalive_s=keepalive_s, session_expiry_s=5),
    )  # fmt: skip
    transport = MqttTransport(settings)
    transport.start(notices.put, subscriptions=subscriptions, will=will)
    return transport, notices


def wait_link(notices: Notices, link: Link) -> LinkChange:
    """Return the next change to ``link``."""
    while True:
        notice = notices.get(timeout=LIMIT_S)
        if isinstance(notice, LinkChange) and notice.link is link:
            return notice


def test_connects_again_and_subscribes_again_after_a_broker_restart(broker: Broker) -> None:
    """A broker without memory of us still delivers afterwards."""
    transport, notices = start(broker.port, "dev", "tf/1/site/dev/desired")
    wait_link(notices, Link.UP)
    broker.stop()
    wait_link(notices, Link.DOWN)
    broker.start()
    wait_link(notices, Link.UP)
    transport.publish("tf/1/site/dev/desired", b"again")
    while not isinstance(notice := notices.get(timeout=LIMIT_S), Incoming):
        pass
    assert notice.payload == b"again"
    transport.stop()


def test_hands_over_at_most_the_inflight_limit(broker: Broker) -> None:
    """With a broker that answers nothing, message 17 is not accepted."""
    transport, notices = start(broker.port)
    wait_link(notices, Link.UP)
    broker.process.send_signal(19)  # SIGSTOP
    taken = [transport.publish("tf/1/site/dev/event", b"x") for _ in range(17)]
    broker.process.send_signal(18)  # SIGCONT
    assert None not in taken[:16]
    assert taken[16] is None
    while not isinstance(notices.get(timeout=LIMIT_S), Delivered):
        pass
    transport.stop()


def test_publishes_the_will_when_the_connection_is_lost(broker: Broker) -> None:
    """The broker publishes that the device is lost."""
    reader, heard = start(broker.port, "reader", "tf/1/site/dev/state")
    wait_link(heard, Link.UP)
    transport, notices = start(broker.port, will=Will("tf/1/site/dev/state", b"lost", delay_s=0))
    wait_link(notices, Link.UP)
    transport._client._reconnect_on_failure = False
    transport._client.socket().shutdown(socket.SHUT_RDWR)
    while not isinstance(notice := heard.get(timeout=LIMIT_S), Incoming):
        pass
    assert notice.payload == b"lost"
    transport.stop()
    reader.stop()


def test_says_why_it_reaches_no_broker(broker: Broker) -> None:
    """The address and the kernel's reason, which paho keeps to itself."""
    broker.stop()
    transport, notices = start(broker.port)
    assert wait_link(notices, Link.UNREACHABLE).reason == f"127.0.0.1:{broker.port}: Connection refused"
    broker.start()
    wait_link(notices, Link.UP)
    transport.stop()


def test_notices_a_broker_that_answers_nothing(broker: Broker) -> None:
    """A half-open connection ends after the keep-alive, not never."""
    transport, notices = start(broker.port, keepalive_s=1)
    wait_link(notices, Link.UP)
    broker.process.send_signal(19)  # SIGSTOP
    assert wait_link(notices, Link.DOWN).reason
    broker.process.send_signal(18)  # SIGCONT
    transport.stop()


class Draws(random.Random):
    """Jitter that remembers between which bounds it was drawn."""

    def __init__(self) -> None:
        """Start with nothing drawn."""
        super().__init__(0)
        self.bounds: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        """Draw and remember."""
        self.bounds.append((a, b))
        return super().uniform(a, b)


def test_after_a_take_over_it_waits_at_least_half_the_limit(broker: Broker) -> None:
    """Two agents of one identity don't throw each other out as fast as they can; before, jitter starts at 0."""
    draws, notices = Draws(), queue.SimpleQueue[Notice]()
    settings = MqttSettings(
        host="127.0.0.1",
        port=broker.port,
        client_id="dev",
        username="dev",
        password="secret",
        pace=TransportConfig(min_backoff_s=0.01, max_backoff_s=0.1, session_expiry_s=5),
    )
    first = MqttTransport(settings, chance=draws)
    first.start(notices.put, subscriptions=())
    wait_link(notices, Link.UP)
    second, _ = start(broker.port)
    wait_link(notices, Link.TAKEN_OVER)
    second.stop()
    low_s, high_s = draws.bounds[-1]
    assert draws.bounds[0] == (0.0, 0.01)
    assert low_s == high_s / 2 > 0
    first.stop()


def test_a_raising_listener_does_not_end_the_connection(broker: Broker) -> None:
    """Callbacks never raise into paho's thread."""
    heard: Notices = queue.SimpleQueue()

    def listener(notice: Notice) -> None:
        heard.put(notice)
        raise ValueError(notice)

    settings = MqttSettings(host="127.0.0.1", port=broker.port, client_id="dev", username="dev", password="secret")
    transport = MqttTransport(settings)
    transport.start(listener, subscriptions=())
    wait_link(heard, Link.UP)
    transport.publish("tf/1/site/dev/event", b"x")
    assert isinstance(heard.get(timeout=LIMIT_S), Delivered)
    transport.stop()


def test_never_shows_the_password() -> None:
    """The settings' text leaves the password out."""
    assert "secret" not in repr(MqttSettings(host="h", port=1, client_id="dev", username="dev", password="secret"))


def test_a_refused_subscription_is_tried_again() -> None:
    """If a broker loads its rights late, no client stays connected without messages: the next connection subscribes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        transport, notices = start(listener.getsockname()[1], "dev", "tf/1/site/dev/desired")
        for reason in (135, 1):  # not authorized; granted. mosquitto 2.0.11 itself grants every subscription
            with listener.accept()[0] as connection:
                connection.settimeout(LIMIT_S)
                connection.recv(1024)
                connection.sendall(bytes([0x20, 3, 0, 0, 0]))
                number = connection.recv(1024)[2:4]
                connection.sendall(bytes([0x90, 4, *number, 0, reason]))
                if reason == 135:
                    assert "subscription" in wait_link(notices, Link.REFUSED).reason
                    wait_link(notices, Link.DOWN)
                else:
                    wait_link(notices, Link.UP)
                    transport.publish("tf/1/site/dev/event", b"{}")
                    assert connection.recv(1024)[0] & 0xF0 == 0x30  # PUBLISH: it stayed
        transport.stop()
