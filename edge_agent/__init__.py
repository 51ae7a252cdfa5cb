"""The device's half: run inference, count, spool, report, update and roll back."""
