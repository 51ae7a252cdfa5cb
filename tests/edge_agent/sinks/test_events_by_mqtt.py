"""Events of sound at a real broker: begin and end once each, in order, over an outage of the broker between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.inference.answers import open_answers
from edge_agent.sinks import SinkSurroundings
from edge_agent.sources import InStream
from tests.edge_agent.conftest import Broker
from tests.edge_agent.inference.test_streams import Device, device
from tests.edge_agent.inference.tones import CLIP_S, recording, tones_bundle, wav
from tests.edge_agent.sinks.receiver import until
from tests.edge_agent.sinks.test_mqtt import Subscriber

pytestmark = pytest.mark.broker
TONE, NONE = (wav(recording(CLIP_S, *tones)) for tones in (((0, CLIP_S, "low"),), ()))
TOPIC = "home/answer"


@pytest.fixture
def listening(broker: Broker, tmp_path: Path) -> Iterator[Device]:
    """A device that sends its events to the broker, and nothing else."""
    one = device(tones_bundle(tmp_path / "tones.tfb"), {"kind": "push"})
    document = {"kind": "mqtt", "port": broker.port, "topic": "home", "events_only": True}
    around = SinkSurroundings(device="door", tell=lambda *said: one.told.append(said))
    answers = open_answers({"home": document}, around)
    answers.watch, one.loop.answers = one.loop.answers.watch, answers
    yield one
    answers.close()


def hear(one: Device, *sounds: bytes) -> None:
    """Let the device hear windows that follow each other."""
    for sound in sounds:
        number = len(one.records)
        one.inputs.inner.offer(str(number), sound, InStream(name="kitchen", at_ms=100_000 + 100 * number))
        one.hear(number + 1)


def test_begin_and_end_arrive_once_each_over_an_outage(listening: Device, broker: Broker) -> None:
    """Windows without either are not sent; the sink reconnects by itself and sends what had waited."""
    subscriber = Subscriber(broker.port)
    hear(listening, NONE, TONE, TONE)
    began = json.loads(subscriber.next(TOPIC))
    assert (began["device"], began["stream"], began["task"]) == ("door", "kitchen", "stream_events")
    assert [(event["state"], event["label"], event["start_ms"]) for event in began["events"]] == [
        ("began", "low", 100_200)
    ]  # fmt: skip
    delivery = listening.loop.answers.deliveries[0]
    until(lambda: delivery.account.counts["sent"] == 1)
    broker.stop()
    hear(listening, TONE, NONE, NONE, NONE)
    assert delivery.account.counts["sent"] == 1
    broker.start()
    until(subscriber.up.is_set)
    ended = json.loads(subscriber.next(TOPIC))
    assert [(event["state"], event["start_ms"], event["end_ms"]) for event in ended["events"]] == [
        ("ended", 100_200, 100_400)
    ]  # fmt: skip
    hear(listening, TONE, TONE)
    assert json.loads(subscriber.next(TOPIC))["events"][0]["state"] == "began"
    until(lambda: delivery.account.counts["sent"] == 3)
    assert [topic for topic, *_ in subscriber.all() if topic == TOPIC] == []
    subscriber.stop()


def test_an_event_that_a_stop_cuts_off_ends_at_the_broker_too(listening: Device, broker: Broker) -> None:
    """It is sent before the connection ends, marked as interrupted."""
    subscriber = Subscriber(broker.port)
    hear(listening, TONE, TONE)
    assert json.loads(subscriber.next(TOPIC))["events"][0]["state"] == "began"
    listening.loop.end_streams()
    listening.loop.answers.close()
    event = json.loads(subscriber.next(TOPIC))["events"][0]
    assert (event["state"], event["stream"], event["interrupted"]) == ("ended", "kitchen", True)
    assert subscriber.next("home/state") == b"offline"
    subscriber.stop()
