"""The contract between build host, device and server; standard library only.

Decides how bytes on the wire and in bundles look and which of them are believed.
Deliberately does no network, clock or thread of its own (``memory_broker`` aside, which is a
broker for tests and for machines without one).
"""

__version__ = "0.2.0"
"""The version of tinyfleet, and the only place that states it: `pyproject.toml` and the three programs read it here."""
