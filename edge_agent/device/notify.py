"""What systemd is told about the agent: READY, STATUS, WATCHDOG and STOPPING.

Decides when each is sent. READY means that a restart would not help: the agent is connected, or serves, or its loop has
turned for ``READY_S`` (a new device without a network is as well as it can be). WATCHDOG is left out if the connection
counts as up and the broker has been silent for longer than keep-alive permits: the thread of the connection is dead,
and only a restart mends it. A device without a network is not restarted. What blocks the loop blocks these messages.

Source: sd_notify(3), sd_watchdog_enabled(3). Does nothing where there is no systemd.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from wire.codec import Json

_LOG = logging.getLogger(__name__)
READY_S = 30.0
"""Less than half of the 90 s in which systemd expects READY."""
SILENT_KEEPALIVES = 4
"""paho sends a PINGREQ after one keep-alive, waits another for its answer, and then closes."""
_PINGS_A_LIMIT = 3  # sd_watchdog_enabled(3) suggests half of the limit; one more may be lost
_STATUS_CHARACTERS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceHealth:
    """The agent as systemd sees it. ``idle_s``: since the broker's last packet, infinite while not connected."""

    status: str
    serving: bool
    idle_s: float
    keepalive_s: float

    @property
    def lively(self) -> bool:
        """False if a connection counts as up that can't be."""
        return math.isinf(self.idle_s) or self.idle_s <= SILENT_KEEPALIVES * self.keepalive_s


@dataclass(slots=True, kw_only=True)
class Notifier:
    """Sends datagrams to ``address``; "" sends nothing. ``limit_s``: the watchdog's, 0 for none."""

    address: str = ""
    limit_s: float = 0.0
    _ready: bool = False
    _status: str = ""
    _first_s: float | None = None
    _pinged_s: float = float("-inf")

    def turn(self, seen: ServiceHealth, now_s: float) -> None:
        """Send what has changed, and a sign of life if one is due. Never raises. ``now_s``: monotonic."""
        if not self.address:
            return
        if self._first_s is None:
            self._first_s = now_s
        lines = []
        connected = not math.isinf(seen.idle_s)
        if not self._ready and (connected or seen.serving or now_s - self._first_s >= READY_S):
            lines.append("READY=1")
        if seen.status != self._status:
            lines.append(f"STATUS={seen.status.replace(chr(10), ' ')[:_STATUS_CHARACTERS]}")
        if self.limit_s and seen.lively and now_s - self._pinged_s >= self.limit_s / _PINGS_A_LIMIT:
            lines.append("WATCHDOG=1")
        if lines and self._send(lines):
            self._ready = self._ready or "READY=1" in lines
            self._status = seen.status
            self._pinged_s = now_s if "WATCHDOG=1" in lines else self._pinged_s

    def stopping(self) -> None:
        """Announce an orderly end, which may take seconds."""
        if self.address:
            self._send(["STOPPING=1", "STATUS=stopping"])

    def _send(self, lines: list[str]) -> bool:
        """Send one datagram; return whether the kernel accepted it. A full or absent socket is tried again later."""
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.setblocking(False)
                connection.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            _LOG.debug("systemd not notified error=%s", error)
            return False
        return True


def condition_of(facts: Mapping[str, Json], *, idle_s: float, keepalive_s: float) -> ServiceHealth:
    """Return what systemd is told, from the ``facts`` that ``edge-agent status`` shows."""
    reason, current = facts.get("reason"), facts.get("current")
    words = [
        f"{facts['state']} ({reason})" if reason else str(facts["state"]),
        *([str(current["release"])] if isinstance(current, dict) else []),
        "connected" if facts.get("connected") else "not connected",
    ]
    return ServiceHealth(
        status=", ".join(words), serving=facts.get("serving") is True, idle_s=idle_s, keepalive_s=keepalive_s
    )


def from_environment(environment: MutableMapping[str, str], pid: int | None = None) -> Notifier:
    """Return the notifier that systemd's variables ask for, and remove them: children must not speak for the agent.

    A watchdog meant for another process, and an address that is no Unix socket, are left out.
    """
    address = environment.pop("NOTIFY_SOCKET", "")
    limit_us = environment.pop("WATCHDOG_USEC", "")
    owner = environment.pop("WATCHDOG_PID", "")
    if address and address[0] not in "/@":
        _LOG.warning("systemd is not notified: expected NOTIFY_SOCKET as /path or @name, got %r", address)
        address = ""
    mine = owner in {"", str(os.getpid() if pid is None else pid)}
    return Notifier(address=address, limit_s=int(limit_us) / 1e6 if limit_us.isdecimal() and mine else 0.0)
