"""Every transport behaves alike: over a real private mosquitto, and in memory."""

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from edge_agent.config import TransportConfig
from edge_agent.transports.memory import MemoryBroker, MemoryTransport
from edge_agent.transports.mqtt import MqttSettings, MqttTransport
from wire.transport import Delivered, Incoming, Link, LinkChange, Notice, Transport, Will

LIMIT_S = 10.0


@dataclass
class Ear:
    """Collects notices and waits for the wanted one."""

    notices: queue.SimpleQueue[Notice] = field(default_factory=queue.SimpleQueue)

    def wait(self, wanted: Callable[[Notice], bool]) -> Notice:
        """Return the first notice that is wanted; fail after the limit."""
        deadline = time.monotonic() + LIMIT_S
        while True:
            notice = self.notices.get(timeout=max(0.01, deadline - time.monotonic()))
            if wanted(notice):
                return notice

    def link(self, link: Link) -> Notice:
        """Wait for a change of the connection."""
        return self.wait(lambda notice: isinstance(notice, LinkChange) and notice.link is link)

    def message(self, topic: str) -> Incoming:
        """Wait for a message."""
        notice = self.wait(lambda notice: isinstance(notice, Incoming) and notice.topic == topic)
        assert isinstance(notice, Incoming)
        return notice


Make = Callable[[str], Transport]


@pytest.fixture(params=["memory", pytest.param("mqtt", marks=pytest.mark.broker)])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """A maker of transports on one broker; all are stopped afterwards."""
    made: list[Transport] = []
    memory = MemoryBroker()
    port = request.getfixturevalue("broker").port if request.param == "mqtt" else 0

    def maker(client_id: str) -> Transport:
        settings = MqttSettings(
            host="127.0.0.1",
            port=port,
            client_id=client_id,
            username=client_id,
            password="secret",
            pace=TransportConfig(max_backoff_s=0.2, min_backoff_s=0.05),
        )
        made.append(MqttTransport(settings) if port else MemoryTransport(broker=memory, client_id=client_id))
        return made[-1]

    yield maker
    for transport in made:
        transport.stop()


def connected(make: Make, client_id: str, *subscriptions: str, will: Will | None = None) -> tuple[Transport, Ear]:
    """Return a transport that is up, and its ear."""
    transport, ear = make(client_id), Ear()
    transport.start(ear.notices.put, subscriptions=subscriptions, will=will)
    ear.link(Link.UP)
    return transport, ear


def test_delivers_what_it_publishes(make: Make) -> None:
    """A message reaches its subscriber, and the publisher receives the broker's acknowledgement."""
    reader, ear = connected(make, "reader", "tf/1/site/+/event")
    reader.publish("tf/1/site/reader/event", b"")  # comes back once the broker has the subscription
    ear.message("tf/1/site/reader/event")
    writer, writer_ear = connected(make, "writer")
    handle = writer.publish("tf/1/site/writer/event", b"hello")
    assert ear.message("tf/1/site/writer/event").payload == b"hello"
    assert writer_ear.wait(lambda notice: isinstance(notice, Delivered)) == Delivered(handle or 0)


def test_hears_a_retained_message_after_connecting(make: Make) -> None:
    """A message retained before the subscription arrives, marked as retained."""
    writer, writer_ear = connected(make, "writer")
    writer.publish("tf/1/site/dev/desired", b"{}", retain=True)
    writer_ear.wait(lambda notice: isinstance(notice, Delivered))
    _, ear = connected(make, "dev", "tf/1/site/dev/desired")
    assert ear.message("tf/1/site/dev/desired").retained


def test_takes_nothing_while_down(make: Make) -> None:
    """Before the start there is no connection: no message is accepted, and the idle time is infinite."""
    transport = make("dev")
    assert transport.publish("tf/1/site/dev/event", b"x") is None
    assert transport.idle_s() == float("inf")


def test_is_not_idle_while_up(make: Make) -> None:
    """The idle time is small right after connecting."""
    transport, _ = connected(make, "dev")
    assert transport.idle_s() < LIMIT_S


def test_tells_of_two_with_one_identity_and_comes_back(make: Make) -> None:
    """The replaced connection is notified, and is restored for good when the other client has gone."""
    older, ear = connected(make, "dev")
    newer, _ = connected(make, "dev")
    ear.link(Link.TAKEN_OVER)
    newer.stop()
    deadline = time.monotonic() + LIMIT_S
    while (handle := older.publish("tf/1/site/dev/event", b"x")) is None:
        assert time.monotonic() < deadline
    ear.wait(lambda notice: notice == Delivered(handle))


def test_an_orderly_stop_leaves_no_will(make: Make) -> None:
    """The will is for losses only."""
    reader, ear = connected(make, "reader", "tf/1/#")
    transport, _ = connected(make, "dev", will=Will("tf/1/site/dev/state", b"lost", delay_s=0))
    transport.stop()
    reader.publish("tf/1/site/reader/event", b"end")
    heard = ear.wait(lambda notice: isinstance(notice, Incoming))
    assert heard == Incoming("tf/1/site/reader/event", b"end")
