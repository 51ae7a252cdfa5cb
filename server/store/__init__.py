"""The only place of SQL: one file of tables and queries per domain."""
