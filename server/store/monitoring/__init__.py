"""Tables and queries of ingest and drift."""
