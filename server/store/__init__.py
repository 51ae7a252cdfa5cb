"""The only folder with SQL: one file of tables and queries per domain."""
