"""An event that is open when a process ends is ended by it or by the next one: once, with the last time it was seen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edge_agent.errors import SinkError
from edge_agent.inference.child import _Loaded
from edge_agent.inference.served_model import load_model
from edge_agent.sinks import Sink
from edge_agent.sinks._accounts import open_accounts
from edge_agent.sinks._delivery import Delivery
from edge_agent.sinks._filters import SinkSettings
from edge_agent.sources import InStream
from edge_agent.streams.open_events import OpenEvents
from tests.edge_agent.inference.test_streams import Device, device
from tests.edge_agent.inference.tones import CLIP_S, recording, tones_bundle, wav
from tests.edge_agent.sinks.receiver import until
from wire.answers import AnswerRecord

TONE, NONE = (wav(recording(CLIP_S, *tones)) for tones in (((0, CLIP_S, "low"),), ()))
EVENT = {"label": "low", "start_ms": 1, "end_ms": 2, "confidence": 0.5}


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[], Device]:
    """Start a device on the same state directory, as a child starts."""

    def start() -> Device:
        bundle, state = tones_bundle(tmp_path / "tones.tfb"), tmp_path / "state"
        state.mkdir(exist_ok=True)
        one = device(bundle, {"kind": "push"}, state)
        one.loop.answers.end_left(one.loop.model, 5000, 0.0)
        return one

    return start


def hear(one: Device, *sounds: bytes) -> None:
    """Let a device hear windows of the stream kitchen, from 1 s on; a heartbeat follows each."""
    for number, sound in enumerate(sounds):
        before = len(one.records)
        assert one.inputs.inner.offer(str(number), sound, InStream(name="kitchen", at_ms=1000 + 100 * number))
        one.hear(before + 1)
        one.loop._send_heartbeat()


def test_a_process_that_is_killed_leaves_its_event_to_the_next(begin: Callable[[], Device]) -> None:
    """Which ends it under its stream, with the last input of a heartbeat; the third has nothing to end."""
    hear(begin(), TONE, TONE, TONE)
    record = begin().records[0]
    assert (record.at_ms, record.task, record.label, record.error) == (5000, "stream_events", "", "")
    assert record.events == (
        {
            "stream": "kitchen", "state": "ended", "label": "low", "start_ms": 1000, "end_ms": 1200,
            "confidence": pytest.approx(0.99, abs=0.01), "interrupted": True,
        },
    )  # fmt: skip
    assert begin().records == []


def test_an_event_that_has_ended_is_not_ended_again(begin: Callable[[], Device]) -> None:
    """Nor one that an orderly end has ended; the stream begins anew."""
    one = begin()
    hear(one, TONE, NONE, NONE)
    assert [event["state"] for event in one.events] == ["began", "ended"]
    one = begin()
    assert one.records == []
    hear(one, TONE, TONE)
    one.loop.end_streams()
    assert [event.get("interrupted") for event in one.events] == [None, True]
    hear(one, NONE)
    assert one.records[-1].inputs == 1
    assert begin().records == []


class Away:
    """A sink whose receiver is away."""

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Fail."""
        raise SinkError(f"Expected a receiver, got none for {len(records)} answers")

    def close(self) -> None:
        """Close nothing."""


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.records: list[AnswerRecord] = []

    def send(self, records: Sequence[AnswerRecord]) -> int:
        """Keep ``records``."""
        self.records += records
        return len(records)

    def close(self) -> None:
        """Close nothing."""


def deliver(one: Device, **receivers: Sink) -> None:
    """Give a device that has just begun its sinks, and let it end what a former process left."""
    accounts = open_accounts(None, list(receivers))
    one.loop.answers.deliveries = [
        Delivery(name, sink, SinkSettings(), accounts[name], lambda *_: None) for name, sink in receivers.items()
    ]


