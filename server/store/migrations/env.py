"""Alembic's environment: runs the steps on the connection and in the transaction of ``server.store.revisions``.

Only Alembic imports this file. The transaction is the caller's, so that all steps are applied or none.
"""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes.get("metadata"),
    render_as_batch=True,  # SQLite can't alter a column: Alembic copies the table instead
)
context.run_migrations()
