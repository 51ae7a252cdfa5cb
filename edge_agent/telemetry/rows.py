"""Turns the device's observations into rows of the spool, and rows into messages for the wire.

Decides sequence numbers (one sequence per boot and stream, from 1), batching, and the fields set on a message when it
is sent: the oldest number still held, and whether it is late (from an earlier boot, or from before an outage).

Incomplete messages are in the spool too, as open rows, so that a power cut loses only what the child has not reported
yet: the open window is the sum of the parts that the child reports (counters are a commutative monoid), a batch holds
its rows so far. After a restart the open window continues, under its original boot and number, as long as hour,
release and reference are the same; other open rows are sent as they are. A part is added once and a row has one key, so
nothing is counted twice.

A window is dated by the trusted time, never by an implausible clock: a part is younger than a checkpoint, so a part of
another hour than the current one comes from such a clock and belongs to the current hour. While the time is unknown
the window stays open, and is dated by the monotonic clock once it is known. A window that a power cut leaves undated
can't be dated any more: it is dropped, and an event reports the number of its inferences.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edge_agent.device.sane_clock import EARLIEST_MS, TOLERANCE_MS
from edge_agent.telemetry.spool import Row, Spool, merge_key
from wire.codec import Json, decode, encode
from wire.drift_report import DriftReport, decode_report, encode_report
from wire.errors import MessageError
from wire.histogram import Counters, merge
from wire.messages import Batch, Event, Sample, Severity, Stream
from wire.topics import Kind, Topic

MAX_TEXT = 500
CLOSING_MS = 60_000  # how long after its end a window waits for the child to close it; clocks may differ this much


def new_boot() -> str:
    """Return an id for this start of the agent: 16 hex digits, unique without a clock or a counter on disk."""
    return os.urandom(8).hex()


@dataclass(slots=True)
class Numberer:
    """The next number of each stream in this boot."""

    boot: str
    _last: dict[str, int] = field(default_factory=dict)

    def next(self, stream: Stream) -> int:
        """Return the next number, from 1."""
        self._last[stream] = self._last.get(stream, 0) + 1
        return self._last[stream]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPart:
    """The child's counts since its last report; digests are full or short hex. ``closed``: the window ends."""

    artifact: str
    ref_id: str
    start_ms: int
    len_ms: int
    context: int
    counters: Counters
    closed: bool = True


@dataclass(frozen=True, slots=True)
class _OpenBatch:
    """Rows of one stream that are not complete yet."""

    seq: int
    rows: tuple[Mapping[str, Json], ...] = ()


