"""Measurement on devices: orders, the client of the server, and the wait for reports."""

WAIT_S = 300.0
"""Default time limit for a device's measurement; the command line can change it."""
