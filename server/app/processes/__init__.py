"""The one process that decides, and those that only ingest."""
