"""Messages that a device may send: both sides of every bound, and the error names the field."""

from __future__ import annotations

from dataclasses import replace

import pytest

from server.ingest.decode import Arrival, StreamKey, read_arrival
from wire.codec import encode
from wire.errors import MessageError, TopicError
from wire.messages import Batch, DeviceState, Event, Get, Reported, Response, Sample, State, Stream

BOOT, BASE = "ab" * 8, "tf/1/berlin/cam-1"
BATCH = Batch(stream=Stream.HW, boot=BOOT, seq=5, oldest_seq=2, t0_ms=7, n=1)
EVENT = Event(boot=BOOT, seq=5, oldest_seq=2, at_ms=7)
SAMPLE = Sample(boot=BOOT, seq=5, oldest_seq=2, at_ms=7)
NUMBERS = [
    ("state", State(state=DeviceState.READY), "at_ms"), ("reported", Reported(), "at_ms"), ("get", Get(), "at_ms"),
    ("event", EVENT, "at_ms"), ("tele/sample", SAMPLE, "at_ms"), ("tele/hw", BATCH, "t0_ms"),
]  # fmt: skip
NAMES = [
    ("state", State(state=DeviceState.READY), "boot"), ("reported", Reported(), "boot"), ("event", EVENT, "boot"),
    ("tele/sample", SAMPLE, "boot"), ("tele/hw", BATCH, "boot"), ("res", Response(id="a"), "id"),
    ("res", Response(id="a"), "code"),
]  # fmt: skip


def read(leaf: str, message: object, *, retained: bool = False) -> Arrival:
    """Return the decoded ``message``."""
    return read_arrival(f"{BASE}/{leaf}", encode(message), retained=retained)


@pytest.mark.parametrize(("leaf", "message", "name"), NUMBERS)
def test_a_time_is_from_0_to_2_to_the_62(leaf: str, message: object, name: str) -> None:
    """A database accepts no larger one, and none is before 1970."""
    for value in (0, 2**62 - 1):
        assert getattr(read(leaf, replace(message, **{name: value})).message, name) == value
    for value in (-1, 2**62):
        with pytest.raises(MessageError, match=rf"Expected {name} from 0 to 2\^62, got {value}"):
            read(leaf, replace(message, **{name: value}))


@pytest.mark.parametrize(("leaf", "message", "name"), NAMES)
def test_a_name_has_at_most_64_printable_characters(leaf: str, message: object, name: str) -> None:
    """It is a key of the store: a cut one could become another's."""
    assert getattr(read(leaf, replace(message, **{name: "b" * 64})).message, name) == "b" * 64
    for value, length in (("b" * 65, 65), ("a\a", 2)):
        with pytest.raises(MessageError, match=rf"Expected {name} of 1 to 64 printable .* of {length}$"):
            read(leaf, replace(message, **{name: value}))


@pytest.mark.parametrize(("leaf", "message"), [("event", EVENT), ("tele/sample", SAMPLE), ("tele/hw", BATCH)])
def test_a_number_of_a_stream_is_not_below_the_oldest(leaf: str, message: object) -> None:
    """Equal means the only message that the device still has."""
    assert read(leaf, replace(message, oldest_seq=5)).seq == 5
    for wrong, text in (({"oldest_seq": 6}, "oldest_seq <= seq"), ({"seq": -1}, "seq from"), ({"seq": 2**62}, "seq")):
        with pytest.raises(MessageError, match=f"Expected {text}"):
            read(leaf, replace(message, **wrong))
    with pytest.raises(MessageError, match="Expected oldest_seq from 0"):
        read(leaf, replace(message, oldest_seq=-1))
    with pytest.raises(MessageError, match="Expected boot of 1 to 64"):
        read(leaf, replace(message, boot=""))


@pytest.mark.parametrize(
    ("leaf", "message", "stream"),
    [("event", EVENT, Stream.EVENT), ("tele/sample", SAMPLE, Stream.SAMPLE), ("tele/hw", BATCH, Stream.HW)],
)
def test_a_numbered_message_says_what_is_acknowledged(leaf: str, message: object, stream: Stream) -> None:
    """Its stream by its topic, its number, the oldest that the device has, and whether the broker had retained it."""
    for retained in (False, True):
        arrival = read(leaf, message, retained=retained)
        assert arrival.key == StreamKey("cam-1", stream, BOOT)
        assert (arrival.seq, arrival.oldest_seq, arrival.retained) == (5, 2, retained)
    assert read("state", State(state=DeviceState.READY), retained=True).retained


@pytest.mark.parametrize(("leaf", "stream"), [("tele/infer", Stream.HW), ("tele/event", Stream.EVENT)])
def test_a_batch_belongs_to_the_stream_of_its_topic(leaf: str, stream: Stream) -> None:
    """A batch under another stream's topic is refused, and so is one of a stream that has no batches."""
    with pytest.raises(MessageError, match=f"Expected a batch of the stream '{leaf[5:]}'"):
        read(leaf, replace(BATCH, stream=stream))


def test_a_topic_that_devices_only_read_is_refused() -> None:
    """A device can't publish its own desired state."""
    with pytest.raises(TopicError, match=f"that devices publish on, got '{BASE}/desired'"):
        read("desired", Get())