@dataclass(slots=True, kw_only=True)
class Telemetry:
    """Writes messages into the spool. One thread."""

    spool: Spool
    numberer: Numberer
    rows_a_batch: int = 10
    _batches: dict[Stream, _OpenBatch] = field(default_factory=dict)
    _window: DriftReport | None = None
    _now_ms: int = 0
    _now_s: float = 0.0
    _known: bool = True
    _undated_s: float | None = None
    _held: list[tuple[DriftReport, float, float]] = field(default_factory=list)

    def take_up(self) -> None:
        """Continue the window that an earlier boot left open; close all other open rows.

        Raises:
            SpoolError: If the spool can't be read or written.
        """
        for row in self.spool.open_rows():
            try:
                window = decode_report(row.payload) if row.stream == Stream.DRIFT else None
            except MessageError:
                window = None  # closed, it is sent; if it can't be, it is dropped and logged there
            if window is not None and window.window_start_ms < EARLIEST_MS - TOLERANCE_MS:
                self.spool.drop(row)
                text = "Expected a clock before the power was cut, got none: the hour of these counts is not known"
                data: dict[str, Json] = {"n": window.counters.n}
                self.event(
                    "clock", "window_undated", at_ms=self._now_ms, text=text, severity=Severity.WARNING, data=data
                )
            elif window is not None and self._window is None:
                self._window = window
            else:
                self.spool.add(replace(row, open=False))

    def turn(self, now_ms: int, now_s: float, *, known: bool = True) -> None:
        """Set the time to use, and whether it is ``known``; close the window of a past hour."""
        self._now_ms, self._now_s, self._known = now_ms, now_s, known
        if not known:
            return
        if self._undated_s is not None and self._window is not None:
            self._end_window(self._window)
        for held, from_s, until_s in self._held:
            len_ms = max(1, held.window_len_ms)
            start_ms, end_ms = (now_ms - round((now_s - at_s) * 1000) for at_s in (from_s, until_s))
            start_ms, end_ms = start_ms - start_ms % len_ms, end_ms - end_ms % len_ms + len_ms
            dated = replace(held, window_start_ms=start_ms, window_len_ms=end_ms - start_ms)
            self._keep_window(dated, is_open=False)
        self._held.clear()
        window = self._window
        if window is not None and now_ms >= window.window_start_ms + window.window_len_ms + CLOSING_MS:
            self._close_window(window)

    @property
    def boot(self) -> str:
        """The id of this boot."""
        return self.numberer.boot

    def event(
        self, kind: str, code: str, *, at_ms: int, text: str = "",
        severity: Severity = Severity.INFO, data: Mapping[str, Json] | None = None,
    ) -> None:  # fmt: skip
        """Add an event; a text longer than ``MAX_TEXT`` is cut and ends with its full length."""
        if len(text) > MAX_TEXT:
            mark = f"... (cut from {len(text):,} characters)"
            text = text[: MAX_TEXT - len(mark)] + mark
        seq = self.numberer.next(Stream.EVENT)
        message = Event(
            boot=self.boot,
            seq=seq,
            at_ms=at_ms,
            kind=kind,
            code=code,
            severity=severity,
            text=text,
            data=data or {},
        )
        self._add(Stream.EVENT, seq, encode(message))

    def window(self, window: WindowPart) -> None:
        """Add counts to the open window; a window of another hour, release or reference is closed first.

        Raises:
            MessageError: If a digest is not hexadecimal or a number is negative; nothing is added then.
        """
        report = DriftReport(
            boot=self.boot,
            seq=0,
            oldest_seq=0,
            window_start_ms=self._filed_under(window),
            window_len_ms=window.len_ms,
            context=window.context,
            artifact=window.artifact[:32],
            ref_id=window.ref_id[:32],
            counters=window.counters,
        )
        encode_report(report)
        if self._window is not None and not _continues(self._window, report):
            self._end_window(self._window)
        if window.counters.n and self._window is None:
            seq = self.numberer.next(Stream.DRIFT)
            self._window = replace(report, seq=seq, oldest_seq=seq)
            self._undated_s = None if self._known else self._now_s
        elif window.counters.n and self._window is not None:
            self._window = replace(self._window, counters=merge(self._window.counters, window.counters))
        if self._window is not None and window.closed and self._undated_s is None:
            self._close_window(self._window)
        elif self._window is not None:
            self._keep_window(self._window, is_open=True)

    def _filed_under(self, window: WindowPart) -> int:
        """Return the start of the hour that a part belongs to; if undated, the start of the first part."""
        end_ms = window.start_ms + window.len_ms
        if not self._now_ms or window.start_ms - CLOSING_MS <= self._now_ms < end_ms + CLOSING_MS:
            start_ms = window.start_ms
        else:
            start_ms = self._now_ms - self._now_ms % max(1, window.len_ms)
        return self._window.window_start_ms if self._window is not None and self._undated_s is not None else start_ms

    def _end_window(self, window: DriftReport) -> None:
        """Close a window because another one follows; an undated one is held open until it is dated."""
        if self._undated_s is None:
            self._close_window(window)
        else:
            self._held.append((window, self._undated_s, self._now_s))
        self._window, self._undated_s = None, None

    def _close_window(self, window: DriftReport) -> None:
        self._keep_window(window, is_open=False)
        self._window = None

    def _keep_window(self, window: DriftReport, *, is_open: bool) -> None:
        row = Row(
            stream=Stream.DRIFT.value,
            boot=window.boot,
            seq=window.seq,
            payload=encode_report(window),
            merge_key=merge_key(window),
            open=is_open,
        )
        self.spool.add(row)

    def sample(self, sample: Sample) -> None:
        """Add one input that the server requested; sets its boot and number."""
        seq = self.numberer.next(Stream.SAMPLE)
        self._add(Stream.SAMPLE, seq, encode(replace(sample, boot=self.boot, seq=seq)))

    def row(self, stream: Stream, row: Mapping[str, Json]) -> None:
        """Add a row of ``infer``, ``hw`` or ``answer``; a full batch becomes a message."""
        batch = self._batch(stream)
        self._batches[stream] = batch = replace(batch, rows=(*batch.rows, row))
        self._keep_batch(stream, batch, is_open=len(batch.rows) < self.rows_a_batch)

    def so_far(self, stream: Stream, row: Mapping[str, Json]) -> None:
        """Store an incomplete row, in case of a power cut; the next ``row`` replaces it."""
        batch = self._batch(stream)
        self._keep_batch(stream, replace(batch, rows=(*batch.rows, row)), is_open=True)

    def send_so_far(self, stream: Stream) -> None:
        """Close the batch of ``stream``, if there are rows in it."""
        batch = self._batches.get(stream)
        if batch is not None and batch.rows:
            self._keep_batch(stream, batch, is_open=False)

    def flush(self) -> None:
        """Close the window and every batch."""
        if self._window is not None:
            self._end_window(self._window)
        for stream in list(self._batches):
            self.send_so_far(stream)

    def _batch(self, stream: Stream) -> _OpenBatch:
        if stream not in self._batches:
            self._batches[stream] = _OpenBatch(self.numberer.next(stream))
        return self._batches[stream]

    def _keep_batch(self, stream: Stream, batch: _OpenBatch, *, is_open: bool) -> None:
        first = batch.rows[0].get("at_ms")
        t0_ms = first if isinstance(first, int) else 0
        message = Batch(
            stream=stream, boot=self.boot, seq=batch.seq, oldest_seq=0, t0_ms=t0_ms, n=len(batch.rows), rows=batch.rows
        )
        lazy = is_open and stream is not Stream.ANSWER  # the child waits until its answers are written
        # lazy: readings can wait, and counts were written together with the last part of the window (``so_far``)
        self.spool.add(
            Row(stream=stream.value, boot=self.boot, seq=batch.seq, payload=encode(message), open=is_open, lazy=lazy)
        )
        if not is_open:
            del self._batches[stream]

    def _add(self, stream: Stream, seq: int, payload: bytes) -> None:
        self.spool.add(Row(stream=stream.value, boot=self.boot, seq=seq, payload=payload))


