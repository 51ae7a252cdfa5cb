"""Table and queries of the verdicts for which rollouts have been paused."""

from __future__ import annotations

import sqlalchemy as sa

from server.store.database import METADATA

PAUSED = sa.Table(
    "paused_for",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
)


def paused_for(connection: sa.Connection) -> set[int]:
    """Return the ids of the verdicts that have been handled."""
    return set(connection.execute(sa.select(PAUSED.c.verdict)).scalars())


def note_paused_for(connection: sa.Connection, verdict: int, at_ms: int) -> None:
    """Record that a verdict has been handled."""
    connection.execute(PAUSED.insert(), {"verdict": verdict, "at_ms": at_ms})
