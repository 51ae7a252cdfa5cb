"""Table and queries of releases."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from server.store.database import METADATA

RELEASES = sa.Table(
    "releases",
    METADATA,
    sa.Column("path", sa.String(300), primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, index=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("length_bytes", sa.BigInteger, nullable=False),
    sa.Column("custom", sa.Text, nullable=False),
    sa.Column("registered_ms", sa.BigInteger, nullable=False),
)


def all_releases(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every release and target, in the order of registration."""
    return list(connection.execute(RELEASES.select().order_by(RELEASES.c.registered_ms, RELEASES.c.path)).mappings())


def put_release(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a release, or replace the one of the same path."""
    connection.execute(RELEASES.delete().where(RELEASES.c.path == row["path"]))
    connection.execute(RELEASES.insert(), dict(row))
