"""Logs a finished run to a tracking server, MLflow, if the command line requests it.

Decides what is logged, under which names, and how failures are reported. A run never depends on it: everything is on
disk before the first byte is sent, and no recipe, digest or bundle includes it.
"""
