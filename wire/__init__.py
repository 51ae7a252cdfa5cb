"""The contract between build host, device and server; standard library only.

Decides how bytes on the wire and in bundles look and which of them are believed.
Deliberately does no network, clock or thread of its own (``memory_broker`` aside, which is a
broker for tests and for machines without one).
"""
