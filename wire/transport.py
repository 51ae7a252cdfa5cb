"""Interface between programs and the broker. Implementations: MQTT (paho), memory.

Callbacks run in a thread of the transport; they only enqueue and never raise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Link(StrEnum):
    """Changes of the connection. ``UNREACHABLE``: none could be made; it is tried again."""

    UP = "up"
    DOWN = "down"
    TAKEN_OVER = "taken_over"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A received message."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class LinkChange:
    """The connection changed; ``reason`` is for people."""

    link: Link
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The broker acknowledged (QoS 1) the publish with this ``handle``. This does not mean that it is stored."""

    handle: int


@dataclass(frozen=True, slots=True)
class Will:
    """Message that the broker publishes, retained, when the connection is lost."""

    topic: str
    payload: bytes
    delay_s: int = 30


Notice = Incoming | LinkChange | Delivered
Listener = Callable[[Notice], None]


class Transport(Protocol):
    """A connection to the broker."""

    def start(self, listener: Listener, *, subscriptions: tuple[str, ...], will: Will | None = None) -> None:
        """Connect in the background and keep connected; subscribe on every connect."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int | None:
        """Send a QoS 1 message; return its handle, or None if the transport can't accept it now."""

    def idle_s(self) -> float:
        """Return the seconds since the broker last responded (infinite while disconnected)."""

    def stop(self) -> None:
        """Disconnect without a will and end the background work."""
