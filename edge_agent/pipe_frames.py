"""Frames on the pipes between the control process and its inference child; standard library only.

A frame is a 4-byte big-endian header length, a 4-byte payload length, a JSON header with a
``type``, and the payload. Both lengths are checked before anything is read: a faulty child can't make its parent
buffer more than one frame of the maximum size.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_agent.errors import FrameError
from wire.canonical import canonical_bytes
from wire.codec import Json, parse_json
from wire.errors import MessageError

MAX_HEADER_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
MAX_SAMPLE_BYTES = (
    180 * 1024
)  # of an input in ``sample``, so that with base64 and its envelope it is within the server's limit
LANES = ("audit", "drift")
"""Of samples that a server asks for."""
SAMPLE_TYPES = ("image/png", "image/jpeg")
"""Of samples, all that servers of this version take: other inputs must not leave the device in vain."""
MAX_SAMPLES = 10_000
"""Of one request."""
CORRECTION = "correction"
"""The lane of inputs whose answer the device's user corrected."""
_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message on a pipe."""

    header: Mapping[str, Json]
    payload: bytes = b""

    @property
    def kind(self) -> str:
        """The header's ``type``."""
        return str(self.header["type"])


class Readable(Protocol):
    """The part of a pipe that ``read_frame`` uses: a buffered binary reader."""

    def read(self, size: int, /) -> bytes:
        """Return ``size`` bytes, or fewer at the end of the stream."""


def encode_frame(header: Mapping[str, Json], payload: bytes = b"") -> bytes:
    """Return the bytes of a frame; ``header`` has a ``type``.

    Raises:
        FrameError: If a part is too large, the header is not JSON-serializable, or it has no type.
    """
    try:
        text = canonical_bytes(dict(header))
    except MessageError as error:
        message = f"Expected a header that JSON can carry, got: {error}"
        raise FrameError(message) from error
    if not isinstance(header.get("type"), str):
        message = f"Expected a header with a type, got {sorted(header)}"
        raise FrameError(message)
    _check_lengths(len(text), len(payload))
    return _LENGTHS.pack(len(text), len(payload)) + text + payload


def read_frame(pipe: Readable) -> Frame | None:
    """Wait for the next frame and return it; None at an orderly end.

    Raises:
        FrameError: If the pipe ends inside a frame, or the bytes are not a frame.
    """
    lengths = pipe.read(_LENGTHS.size)
    if not lengths:
        return None
    header_bytes, payload_bytes = _lengths(_whole(lengths, _LENGTHS.size))
    text = _whole(pipe.read(header_bytes), header_bytes)
    return _frame(text, _whole(pipe.read(payload_bytes), payload_bytes))


class FrameDecoder:
    """Incremental decoder: splits bytes, as they arrive, into frames; for a reader that must not block."""

    def __init__(self) -> None:
        """Start with nothing buffered."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes.

        Raises:
            FrameError: If the bytes are not a frame; the stream is unusable afterwards.
        """
        self._buffer += data
        frames = []
        while len(self._buffer) >= _LENGTHS.size:
            header_bytes, payload_bytes = _lengths(bytes(self._buffer[: _LENGTHS.size]))
            start, end = _LENGTHS.size + header_bytes, _LENGTHS.size + header_bytes + payload_bytes
            if len(self._buffer) < end:
                break
            frames.append(_frame(bytes(self._buffer[_LENGTHS.size : start]), bytes(self._buffer[start:end])))
            del self._buffer[:end]
        return frames


def _lengths(data: bytes) -> tuple[int, int]:
    header_bytes, payload_bytes = _LENGTHS.unpack(data)
    _check_lengths(header_bytes, payload_bytes)
    return header_bytes, payload_bytes


def _check_lengths(header_bytes: int, payload_bytes: int) -> None:
    if not 0 < header_bytes <= MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        limits = f"{MAX_HEADER_BYTES} bytes of header and {MAX_PAYLOAD_BYTES} of payload"
        message = f"Expected a frame of at most {limits}, got {header_bytes} and {payload_bytes}"
        raise FrameError(message)


def _whole(data: bytes, length: int) -> bytes:
    if len(data) != length:
        message = f"Expected {length} more bytes of a frame, got {len(data)}: the other side ended"
        raise FrameError(message)
    return data


def _frame(text: bytes, payload: bytes) -> Frame:
    try:
        header = parse_json(text, limit_bytes=MAX_HEADER_BYTES)
    except MessageError as error:
        message = f"Expected a JSON header, got: {error}"
        raise FrameError(message) from error
    if not isinstance(header.get("type"), str):
        message = f"Expected a header with a type, got {sorted(header)[:10]}"
        raise FrameError(message)
    return Frame(header, payload)
