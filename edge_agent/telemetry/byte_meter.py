"""Bytes on air: what the kernel moved over the agent's own connections to its server.

Counted by the kernel, for each watched connection, as long as it is open: the data of TCP in both directions (TLS, MQTT
and HTTP overhead, keep-alives and retransmissions included), and 40 bytes of headers for each segment (60 over IPv6).
Not counted: options of TCP (often 12 bytes a segment), the link layer, name look-ups, enrolment, connections of
sources and sinks on site, and other programs.
Source: ``struct tcp_info`` of linux/tcp.h; a kernel before 4.19 does not count what it sends again.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field

_ACKED_AT, _SENT_AT = 120, 200  # of tcpi_bytes_acked and what follows it, and of tcpi_bytes_sent
_ACKED, _SENT = struct.Struct("=QQII"), struct.Struct("=Q")
_LENGTH_BYTES = 256
_HEADERS_BYTES = {socket.AF_INET: 40, socket.AF_INET6: 60}


@dataclass(frozen=True, slots=True)
class AirBytes:
    """Bytes sent and received."""

    sent: int = 0
    received: int = 0

    def __add__(self, other: AirBytes) -> AirBytes:
        """Return the sum."""
        return AirBytes(self.sent + other.sent, self.received + other.received)

    def __sub__(self, other: AirBytes) -> AirBytes:
        """Return what came since ``other``, an earlier reading."""
        return AirBytes(self.sent - other.sent, self.received - other.received)


@dataclass(slots=True)
class ByteMeter:
    """The sum over all connections since the start. Safe to share between threads."""

    _past: AirBytes = field(default_factory=AirBytes)
    _open: dict[int, socket.socket] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, connection: socket.socket) -> int:
        """Count ``connection`` from its beginning on; return the key for ``settle``.

        It is watched through a descriptor of its own, so that it may be closed before it is settled; until then the
        peer sees it open. Returns -1, and counts nothing, if there is no descriptor left.
        """
        try:
            own = socket.socket(fileno=os.dup(connection.fileno()))
        except OSError:
            return -1
        with self._lock:
            self._open[own.fileno()] = own
        return own.fileno()

    def settle(self, key: int) -> None:
        """Count a connection for the last time; an unknown ``key`` is none."""
        with self._lock:
            own = self._open.pop(key, None)
            if own is not None:
                self._past += _moved(own)
                own.close()

    def add(self, moved: AirBytes) -> None:
        """Add what another process of the agent has moved."""
        with self._lock:
            self._past += moved

    def read(self) -> AirBytes:
        """Return the sum so far."""
        with self._lock:
            return sum(map(_moved, self._open.values()), self._past)


def _moved(connection: socket.socket) -> AirBytes:
    """Return what the kernel counted; nothing for a connection that is not TCP."""
    info, headers_bytes = b"", _HEADERS_BYTES.get(connection.family, 0)
    with suppress(OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH_BYTES)
    if len(info) < _ACKED_AT + _ACKED.size:
        return AirBytes()
    sent, received, segments_out, segments_in = _ACKED.unpack_from(info, _ACKED_AT)
    if len(info) >= _SENT_AT + _SENT.size:
        (sent,) = _SENT.unpack_from(info, _SENT_AT)
    return AirBytes(sent + headers_bytes * segments_out, received + headers_bytes * segments_in)
