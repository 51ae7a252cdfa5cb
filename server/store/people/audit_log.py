"""Tables and queries of the log of acts. Rows are appended and never changed; ``server.access.audit_log`` chains them.

``audit_head`` is one row: the number and the hash of the last act. Who appends locks it first, so that the chain has
one order, also with several processes on PostgreSQL; on SQLite the first write of a transaction locks the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from server.store.database import METADATA, upsert

AUDIT_LOG = sa.Table(
    "audit_log",
    METADATA,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("account", sa.String(100), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("said", sa.String(100), nullable=False),
    sa.Column("through", sa.String(64), nullable=False),
    sa.Column("address", sa.String(64), nullable=False),
    sa.Column("act", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(200), nullable=False, index=True),
    sa.Column("data", sa.Text, nullable=False),
    sa.Column("previous_sha256", sa.String(64), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)

AUDIT_HEAD = sa.Table(
    "audit_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)
_ONLY = 1
_PAGE = 1_000


def next_place(connection: sa.Connection) -> tuple[int, str]:
    """Lock the head until the transaction ends; return the number of the next act, and the hash of the last one."""
    forward = (
        AUDIT_HEAD.update()
        .where(AUDIT_HEAD.c.id == _ONLY)
        .values(seq=AUDIT_HEAD.c.seq + 1)
        .returning(AUDIT_HEAD.c.seq, AUDIT_HEAD.c.sha256)
    )
    row = connection.execute(forward).first()
    if row is None:  # the first act of all; of two processes one inserts
        first = upsert(connection, AUDIT_HEAD).values(id=_ONLY, seq=0, sha256="").on_conflict_do_nothing()
        connection.execute(first)
        row = connection.execute(forward).one()
    return int(row.seq), str(row.sha256)


def append_act(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Append a row at the place that ``next_place`` returned, and make it the head."""
    connection.execute(AUDIT_LOG.insert(), dict(row))
    connection.execute(AUDIT_HEAD.update().where(AUDIT_HEAD.c.id == _ONLY).values(sha256=row["sha256"]))


def head(connection: sa.Connection) -> tuple[int, str]:
    """Return number and hash of the last act, (0, "") before the first."""
    row = connection.execute(AUDIT_HEAD.select().where(AUDIT_HEAD.c.id == _ONLY)).first()
    return (int(row.seq), str(row.sha256)) if row is not None else (0, "")


def acts_after(connection: sa.Connection, after: int, limit: int) -> list[sa.RowMapping]:
    """Return up to ``limit`` acts with a number above ``after``, oldest first."""
    query = AUDIT_LOG.select().where(AUDIT_LOG.c.seq > after).order_by(AUDIT_LOG.c.seq).limit(limit)
    return list(connection.execute(query).mappings())


def latest_acts(connection: sa.Connection, limit: int) -> list[sa.RowMapping]:
    """Return the ``limit`` newest acts, newest first."""
    return list(connection.execute(AUDIT_LOG.select().order_by(AUDIT_LOG.c.seq.desc()).limit(limit)).mappings())


def acts_about(connection: sa.Connection, kind: str, subject: str, limit: int) -> list[sa.RowMapping]:
    """Return the newest ``limit`` acts of a kind, such as "rollout", about one subject, oldest first."""
    about = (AUDIT_LOG.c.subject == subject, AUDIT_LOG.c.act.startswith(f"{kind}.", autoescape=True))
    query = AUDIT_LOG.select().where(*about).order_by(AUDIT_LOG.c.seq.desc()).limit(limit)
    return list(connection.execute(query).mappings())[::-1]


def last_act(connection: sa.Connection, act: str) -> sa.RowMapping | None:
    """Return the newest act with this code."""
    query = AUDIT_LOG.select().where(AUDIT_LOG.c.act == act).order_by(AUDIT_LOG.c.seq.desc()).limit(1)
    return connection.execute(query).mappings().first()


def every_act(connection: sa.Connection) -> Iterator[sa.RowMapping]:
    """Yield every act, oldest first, a page at a time."""
    after: int | None = None
    while True:
        query = AUDIT_LOG.select().order_by(AUDIT_LOG.c.seq).limit(_PAGE)
        rows = connection.execute(query if after is None else query.where(AUDIT_LOG.c.seq > after)).mappings().all()
        yield from rows
        if len(rows) < _PAGE:
            return
        after = int(rows[-1]["seq"])
