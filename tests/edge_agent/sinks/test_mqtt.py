"""A broker of the site: sent is what it has acknowledged, over outages and kills; Home Assistant finds the device."""

from __future__ import annotations

import json
import queue
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.errors import SinkError
from edge_agent.sinks import SinkConfig, SinkSurroundings
from edge_agent.sinks import mqtt as sink_module
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sinks.mqtt import Settings, SiteBroker, has_answer, open_sink
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord
from wire.errors import SettingsError

pytestmark = pytest.mark.broker
LIMIT_S = 15.0


class Broker(Protocol):
    """The fixture of ``conftest.py``."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Start it."""

    def stop(self) -> None:
        """End it."""


class Subscriber:
    """Everything that the broker publishes; back within milliseconds after an outage."""

    def __init__(self, port: int, topic: str = "#", **login: str) -> None:
        """Subscribe."""
        self.messages: queue.SimpleQueue[tuple[str, bytes, bool]] = queue.SimpleQueue()
        self.up = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(**login)
        self._client.reconnect_delay_set(0.01, 0.01)  # type: ignore[arg-type]
        self._client.on_connect = lambda client, *_: client.subscribe(topic)
        self._client.on_subscribe = lambda *_: self.up.set()
        self._client.on_disconnect = lambda *_: self.up.clear()
        self._client.on_message = lambda _c, _d, found: self.messages.put((found.topic, found.payload, found.retain))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.up.wait(LIMIT_S)

    def next(self, topic: str) -> bytes:
        """Return the next message on ``topic``; others are passed over."""
        while (found := self.messages.get(timeout=LIMIT_S))[0] != topic:
            pass
        return found[1]

    def all(self) -> list[tuple[str, bytes, bool]]:
        """Return what came so far."""
        return [self.messages.get() for _ in range(self.messages.qsize())]

    def stop(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def subscriber(broker: Broker) -> Iterator[Subscriber]:
    """One that reads everything."""
    found = Subscriber(broker.port)
    yield found
    found.stop()


@pytest.fixture
def opened(broker: Broker) -> Iterator[Callable[..., SiteBroker]]:
    """Open sinks of the broker; closed at the end."""
    sinks: list[SiteBroker] = []

    def build(**keys: object) -> SiteBroker:
        settings = Settings(**{"port": broker.port, **keys})  # type: ignore[arg-type]
        sinks.append(open_sink(settings, SinkSurroundings(name="site", device="cam-1")))
        return sinks[-1]

    yield build
    for sink in sinks:
        sink.close()


def some(*numbers: int, **keys: object) -> list[AnswerRecord]:
    """Return answers of a classifier with these ids."""
    return [AnswerRecord(**{"id": str(n), "release": "digits-3", "label": "7", **keys}) for n in numbers]  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_every_answer_is_published_and_acknowledged(
    protocol: str, opened: Callable[..., SiteBroker], subscriber: Subscriber
) -> None:
    """In order, on the device's topic; the device is online, and offline after an orderly end."""
    sink = opened(protocol=protocol)
    assert sink.send(some(*range(100))) == 100
    assert subscriber.next("tinyfleet/cam-1/state") == b"online"
    found = [json.loads(subscriber.next("tinyfleet/cam-1/answer"))["id"] for _ in range(100)]
    assert found == [str(number) for number in range(100)]
    sink.close()
    assert subscriber.next("tinyfleet/cam-1/state") == b"offline"
    assert not sink._pending


def test_each_event_is_a_message_of_its_own_for_home_assistant(
    opened: Callable[..., SiteBroker], subscriber: Subscriber
) -> None:
    """The end of one and the begin of the next, in their order, before the answer; without Home Assistant none."""
    bell: dict[str, object] = {"label": "bell", "start_ms": 1, "end_ms": 2, "confidence": 0.9}
    two = some(1, 2, task="stream_events", events=({**bell, "state": "ended"}, {**bell, "state": "began"}))
    opened(topic="plain").send(two)
    sink = opened(topic="home", home_assistant=True)
    assert sink.send(two) == 2
    assert not sink._pending
    for _ in two:
        told = [json.loads(subscriber.next("home/event"))["event_type"] for _ in range(2)]
        assert (told, subscriber.messages.get(timeout=LIMIT_S)[0]) == (["ended", "began"], "home/answer")
    opened(topic="plain").send(some(4))
    assert not [topic for topic, *_ in subscriber.all() if topic == "plain/event"]


def test_the_broker_keeps_the_last_answer_on_request(opened: Callable[..., SiteBroker], broker: Broker) -> None:
    """Who subscribes later gets it at once; by default only who is there gets an answer."""
    opened(topic="kept", retain_last=True).send(some(1, 2))
    opened(topic="passing").send(some(3))
    late = Subscriber(broker.port)
    opened(topic="passing").send(some(4))
    assert json.loads(late.next("passing/answer"))["id"] == "4"
    late.stop()
    late = Subscriber(broker.port, "+/answer")
    assert json.loads(late.next("kept/answer"))["id"] == "2"
    late.stop()


@pytest.mark.parametrize(
    "keys",
    [{"error": "image_invalid"}, {"events": ({"label": "low", "state": "ended", "interrupted": True},)}],
    ids=["an error", "a cut-off event"],
)
def test_the_broker_keeps_the_last_answer_beyond_what_is_none(
    keys: dict[str, object], opened: Callable[..., SiteBroker], broker: Broker
) -> None:
    """Who is there gets it; who subscribes later gets the last value."""
    there = Subscriber(broker.port, "kept/answer")
    opened(topic="kept", retain_last=True).send([*some(1, values={"t": 20.5}), *some(2, **{"label": "", **keys})])
    assert [json.loads(there.next("kept/answer"))["id"] for _ in range(2)] == ["1", "2"]
    there.stop()
    late = Subscriber(broker.port, "kept/answer")
    assert json.loads(late.next("kept/answer"))["values"] == {"t": 20.5}
    late.stop()


@pytest.mark.parametrize(
    ("keys", "answers"),
    [
        ({"label": "7"}, True),
        ({"values": {"t": 0.0}}, True),
        ({"boxes": ()}, True),
        ({"labels": ()}, True),
        ({"anomalous": False}, True),
        ({"label": "7", "error": "image_invalid"}, False),
        ({}, False),
    ],
)
def test_an_answer_may_be_empty_but_is_no_error(keys: dict[str, object], answers: bool) -> None:  # noqa: FBT001 - a case
    """No boxes and no labels are an answer of their tasks."""
    assert has_answer(AnswerRecord(**keys)) is answers


def test_a_device_that_is_killed_is_offline_by_its_will(
    opened: Callable[..., SiteBroker], subscriber: Subscriber
) -> None:
    """A connection that ends without a farewell is noticed by the broker."""
    sink = opened()
    sink.send(some(1))
    sink._client._reconnect_on_failure = False
    sink._client.socket().shutdown(2)
    while subscriber.next("tinyfleet/cam-1/state") != b"offline":
        pass


def test_without_a_broker_the_answers_wait_and_come_when_it_is_there(
    opened: Callable[..., SiteBroker], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the address; a device that starts before its broker needs no restart."""
    monkeypatch.setattr(sink_module, "_WAIT_S", 0.1)
    broker.stop()
    sink = opened()
    with pytest.raises(SinkError, match=f"broker 127.0.0.1:{broker.port}, got no (connection|answer)"):
        sink.send(some(1))
    broker.start()
    monkeypatch.setattr(sink_module, "_WAIT_S", LIMIT_S)
    assert sink.send(some(1)) == 1


def test_a_broker_that_stops_answering_gets_the_same_answers_once(
    opened: Callable[..., SiteBroker], broker: Broker, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers go back to the queue, and are not published a second time when they are offered again."""
    monkeypatch.setattr(sink_module, "_ACK_S", 0.3)
    sink = opened()
    sink.send(some(0))
    broker.process.send_signal(19)  # SIGSTOP
    records = some(1, 2, 3)
    with pytest.raises(SinkError, match="an acknowledgement of the broker within") as raised:
        sink.send(records)
    broker.process.send_signal(18)  # SIGCONT
    assert raised.value.delivered == 0
    monkeypatch.setattr(sink_module, "_ACK_S", LIMIT_S)
    assert sink.send([*records, *some(4)]) == 4
    found = [json.loads(subscriber.next("tinyfleet/cam-1/answer"))["id"] for _ in range(5)]
    assert found == ["0", "1", "2", "3", "4"]


def test_answers_that_were_dropped_meanwhile_are_forgotten(
    opened: Callable[..., SiteBroker], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outages never add up: what was published and is not offered again ends with its acknowledgement."""
    sink = opened()
    assert sink.send(some(0)) == 1
    monkeypatch.setattr(sink_module, "_MOST_PENDING", 5)
    for first in (10, 20, 30):
        broker.process.send_signal(19)  # SIGSTOP
        monkeypatch.setattr(sink_module, "_ACK_S", 0.1)
        with pytest.raises(SinkError, match="acknowledgement of the broker"):
            sink.send(some(first, first + 1, first + 2))
        broker.process.send_signal(18)  # SIGCONT
        monkeypatch.setattr(sink_module, "_ACK_S", LIMIT_S)
        assert sink.send(some(first + 5)) == 1
        assert (sink._pending, sink._codes) == ({}, {})
    broker.process.send_signal(19)
    monkeypatch.setattr(sink_module, "_ACK_S", 0.1)
    with pytest.raises(SinkError, match="fewer than 5 answers without acknowledgement"):
        sink.send(some(*range(6)))
    broker.process.send_signal(18)


def test_a_refused_answer_is_not_sent(broker: Broker, opened: Callable[..., SiteBroker]) -> None:
    """MQTT 5 says so: the error names topic and reason, and the first ones count."""
    (broker.folder / "acl").write_text("topic write tinyfleet/#\n")
    conf = broker.folder / "mosquitto.conf"
    conf.write_text(f"{conf.read_text()}acl_file {broker.folder / 'acl'}\n")
    (broker.folder / "acl").chmod(0o644)
    broker.stop()
    broker.start()
    assert opened().send(some(1)) == 1
    with pytest.raises(SinkError, match=r"to take an answer on other/answer, got Not authorized \(135\)") as raised:
        opened(topic="other").send(some(2))
    assert raised.value.delivered == 0


def test_a_password_is_read_from_a_file_that_nobody_else_may_read(
    broker: Broker, opened: Callable[..., SiteBroker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mode 0640 is refused before a connection; a wrong password is an error that names the reason."""
    passwords = broker.folder / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "app", "secret"], check=True)
    conf = broker.folder / "mosquitto.conf"
    conf.write_text(conf.read_text().replace("allow_anonymous true", f"password_file {passwords}"))
    broker.stop()
    broker.start()
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o640)
    with pytest.raises(SinkError, match=r"only its owner may read, got mode 0640: chmod 600"):
        opened(username="app", password_file=secret)
    secret.chmod(0o600)
    assert opened(username="app", password_file=secret).send(some(1)) == 1
    secret.write_text("other")
    monkeypatch.setattr(sink_module, "_WAIT_S", 1.0)
    with pytest.raises(SinkError, match="got Not authorized"):
        opened(username="app", password_file=secret).send(some(1))


