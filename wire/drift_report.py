"""``tele/drift``: one closed window of counters in under 800 bytes.

Layout, little endian: magic ``TFD1``, flags (bit 0: body is zlib, bit 1: late), boot (8 bytes),
artifact digest and reference id (the first 16 bytes of each SHA-256), then as LEB128: seq,
oldest_seq, window_start_ms, window_len_s in milliseconds, n, context, streams, classes,
confidence bins; then the body: all counters as LEB128, compressed where that is shorter.
Full digests don't travel: 128 bits tell any two artifacts of a fleet apart.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from wire import leb128
from wire.errors import MessageError
from wire.histogram import Counters, Shape

MAGIC = b"TFD1"
MAX_REPORT_BYTES = 8 * 1024
MAX_STREAMS = 256
MAX_CLASSES = 1024
MAX_CONFIDENCE_BINS = 64
SHORT_DIGEST_DIGITS = 32
_FLAG_ZLIB = 1
_FLAG_LATE = 2
_HEAD = struct.Struct("<4sB8s16s16s")
_NUMBERS = 9


@dataclass(frozen=True, slots=True)
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
        MessageError: If a digest is not hexadecimal or a number is negative.
    """
    shape = report.counters.shape
    numbers = (
        report.seq, report.oldest_seq, report.window_start_ms, report.window_len_ms, report.counters.n,
        report.context, shape.streams, shape.classes, shape.confidence_bins,
    )  # fmt: skip
    body = leb128.encode(report.counters.values)
    packed = zlib.compress(body, 9)
    flags = (_FLAG_ZLIB if len(packed) < len(body) else 0) | (_FLAG_LATE if report.late else 0)
    try:
        head = _HEAD.pack(
            MAGIC, flags, bytes.fromhex(report.boot), bytes.fromhex(report.artifact), bytes.fromhex(report.ref_id)
        )
    except ValueError as error:
        message = f"Expected hex digits for boot, artifact and ref_id, got {report.boot!r}"
        raise MessageError(message) from error
    return head + leb128.encode(numbers) + min(packed, body, key=len)


def decode_report(data: bytes) -> DriftReport:
    """Return the report in ``data``.

    Raises:
        MessageError: If it is too long, is not a report, or its counters don't fit its shape.
    """
    if not _HEAD.size < len(data) <= MAX_REPORT_BYTES or data[:4] != MAGIC:
        message = f"Expected a drift report of at most {MAX_REPORT_BYTES} bytes, got {len(data)} of {data[:4]!r}"
        raise MessageError(message)
    _, flags, boot, artifact, ref_id = _HEAD.unpack_from(data)
    numbers, used = leb128.decode(data[_HEAD.size :], _NUMBERS)
    seq, oldest, start_ms, len_ms, n, context, streams, classes, confidence_bins = numbers
    if streams > MAX_STREAMS or classes > MAX_CLASSES or confidence_bins > MAX_CONFIDENCE_BINS:
        message = f"Expected at most {MAX_STREAMS} streams and {MAX_CLASSES} classes, got {streams} and {classes}"
        raise MessageError(message)
    shape = Shape(streams, classes, confidence_bins)
    body = _body(data[_HEAD.size + used :], compressed=bool(flags & _FLAG_ZLIB), counters=shape.total)
    values, consumed = leb128.decode(body, shape.total)
    if consumed != len(body):
        message = f"Expected {consumed} bytes of counters, got {len(body)}"
        raise MessageError(message)
    return DriftReport(
        boot.hex(), seq, oldest, start_ms, len_ms, context, artifact.hex(), ref_id.hex(),
        Counters(shape, n, tuple(values)), late=bool(flags & _FLAG_LATE),
    )  # fmt: skip


def _body(data: bytes, *, compressed: bool, counters: int) -> bytes:
    if not compressed:
        return data
    inflater = zlib.decompressobj()
    try:
        body = inflater.decompress(data, counters * 9 + 1)
    except zlib.error as error:
        message = f"Expected zlib counters, got {len(data)} bytes that don't inflate"
        raise MessageError(message) from error
    if not inflater.eof or inflater.unused_data:
        message = f"Expected one whole zlib body, got {len(data)} bytes"
        raise MessageError(message)
    return body
