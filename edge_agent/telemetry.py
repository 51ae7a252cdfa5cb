"""From what the device sees to rows of the spool, and from rows to what goes on the wire.

Decides numbers (one sequence per boot and stream, from 1), batching, and the seal put on a message when it is
sent: the oldest number still held, and whether it comes late (from an earlier boot).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edge_agent.spool import Row, Spool, merge_key
from wire.codec import Json, decode, encode
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.histogram import Counters
from wire.messages import Batch, Event, Sample, Severity, Stream
from wire.topics import Kind, Topic

MAX_TEXT = 500


def new_boot() -> str:
    """Return a name for this start of the agent: 16 hex digits, unique without a clock or a counter on disk."""
    return secrets.token_hex(8)


@dataclass(slots=True)
class Numberer:
    """The next number of each stream in this boot."""

    boot: str
    _last: dict[str, int] = field(default_factory=dict)

    def next(self, stream: Stream) -> int:
        """Return the next number, from 1."""
        self._last[stream] = self._last.get(stream, 0) + 1
        return self._last[stream]


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window of counters, as the child tells it; digests are full or short hex."""

    artifact: str
    ref_id: str
    start_ms: int
    len_ms: int
    context: int
    counters: Counters


@dataclass(slots=True)
class Telemetry:
    """Writes messages into the spool. One thread."""

    spool: Spool
    numberer: Numberer
    rows_a_batch: int = 10
    _rows: dict[Stream, list[Mapping[str, Json]]] = field(default_factory=dict)

    @property
    def boot(self) -> str:
        """The name of this boot."""
        return self.numberer.boot

    def event(
        self, kind: str, code: str, *, at_ms: int, text: str = "",
        severity: Severity = Severity.INFO, data: Mapping[str, Json] | None = None,
    ) -> None:  # fmt: skip
        """Add an event."""
        seq = self.numberer.next(Stream.EVENT)
        message = Event(
            self.boot, seq, at_ms=at_ms, kind=kind, code=code, severity=severity, text=text[:MAX_TEXT], data=data or {}
        )
        self._add(Stream.EVENT, seq, encode(message))

    def window(self, window: Window) -> None:
        """Add a drift report.

        Raises:
            MessageError: If a digest is not hexadecimal or a number is negative.
        """
        seq = self.numberer.next(Stream.DRIFT)
        report = DriftReport(
            self.boot, seq, seq, window.start_ms, window.len_ms, window.context,
            window.artifact[:32], window.ref_id[:32], window.counters,
        )  # fmt: skip
        self._add(Stream.DRIFT, seq, encode_report(report), merge_key(report))

    def sample(self, sample: Sample) -> None:
        """Add one input that the server asked for; its boot and number are set here."""
        seq = self.numberer.next(Stream.SAMPLE)
        self._add(Stream.SAMPLE, seq, encode(replace(sample, boot=self.boot, seq=seq)))

    def row(self, stream: Stream, row: Mapping[str, Json]) -> None:
        """Add a row of ``infer`` or ``hw``; a full batch becomes a message."""
        rows = self._rows.setdefault(stream, [])
        rows.append(row)
        if len(rows) >= self.rows_a_batch:
            self._close_batch(stream)

    def flush(self) -> None:
        """Close every batch."""
        for stream in list(self._rows):
            self._close_batch(stream)

    def _close_batch(self, stream: Stream) -> None:
        rows = self._rows.pop(stream, [])
        if rows:
            first = rows[0].get("at_ms")
            seq = self.numberer.next(stream)
            t0_ms = first if isinstance(first, int) else 0
            self._add(stream, seq, encode(Batch(stream, self.boot, seq, 0, t0_ms, len(rows), tuple(rows))))

    def _add(self, stream: Stream, seq: int, payload: bytes, key: str = "") -> None:
        self.spool.add(Row(stream.value, self.boot, seq, payload, key))


def topic_of(row: Row, site: str, device: str) -> Topic:
    """Return where a row goes."""
    if row.stream == Stream.EVENT:
        return Topic(site, device, Kind.EVENT)
    return Topic(site, device, Kind.TELE, row.stream)


def seal(row: Row, *, oldest_seq: int, boot: str) -> bytes:
    """Return the payload as it goes on the wire now; ``boot`` is the current one.

    Raises:
        MessageError: If the row does not decode, or is of a stream this version doesn't know.
    """
    late = row.boot != boot
    if row.stream == Stream.DRIFT:
        report = decode_report(row.payload)
        return encode_report(replace(report, oldest_seq=oldest_seq, late=late))
    if row.stream == Stream.EVENT:
        return encode(replace(decode(Event, row.payload), oldest_seq=oldest_seq))
    if row.stream == Stream.SAMPLE:
        sample = decode(Sample, row.payload, limit_bytes=len(row.payload))
        return encode(replace(sample, oldest_seq=oldest_seq))
    return encode(replace(decode(Batch, row.payload), oldest_seq=oldest_seq, late=late))