def _continues(window: DriftReport, part: DriftReport) -> bool:
    """Return whether ``part`` belongs to ``window``: same hour, release, reference and shape."""
    mine, theirs = (
        (item.window_start_ms, item.window_len_ms, item.artifact, item.ref_id, item.context, item.counters.shape)
        for item in (window, part)
    )
    return mine == theirs


def topic_of(row: Row, site: str, device: str) -> Topic:
    """Return the topic of a row."""
    if row.stream == Stream.EVENT:
        return Topic(site=site, device=device, kind=Kind.EVENT)
    return Topic(site=site, device=device, kind=Kind.TELE, leaf=row.stream)


def seal(row: Row, *, oldest_seq: int, boot: str) -> bytes:
    """Return the payload to send now; ``boot`` is the current one.

    Raises:
        MessageError: If the row does not decode, or its stream is unknown to this version.
    """
    late = row.late or row.boot != boot
    if row.stream == Stream.DRIFT:
        report = decode_report(row.payload)
        return encode_report(replace(report, oldest_seq=oldest_seq, late=late or report.late))
    if row.stream == Stream.EVENT:
        return encode(replace(decode(Event, row.payload), oldest_seq=oldest_seq))
    if row.stream == Stream.SAMPLE:
        sample = decode(Sample, row.payload, limit_bytes=len(row.payload))
        return encode(replace(sample, oldest_seq=oldest_seq))
    return encode(replace(decode(Batch, row.payload), oldest_seq=oldest_seq, late=late))