def test_a_broker_with_tls_is_checked_against_the_given_certificates(
    broker: Broker, opened: Callable[..., SiteBroker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own certificate it works; with the system's it is not trusted, and nothing is published."""
    key, certificate = broker.folder / "key.pem", broker.folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    conf = broker.folder / "mosquitto.conf"
    conf.write_text(f"{conf.read_text()}certfile {certificate}\nkeyfile {key}\n")
    broker.stop()
    broker.start()
    assert opened(tls_ca=certificate).send(some(1)) == 1
    monkeypatch.setattr(sink_module, "_WAIT_S", 1.0)
    with pytest.raises(SinkError, match="Expected a connection"):
        opened(tls=True).send(some(1))
    (tmp_path / "no.pem").write_text("nothing")
    with pytest.raises(SinkError, match=r"certificates in PEM at .*no\.pem"):
        opened(tls_ca=tmp_path / "no.pem")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"topic": "a/+/b"}, r"topic as levels of a topic without \+ # and without / at its ends, got 'a/\+/b'"),
        ({"topic": "a/"}, "without / at its ends, got 'a/'"),
        ({"home_assistant_prefix": "$SYS"}, "home_assistant_prefix as levels"),
        ({"topic": "x" * 1025}, "topic as levels"),
        ({"topic": "a\nb"}, "topic as levels"),
        ({"host": ""}, "host as the name or address of a broker alone, got ''"),
        ({"host": "mqtt://broker"}, "host as the name or address of a broker alone, got 'mqtt://broker'"),
        ({"host": "broker:1883"}, "the port in port"),
        ({"home_assistant_prefix": ""}, "home_assistant_prefix as levels of a topic, got none"),
        ({"password_file": "secret"}, "username beside password_file, got none"),
        ({"port": 65_536}, "port between 1 and 65535, got 65536"),
        ({"protocol": "4"}, "protocol to be 5 or 3.1.1, got '4'"),
    ],
)
def test_a_wrong_table_is_refused_by_name(keys: dict[str, object], words: str) -> None:
    """Before the agent starts."""
    with pytest.raises(SettingsError, match=words):
        SinkConfig.from_table({"kind": "mqtt", **keys}, "agent.toml sinks site", None)


