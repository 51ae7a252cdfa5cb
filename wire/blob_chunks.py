"""Chunks of a blob over MQTT: what a device asks for on ``blob/req``, and the binary answer on ``blob/data``.

A request is JSON: the blob, the ranges of bytes, and the ``credit``: how many chunks may be sent for it. The server
splits a range into chunks of at most ``CHUNK_BYTES`` and keeps no state: a device that misses one asks again. An
answer is ``TFC1``, the length of its header as two bytes (big-endian), the header as JSON, then the chunk. ``crc32`` is
that of the chunk; the digest of the blob is that of the whole. With a ``code`` there is no chunk, and won't be one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wire.codec import OMIT_DEFAULT, Json, decode, encode
from wire.errors import MessageError

MAGIC = b"TFC1"
CHUNK_BYTES = 64 * 1024
MAX_CREDIT = 16
"""The most chunks that are sent for one request."""
MAX_HEADER_BYTES = 1024
_HEAD_BYTES = len(MAGIC) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """``length`` bytes from ``start`` on."""

    start: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRequest:
    """``blob/req``: the ranges that the device wants next, in this order."""

    sha256: str = ""
    ranges: tuple[ByteRange, ...] = ()
    credit: int = 0
    extra: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """``blob/data``: the header of one chunk; ``code`` and ``text``: why there is none."""

    sha256: str = ""
    start: int = 0
    crc32: int = 0
    code: str = field(default="", metadata=OMIT_DEFAULT)
    text: str = field(default="", metadata=OMIT_DEFAULT)
    extra: Mapping[str, Json] = field(default_factory=dict)


def write_chunk(chunk: Chunk, data: bytes = b"") -> bytes:
    """Return the bytes of an answer; ``crc32`` is filled in here."""
    header = encode(replace(chunk, crc32=zlib.crc32(data)))
    return MAGIC + len(header).to_bytes(2, "big") + header + data


def read_chunk(payload: bytes) -> tuple[Chunk, bytes]:
    """Return header and data of an answer.

    Raises:
        MessageError: If it is not one, too long, or its data differ from their checksum.
    """
    if payload[: len(MAGIC)] != MAGIC or len(payload) > _HEAD_BYTES + MAX_HEADER_BYTES + CHUNK_BYTES:
        message = f"Expected a chunk of at most {CHUNK_BYTES} bytes, got {len(payload)} bytes of {payload[:4]!r}"
        raise MessageError(message)
    end = _HEAD_BYTES + int.from_bytes(payload[len(MAGIC) : _HEAD_BYTES], "big")
    chunk = decode(Chunk, payload[_HEAD_BYTES:end], limit_bytes=MAX_HEADER_BYTES)
    data = payload[end:]
    if len(data) > CHUNK_BYTES or zlib.crc32(data) != chunk.crc32:
        message = f"Expected the chunk at {chunk.start} with CRC {chunk.crc32}, got {len(data)} other bytes"
        raise MessageError(message)
    return chunk, data
