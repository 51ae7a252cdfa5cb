"""The device's half: run inference, count, spool, report, update and roll back."""

__version__ = "0.1.0"
