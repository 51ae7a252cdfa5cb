"""The in-memory transport, for tests and for a demo on a machine without mosquitto."""

from __future__ import annotations

from wire.memory_broker import MemoryBroker, MemoryTransport

__all__ = ["MemoryBroker", "MemoryTransport"]