def documents(subscriber: Subscriber) -> dict[str, dict]:
    """Return the discovery messages that came, by topic; an empty one as an empty document."""
    found = [message for message in subscriber.all() if message[0].startswith("homeassistant/")]
    return {topic: json.loads(payload or b"{}") for topic, payload, _ in found}


def test_home_assistant_is_told_once_of_each_entity_and_again_after_an_outage(
    opened: Callable[..., SiteBroker], subscriber: Subscriber, broker: Broker
) -> None:
    """A broker without memory has lost the retained messages."""
    sink = opened(home_assistant=True)
    sink.send(some(1, supported=True))
    subscriber.next("tinyfleet/cam-1/answer")
    sink.send(some(2, supported=True))
    subscriber.next("tinyfleet/cam-1/answer")
    assert documents(subscriber) == {}
    broker.stop()
    broker.start()
    assert subscriber.up.wait(LIMIT_S)
    sink.send(some(3, supported=True))
    subscriber.next("tinyfleet/cam-1/answer")
    late = Subscriber(broker.port, "homeassistant/#")
    found = {late.messages.get(timeout=LIMIT_S)[0] for _ in range(2)}
    late.stop()
    head = "homeassistant/{}/tinyfleet_cam-1/site_{}/config"
    assert found == {head.format("sensor", "label"), head.format("binary_sensor", "supported")}


