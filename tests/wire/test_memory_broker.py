"""The broker in memory behaves like mosquitto, as far as our programs can see."""

from dataclasses import dataclass, field

import pytest

from wire.memory_broker import MemoryBroker, MemoryTransport, matches
from wire.transport import Delivered, Incoming, Link, LinkChange, Notice, Will


@dataclass
class Client:
    """A transport and everything it received."""

    transport: MemoryTransport
    heard: list[Notice] = field(default_factory=list)

    @property
    def messages(self) -> list[tuple[str, bytes, bool]]:
        """The messages received, as (topic, payload, retained)."""
        return [(n.topic, n.payload, n.retained) for n in self.heard if isinstance(n, Incoming)]

    @property
    def links(self) -> list[Link]:
        """The connection changes received."""
        return [n.link for n in self.heard if isinstance(n, LinkChange)]


@pytest.fixture
def broker() -> MemoryBroker:
    """Return an empty broker."""
    return MemoryBroker()


def connected(broker: MemoryBroker, name: str, *subscriptions: str, will: Will | None = None) -> Client:
    """Return a client that is connected."""
    client = Client(MemoryTransport(broker=broker, client_id=name))
    client.transport.start(client.heard.append, subscriptions=subscriptions, will=will)
    return client


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+/c", "a/b/c", True),
        ("+", "a", True),
        ("+", "a/b", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("a/#", "b", False),
        ("#", "$SYS/load", False),
        ("+/load", "$SYS/load", False),
        ("$SYS/#", "$SYS/load", True),
    ],
)
def test_filters_match_as_in_the_standard(pattern: str, topic: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """The examples of MQTT 5.0, section 4.7."""
    assert matches(pattern, topic) is expected


def test_delivers_to_subscribers_and_confirms_to_the_sender(broker: MemoryBroker) -> None:
    """A message is delivered once to each matching filter, and its handle is returned."""
    receiver, other = connected(broker, "r", "a/+"), connected(broker, "o", "b/#")
    sender = connected(broker, "s")
    handle = sender.transport.publish("a/x", b"1")
    assert receiver.messages == [("a/x", b"1", False)]
    assert other.messages == []
    assert Delivered(handle or 0) in sender.heard


def test_retained_messages_meet_late_subscribers(broker: MemoryBroker) -> None:
    """Only the last one is stored, it is marked, and an empty payload clears it."""
    sender = connected(broker, "s")
    sender.transport.publish("a/x", b"1", retain=True)
    sender.transport.publish("a/x", b"2", retain=True)
    sender.transport.publish("a/y", b"3")
    assert connected(broker, "late", "a/#").messages == [("a/x", b"2", True)]
    sender.transport.publish("a/x", b"", retain=True)
    assert connected(broker, "later", "a/#").messages == []


def test_a_lost_client_leaves_its_will(broker: MemoryBroker) -> None:
    """The will is delivered and retained; the lost client is notified that it is disconnected."""
    receiver = connected(broker, "r", "state/#")
    lost = connected(broker, "d", will=Will("state/d", b"lost"))
    broker.disconnect("d", lost=True)
    assert receiver.messages == [("state/d", b"lost", False)]
    assert lost.links == [Link.UP, Link.DOWN]
    assert lost.transport.idle_s() == float("inf")
    assert connected(broker, "late", "state/#").messages == [("state/d", b"lost", True)]


def test_an_orderly_end_leaves_no_will(broker: MemoryBroker) -> None:
    """``stop`` is a DISCONNECT."""
    receiver = connected(broker, "r", "#")
    connected(broker, "d", will=Will("state/d", b"lost")).transport.stop()
    assert receiver.messages == []


def test_a_shared_subscription_gives_each_message_to_one_member(broker: MemoryBroker) -> None:
    """Two ingest processes share the load; a direct subscriber gets everything."""
    members = [connected(broker, f"m{i}", "$share/ingest/tele/#") for i in range(2)]
    direct, sender = connected(broker, "d", "tele/#"), connected(broker, "s")
    for i in range(6):
        sender.transport.publish(f"tele/{i}", b"")
    assert [len(member.messages) for member in members] == [3, 3]
    assert len(direct.messages) == 6


def test_a_shared_subscription_gets_no_retained_messages(broker: MemoryBroker) -> None:
    """As in MQTT 5.0, section 4.8.2."""
    connected(broker, "s").transport.publish("tele/x", b"1", retain=True)
    assert connected(broker, "m", "$share/ingest/tele/#").messages == []


def test_the_older_of_two_clients_with_one_identity_is_told(broker: MemoryBroker) -> None:
    """The older one can't send any more, and its end does not disturb the newer one."""
    older = connected(broker, "d", "a")
    newer = connected(broker, "d", "a")
    assert older.links == [Link.UP, Link.TAKEN_OVER]
    assert older.transport.publish("a", b"1") is None
    older.transport.stop()
    assert newer.transport.publish("a", b"2") is not None
    assert newer.messages == [("a", b"2", False)]


def test_who_was_taken_over_comes_back_when_the_other_is_gone(broker: MemoryBroker) -> None:
    """A real client keeps trying; one that was stopped meanwhile does not come back."""
    stopped, older = connected(broker, "d", "a"), connected(broker, "d", "a")
    stopped.transport.stop()
    newer = connected(broker, "d", "a")
    newer.transport.stop()
    assert older.links == [Link.UP, Link.TAKEN_OVER, Link.UP]
    assert older.transport.publish("a", b"1") is not None
    older.transport.stop()
    assert stopped.links == [Link.UP, Link.TAKEN_OVER]


def test_takes_nothing_while_not_connected(broker: MemoryBroker) -> None:
    """The caller keeps messages that were not accepted."""
    transport = MemoryTransport(broker=broker, client_id="d")
    assert transport.publish("a", b"") is None
    assert transport.idle_s() == float("inf")
