"""Measurement on devices: orders, the client of the server, and the wait for answers."""

WAIT_S = 300.0
"""How long a device is waited for unless the command line says otherwise."""