@pytest.mark.parametrize("order", ["close", "kill"])
def test_an_end_comes_again_to_the_sink_that_lacks_it_alone(order: str, tmp_path: Path) -> None:
    """As it was, also after a crash; a sink that had it, and the third process, get nothing."""
    bundle, state = tones_bundle(tmp_path / "tones.tfb"), tmp_path / "state"
    state.mkdir()
    one, log = device(bundle, {"kind": "push"}, state), Kept()
    deliver(one, log=log, away=Away())
    hear(one, TONE, TONE, NONE, NONE)
    until(lambda: len(log.records) == 4, 10)
    one.loop.answers.settle()
    if order == "close":
        one.loop.end_streams()
        one.loop.answers.close()
    end = {"state": "ended", "label": "low", "start_ms": 1000, "end_ms": 1200}
    for wanted in ([end], []):
        one, log, back = device(bundle, {"kind": "push"}, state), Kept(), Kept()
        deliver(one, log=log, away=back)
        one.loop.answers.end_left(one.loop.model, 5000, 0.0)
        one.loop.answers.close()
        found = [dict(event) for record in back.records for event in record.events]
        assert [event.pop("stream") for event in found] == ["kitchen"] * len(wanted)
        assert [event.pop("confidence") for event in found] == [pytest.approx(0.99, abs=0.01)] * len(wanted)
        assert (found, log.records) == (wanted, [])


def test_of_ends_without_a_receiver_the_newest_are_kept(tmp_path: Path) -> None:
    """A sink that is away for good fills no disk, and an event that is open is never lost to them."""
    kept = OpenEvents(tmp_path)
    kept.begun([EVENT])
    kept.ended([({**EVENT, "start_ms": number}, ("away",)) for number in range(150)])
    read = OpenEvents(tmp_path)
    assert (read.left, [event["start_ms"] for event, _ in read.left_owed]) == ([EVENT], list(range(50, 150)))
    kept.ended([({**EVENT, "stream": "s" * 1000, "start_ms": number}, ("away",)) for number in range(100)])
    assert (OpenEvents(tmp_path).left, OpenEvents(tmp_path).left_owed) == ([EVENT], [])


def test_a_swap_ends_the_events_of_the_release_before(begin: Callable[[], Device], tmp_path: Path) -> None:
    """In a record of that release, before any of the new one."""
    one = begin()
    hear(one, TONE, TONE)
    bundle = tones_bundle(tmp_path / "next.tfb")
    one.loop._swap(_Loaded(str(bundle), load_model(bundle), None))
    assert [(event["state"], event["end_ms"]) for event in one.events] == [("began", 1000), ("ended", 1100)]
    assert begin().records == []


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]\n", b'{"version":2,"events":[{}]}\n', b'{"version":1,"events":[{}]}\n']
)
def test_a_torn_file_holds_no_events(data: bytes, tmp_path: Path) -> None:
    """As a power cut or another version leaves it; it is written again."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "open_events.json").write_bytes(data)
    kept = OpenEvents(tmp_path)
    assert kept.left == []
    kept.begun([EVENT])
    assert OpenEvents(tmp_path).left == [EVENT]
    kept.ended([], [EVENT])
    assert OpenEvents(tmp_path).left == []


def test_a_real_process_that_is_killed_leaves_nothing_open(child: Callable, tmp_path: Path) -> None:
    """Sound from a FIFO, answers in a file: one begin and one end, over two more starts."""
    fifo, log = tmp_path / "fifo", tmp_path / "log.jsonl"
    os.mkfifo(fifo)
    keys = {"kind": "microphone", "path": str(fifo), "backlog": 100}
    sinks = {"log": {"kind": "jsonl", "path": str(log), "events_only": True, "errors": False}}

    def events() -> list[dict]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [event for line in lines for event in json.loads(line)["events"]]

    bundle = tones_bundle(tmp_path / "tones.tfb")
    running = child(bundle, sinks=sinks, **keys)
    running.until("ready")
    with fifo.open("wb") as file:
        file.write(wav(recording(2.0, (0.5, 2.0, "high"))))
    until(events, 20)
    running.process.kill()
    running.process.wait(20)
    for _ in range(2):
        running = child(bundle, sinks=sinks, **keys)
        running.until("ready")
        until(lambda: len(events()) == 2, 20)
        assert running.end() == 0
    began, ended = events()
    assert (began["state"], ended["state"], ended["interrupted"]) == ("began", "ended", True)
    assert (began["label"], began["start_ms"]) == (ended["label"], ended["start_ms"])
