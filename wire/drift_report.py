"""``tele/drift``: the counters of one closed window in under 800 bytes.

Layout, little endian: magic ``TFD1``, flags (bit 0: body is zlib, bit 1: late, bit 2: body is
packed), boot (8 bytes), artifact digest and reference id (the first 16 bytes of each SHA-256), then
as LEB128: seq, oldest_seq, window_start_ms, window_len_ms, n, context, streams, classes, confidence
bins; then the body, whichever is shortest of: all counters as LEB128; the same under zlib; packed
(``wire.bitpack``) without the last bin of each stream. The last needs every stream to have counted
every inference, so that the bin left out is what remains of n.
Full digests don't travel: 128 bits tell any two artifacts of a fleet apart.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from wire import leb128
from wire.bitpack import inflate, pack, unpack
from wire.errors import MessageError
from wire.histogram import BINS, Counters, Shape

MAGIC = b"TFD1"
MAX_REPORT_BYTES = 8 * 1024
MAX_STREAMS = 256
MAX_CLASSES = 1024
MAX_CONFIDENCE_BINS = 64
SHORT_DIGEST_DIGITS = 32
_FLAG_ZLIB = 1
_FLAG_LATE = 2
_FLAG_PACKED = 4
_BOOT_DIGITS = 16
_MAX_LEB128_BYTES = 9
_HEAD = struct.Struct("<4sB8s16s16s")
_NUMBERS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """One window of one device. ``artifact`` and ``ref_id`` are 32 hex digits (128 bits)."""

    boot: str
    seq: int
    oldest_seq: int
    window_start_ms: int
    window_len_ms: int
    context: int
    artifact: str
    ref_id: str
    counters: Counters
    late: bool = False


def encode_report(report: DriftReport) -> bytes:
    """Return the bytes of ``report``.

    Raises:
        MessageError: If boot, artifact or ref_id is not hexadecimal of its length, or a number is negative.
    """
    shape = report.counters.shape
    numbers = (
        report.seq, report.oldest_seq, report.window_start_ms, report.window_len_ms, report.counters.n,
        report.context, shape.streams, shape.classes, shape.confidence_bins,
    )  # fmt: skip
    plain = leb128.encode(report.counters.values)
    choices = [(0, plain), (_FLAG_ZLIB, zlib.compress(plain, 9))]
    # in a window without invalid inputs the last bin of a stream follows from ``n`` and the others
    end, values = shape.streams * BINS, report.counters.values
    kept = tuple(value for i, value in enumerate(values[:end]) if (i + 1) % BINS) + values[end:]
    if _with_last_bins(kept, shape, report.counters.n) == values:
        choices.append((_FLAG_PACKED, pack(kept)))
    flags, body = min(choices, key=lambda choice: len(choice[1]))
    head = _HEAD.pack(
        MAGIC,
        flags | (_FLAG_LATE if report.late else 0),
        _from_hex(report.boot, _BOOT_DIGITS, "boot"),
        _from_hex(report.artifact, SHORT_DIGEST_DIGITS, "artifact"),
        _from_hex(report.ref_id, SHORT_DIGEST_DIGITS, "ref_id"),
    )
    return head + leb128.encode(numbers) + body


def _from_hex(text: str, digits: int, what: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(text) != digits or data.hex() != text:
        message = f"Expected {what} as {digits} lower-case hex digits, got {text[:80]!r}"
        raise MessageError(message)
    return data


def _with_last_bins(kept: tuple[int, ...], shape: Shape, n: int) -> tuple[int, ...]:
    width = BINS - 1
    rest = kept[shape.streams * width :]
    values: list[int] = []
    for stream in range(shape.streams):
        row = kept[stream * width : (stream + 1) * width]
        values += [*row, n - rest[stream] - sum(row)]
    return (*values, *rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedReport:
    """A report whose head is decoded but whose counters are not; ``n`` and ``shape`` are those of the head."""

    boot: str
    seq: int
    oldest_seq: int
    window_start_ms: int
    window_len_ms: int
    context: int
    artifact: str
    ref_id: str
    late: bool
    n: int
    shape: Shape
    coding: int
    body: bytes

    @property
    def is_packed(self) -> bool:
        """Whether the body is ``wire.bitpack`` of the counters without the last bin of each stream."""
        return self.coding == _FLAG_PACKED

    def opened(self, values: tuple[int, ...]) -> DriftReport:
        """Return the report with its counters."""
        return DriftReport(
            boot=self.boot,
            seq=self.seq,
            oldest_seq=self.oldest_seq,
            window_start_ms=self.window_start_ms,
            window_len_ms=self.window_len_ms,
            context=self.context,
            artifact=self.artifact,
            ref_id=self.ref_id,
            counters=Counters(self.shape, self.n, values),
            late=self.late,
        )


def decode_report(data: bytes) -> DriftReport:
    """Return the report in ``data``.

    Raises:
        MessageError: If it is too long, is not a report, or its counters don't fit its shape.
    """
    sealed = open_report(data)
    shape = sealed.shape
    if sealed.is_packed:
        values = _with_last_bins(unpack(sealed.body, shape.total - shape.streams), shape, sealed.n)
        if min(values, default=0) < 0:
            message = f"Expected streams of at most {sealed.n} counts, got more"
            raise MessageError(message)
        return sealed.opened(values)
    if sealed.coding not in {0, _FLAG_ZLIB}:
        message = f"Expected a known coding of the counters, got flags {sealed.coding}: update the server"
        raise MessageError(message)
    body = inflate(sealed.body, shape.total * _MAX_LEB128_BYTES) if sealed.coding else sealed.body
    counts, consumed = leb128.decode(body, shape.total)
    if consumed != len(body):
        message = f"Expected {consumed} bytes of counters, got {len(body)}"
        raise MessageError(message)
    return sealed.opened(tuple(counts))


def open_report(data: bytes) -> SealedReport:
    """Return the head of the report in ``data``, for readers that decode the counters of many reports at once.

    Raises:
        MessageError: If it is too long or not a report.
    """
    if not _HEAD.size < len(data) <= MAX_REPORT_BYTES or data[:4] != MAGIC:
        message = f"Expected a drift report of at most {MAX_REPORT_BYTES} bytes, got {len(data)} of {data[:4]!r}"
        raise MessageError(message)
    _, flags, boot, artifact, ref_id = _HEAD.unpack_from(data)
    numbers, used = leb128.decode(data[_HEAD.size :], _NUMBERS)
    seq, oldest, start_ms, len_ms, n, context, streams, classes, confidence_bins = numbers
    if not 1 <= streams <= MAX_STREAMS or classes > MAX_CLASSES or confidence_bins > MAX_CONFIDENCE_BINS:
        message = f"Expected 1 to {MAX_STREAMS} streams, at most {MAX_CLASSES} classes, got {streams} and {classes}"
        raise MessageError(message)
    return SealedReport(
        boot=boot.hex(),
        seq=seq,
        oldest_seq=oldest,
        window_start_ms=start_ms,
        window_len_ms=len_ms,
        context=context,
        artifact=artifact.hex(),
        ref_id=ref_id.hex(),
        late=bool(flags & _FLAG_LATE),
        n=n,
        shape=Shape(streams, classes, confidence_bins),
        coding=flags & ~_FLAG_LATE,
        body=data[_HEAD.size + used :],
    )
