"""Table and queries of releases."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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
    sa.Column("withdrawn_ms", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("withdrawn_why", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("withdrawn_by", sa.String(100), nullable=False, default="", server_default=""),
)


def all_releases(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every release and target, in the order of registration."""
    return list(connection.execute(RELEASES.select().order_by(RELEASES.c.registered_ms, RELEASES.c.path)).mappings())


def releases_of(connection: sa.Connection, sha256: str) -> list[sa.RowMapping]:
    """Return every release and target whose bundle is ``sha256``."""
    return list(connection.execute(RELEASES.select().where(RELEASES.c.sha256 == sha256)).mappings())


def put_release(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a release, or update the one with the same path; a withdrawn one stays withdrawn."""
    where = RELEASES.c.path == row["path"]
    if connection.execute(RELEASES.update().where(where).values(dict(row))).rowcount == 0:
        connection.execute(RELEASES.insert(), dict(row))


def withdraw_release(connection: sa.Connection, name: str, now_ms: int, *, why: str, by: str) -> bool:
    """Mark every target of the release ``name`` as withdrawn by ``by``; return whether that changed any."""
    where = (RELEASES.c.name == name, RELEASES.c.withdrawn_ms == 0)
    changes = {"withdrawn_ms": now_ms, "withdrawn_why": why, "withdrawn_by": by}
    return connection.execute(RELEASES.update().where(*where).values(changes)).rowcount > 0


def released(connection: sa.Connection, sha256s: Collection[str]) -> set[str]:
    """Return those of the bundles ``sha256s`` that a release or target has, withdrawn or not."""
    return set(connection.execute(sa.select(RELEASES.c.sha256).where(RELEASES.c.sha256.in_(sha256s))).scalars())
