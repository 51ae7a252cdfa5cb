"""Decodes a topic and its payload to a checked value, or raises an error that names the fault. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from server.ingest.drift_batches import WindowReport, decode_one
from wire.codec import decode
from wire.errors import MessageError, TopicError, WireError
from wire.messages import Batch, Event, Get, Reported, Response, Sample, State, Stream
from wire.topics import Kind, Topic, parse_topic

Message = State | Reported | Event | Response | Get | WindowReport | Batch | Sample
_PLAIN: dict[Kind, type[State | Reported | Event | Response | Get]] = {
    Kind.STATE: State, Kind.REPORTED: Reported, Kind.EVENT: Event, Kind.RES: Response, Kind.GET: Get
}  # fmt: skip
_MAX_NUMBER = 2**62
_MAX_KEY = 64
MAX_SAMPLE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamKey:
    """The scope of a sequence number: one stream of one boot of one device."""

    device: str
    stream: Stream
    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One decoded message. ``key``, ``seq`` and ``oldest_seq`` are set for messages that get an acknowledgement."""

    topic: Topic
    message: Message
    retained: bool = False
    key: StreamKey | None = None
    seq: int = 0
    oldest_seq: int = 0


def read_arrival(
    topic: str, payload: bytes, *, retained: bool = False, report: WindowReport | WireError | None = None
) -> Arrival:
    """Return the decoded message; ``report``: the payload decoded as a drift report, if that was done before.

    Raises:
        WireError: If the topic is not one that devices publish on, or the payload does not decode.
    """
    parsed = parse_topic(topic)
    if parsed.kind in _PLAIN:
        message: Message = decode(_PLAIN[parsed.kind], payload)
    elif parsed.kind is Kind.TELE:
        message = _telemetry(parsed.leaf, payload, report)
    else:
        text = f"Expected a topic that devices publish on, got {topic[:200]!r}"
        raise TopicError(text)
    if isinstance(message, Event | WindowReport | Batch | Sample):
        return _numbered(parsed, message, retained=retained)
    if isinstance(message, State | Reported | Get):
        _check_number(message.at_ms, "at_ms")
    if isinstance(message, State | Reported) and message.boot:
        _check_key(message.boot, "boot")
    if isinstance(message, Response):
        _check_key(message.id, "id")
        if message.code:
            _check_key(message.code, "code")
    return Arrival(topic=parsed, message=message, retained=retained)


def is_key(name: str) -> bool:
    """Return whether ``name`` may be a key of the store: 1 to 64 printable characters (a cut one could collide)."""
    return 0 < len(name) <= _MAX_KEY and name.isprintable()


def _telemetry(leaf: str, payload: bytes, report: WindowReport | WireError | None) -> WindowReport | Batch | Sample:
    if leaf == Stream.DRIFT:
        found = report or decode_one(payload)
        if isinstance(found, WireError):
            raise found
        return found
    if leaf == Stream.SAMPLE:
        return decode(Sample, payload, limit_bytes=MAX_SAMPLE_BYTES)
    batch = decode(Batch, payload)
    if leaf not in {Stream.INFER, Stream.HW, Stream.ANSWER} or batch.stream != leaf:
        message = f"Expected a batch of the stream {leaf!r}, got {batch.stream!r}"
        raise MessageError(message)
    _check_number(batch.t0_ms, "t0_ms")
    return batch


def _numbered(topic: Topic, message: Event | WindowReport | Batch | Sample, *, retained: bool) -> Arrival:
    key = message.head if isinstance(message, WindowReport) else message
    _check_number(key.seq, "seq")
    _check_number(key.oldest_seq, "oldest_seq")
    _check_key(key.boot, "boot")
    if key.oldest_seq > key.seq:
        text = f"Expected oldest_seq <= seq, got {key.oldest_seq}, {key.seq}"
        raise MessageError(text)
    if isinstance(message, Event | Sample):
        _check_number(message.at_ms, "at_ms")
    stream = Stream(topic.leaf) if topic.leaf else Stream.EVENT
    return Arrival(
        topic=topic,
        message=message,
        retained=retained,
        key=StreamKey(topic.device, stream, key.boot),
        seq=key.seq,
        oldest_seq=key.oldest_seq,
    )


def _check_key(name: str, what: str) -> None:
    if not is_key(name):
        message = f"Expected {what} of 1 to {_MAX_KEY} printable characters, got {name[:_MAX_KEY]!r} of {len(name)}"
        raise MessageError(message)


def _check_number(value: int, name: str) -> None:
    if not 0 <= value < _MAX_NUMBER:
        message = f"Expected {name} from 0 to 2^62, got {value}"
        raise MessageError(message)
