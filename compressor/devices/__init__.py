"""Measurement on devices: orders, the client of the server, and the wait for answers."""
