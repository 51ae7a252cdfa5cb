"""The contract between build host, device and server; standard library only.

Decides the format of bytes on the wire and in bundles, and which of them are accepted. Deliberately uses no network,
clock or thread (except ``memory_broker``, a broker for tests and for machines without one).
"""

__version__ = "0.2.0"
"""The version of tinyfleet, and the only place that states it: `pyproject.toml` and the three programs read it here."""
