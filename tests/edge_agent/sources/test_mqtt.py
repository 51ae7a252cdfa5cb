"""A topic of a real broker as a source: messages are inputs, and a broker that comes back is enough."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import SourceError
from edge_agent.sources._stream import StreamSource
from edge_agent.sources.mqtt import Settings
from tests.edge_agent.conftest import Broker, free_port
from tests.edge_agent.sinks.receiver import until
from tests.edge_agent.sources.prepared import Told, next_input, publish
from wire.errors import SettingsError

pytestmark = pytest.mark.broker


@pytest.fixture
def topic(stream: Callable[..., StreamSource]) -> Callable[..., tuple[StreamSource, Told]]:
    """Open a source of topics, with what it reports."""

    def start(port: int, **settings: object) -> tuple[StreamSource, Told]:
        told: Told = []
        return stream("mqtt", told=told, port=port, topic="cams/+", retry_s=0.01, **settings), told

    return start


def test_messages_are_inputs_and_the_newest_are_kept(broker: Broker, topic: Callable) -> None:
    """Of others topics there are none; those that nobody took are counted."""
    publish(broker.port, "else/a", b"no")
    publish(broker.port, "cams/a", b"first")
    source, told = topic(broker.port, backlog=2)
    assert next_input(source).data == b"first"
    publish(broker.port, "cams/b", *(b"%d" % number for number in range(5)))
    dropped = [0]
    until(lambda: dropped.append(source.take_dropped()) or sum(dropped) == 3)
    assert [next_input(source).data, next_input(source).data] == [b"3", b"4"]
    publish(broker.port, "cams/c", b"5")
    publish(broker.port, "cams/b", b"6")
    assert [next_input(source).place.name for _ in range(2)] == ["cams/c", "cams/b"]  # each topic is a stream
    assert told == []


def test_a_broker_that_is_restarted_is_connected_to_again(broker: Broker, topic: Callable) -> None:
    """No thread is left over from the connections before."""
    publish(broker.port, "cams/a", b"1")
    source, _ = topic(broker.port)
    assert next_input(source).data == b"1"
    threads = threading.active_count()
    for number in range(3):
        broker.stop()
        broker.start()
        publish(broker.port, "cams/a", b"again %d" % number)
        until(lambda wanted=b"again %d" % number: next_input(source).data == wanted)
    assert threading.active_count() <= threads


def test_a_broker_that_is_away_or_refuses_is_reported_once(broker: Broker, topic: Callable) -> None:
    """With its reason; it is tried again."""
    broker.stop()
    settings = (broker.folder / "mosquitto.conf").read_text()
    (broker.folder / "mosquitto.conf").write_text(settings.replace("allow_anonymous true", "allow_anonymous false"))
    broker.start()
    for port, reason in ((free_port(), "Connection refused"), (broker.port, "Not authorized")):
        _, told = topic(port)
        until(lambda told=told: told)
        assert [code for code, _ in told] == ["source_missing"]
        assert reason in told[0][1]


@pytest.mark.parametrize("name", ["", "a/b#", "a/#/b", "a+/b", "a\x00"])
def test_a_topic_that_no_broker_takes_is_refused(name: str) -> None:
    """Whole levels are accepted."""
    with pytest.raises(SettingsError, match="Expected topic"):
        Settings(topic=name)
    assert Settings(topic="a/+/#").topic == "a/+/#"


@pytest.mark.parametrize("host", ["", "mqtt://broker", "broker:1883", "me@broker", "broker/path", "bro ker"])
def test_a_host_that_no_machine_has_is_refused(host: str) -> None:
    """An address, as other programs take it, would be looked up in vain without end; IPv6 has colons."""
    with pytest.raises(SettingsError, match="Expected host as the name or address of a broker alone"):
        Settings(host=host)
    assert (Settings(host="::1").host, Settings(host="broker.local").host) == ("::1", "broker.local")


def test_a_password_that_others_may_read_is_refused(topic: Callable, tmp_path: Path) -> None:
    """Before anything is connected; so are certificates that are none."""
    path = tmp_path / "password"
    path.write_text("s3cret")
    path.chmod(0o640)
    with pytest.raises(SourceError, match="got mode 0640: chmod 600"):
        topic(1, username="me", password_file=str(path))
    with pytest.raises(SourceError, match="Expected certificates in PEM"):
        topic(1, tls_ca=str(path))
    with pytest.raises(SettingsError, match="Expected username"):
        Settings(password_file=path)
