"""Connections to the broker; each is one file that implements ``wire.transport.Transport``."""