def test_a_release_without_an_entity_removes_it(opened: Callable[..., SiteBroker], subscriber: Subscriber) -> None:
    """An empty retained message: a regression after a classifier has no label."""
    sink = opened(home_assistant=True)
    sink.send(some(1))
    sink.send(some(2, error="image_invalid", label=""))
    sink.send(some(3, release="power-1", label="", values={"power_w": 4.5}))
    while json.loads(subscriber.next("tinyfleet/cam-1/answer"))["id"] != "1":
        pass
    assert subscriber.next("homeassistant/sensor/tinyfleet_cam-1/site_label/config") == b""
    assert set(sink._announced) == {"homeassistant/sensor/tinyfleet_cam-1/site_power_w/config"}


@pytest.mark.parametrize(
    ("keys", "entities"),
    [
        (
            {"task": "detection", "boxes": (), "values": {"cat": 0.0}},
            {"sensor/tinyfleet_cam-1/site_boxes", "sensor/tinyfleet_cam-1/site_cat"},
        ),
        (
            {"task": "multi_label", "labels": (), "scores": {}, "values": {"cat": 0.1}},
            {"binary_sensor/tinyfleet_cam-1/site_cat", "sensor/tinyfleet_cam-1/site_cat_probability_4217506f"},
        ),
        (
            {"task": "anomaly", "label": "normal", "anomalous": False, "scores": {"anomaly": 0.1, "threshold": 0.5}},
            {"binary_sensor/tinyfleet_cam-1/site_anomaly", "sensor/tinyfleet_cam-1/site_anomaly_score_bcfc67e0"},
        ),
        (
            {"task": "stream_events", "label": "background"},
            {"sensor/tinyfleet_cam-1/site_label", "event/tinyfleet_cam-1/site_event"},
        ),
    ],
)
def test_a_broker_keeps_the_entities_of_each_task(
    keys: dict[str, object], entities: set[str], opened: Callable[..., SiteBroker], broker: Broker
) -> None:
    """Home Assistant, which may start later, gets them retained, before an answer of theirs."""
    sink = opened(home_assistant=True, retain_last=True)
    sink.send(some(1, **{"label": "", **keys}))
    late = Subscriber(broker.port)
    until(lambda: late.messages.qsize() >= len(entities) + 2)
    found = {topic: json.loads(payload) for topic, payload, _ in late.all() if topic != "tinyfleet/cam-1/state"}
    late.stop()
    answer = found.pop("tinyfleet/cam-1/answer")
    assert {topic.removeprefix("homeassistant/").removesuffix("/config") for topic in found} == entities
    leaves = {topic: "event" if topic.startswith("homeassistant/event/") else "answer" for topic in found}
    assert all(one["state_topic"] == f"tinyfleet/cam-1/{leaves[topic]}" for topic, one in found.items())
    assert answer.get("boxes", answer.get("labels", [])) == []


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nothing_that_counts_as_sent_is_lost_over_kills_of_the_broker(
    count: int, opened: Callable[..., SiteBroker], broker: Broker, subscriber: Subscriber
) -> None:
    """Kill -9 of the broker during a stream: sums agree, and every acknowledged answer reached the subscriber."""
    account = open_accounts(None, ["site"])["site"]
    delivery = Delivery("site", opened(), SinkSettings(queue=20_000), account, lambda _code, _text: None)
    chance, kills = random.Random(7), 1 if count < 1000 else 5  # noqa: S311 - moments of kills are no secret
    for number in range(count):
        delivery.offer(AnswerRecord(id=str(number), label="7"), 0.0)
    for kill in range(kills):
        least = count * kill // (kills + 1) + chance.randrange(200)
        until(lambda least=least: account.counts["sent"] > least, 30)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.02))
        assert account.open, "the kills come too late"
        broker.process.kill()
        broker.process.wait(LIMIT_S)
        broker.start()
    until(lambda: not account.open, 120)
    delivery.close(5)
    assert subscriber.up.wait(LIMIT_S)
    ids = {json.loads(payload)["id"] for topic, payload, _ in subscriber.all() if topic.endswith("/answer")}
    counts = account.counts
    assert counts["offered"] == count == counts["sent"] + counts["dropped"]
    assert (counts["dropped"], len(ids)) == (0, count)
