"""Which ids of a table are settled: every row up to there is committed, or never comes.

A reader with a cursor (``id > cursor``) needs this where several transactions write at once. PostgreSQL gives ids when
rows are inserted, and transactions commit in any order: a reader that has seen id 12 would never see 11, committed a
moment later. SQLite has one writer at a time, so its ids become visible in their order.

A writer takes a shared advisory lock until its transaction ends, whose key is the newest id before it inserted. A
reader first reads the newest id and then the locks: a writer whose lock it does not see has committed, or inserts
higher ids. Nobody waits for anybody; a writer that hangs holds readers back, but loses them nothing.

Source: PostgreSQL manual, "Explicit Locking", 13.3.5 (advisory locks of two int4 keys), and ``pg_locks``, 54.12.
"""

from __future__ import annotations

import zlib

import sqlalchemy as sa

_KEYS = 2**31 - 1  # an advisory lock has room for so many of the newest ids
_NEWEST = "coalesce(pg_sequence_last_value(pg_get_serial_sequence(:table, 'id')::regclass), 0)"
_ANNOUNCE = sa.text(f"SELECT pg_advisory_xact_lock_shared(:kind, ({_NEWEST} % {_KEYS})::int)")
_READ_NEWEST = sa.text(f"SELECT {_NEWEST}")
_READ_WRITERS = sa.text(
    "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = :kind "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def announce_rows(connection: sa.Connection, table: sa.Table) -> None:
    """Announce that this transaction inserts rows into ``table``; call it before the first of them."""
    if connection.dialect.name == "postgresql":
        connection.execute(_ANNOUNCE, {"table": table.name, "kind": _kind(table)})


def settled_id(connection: sa.Connection, table: sa.Table) -> int | None:
    """Return the id up to which every row of ``table`` that ever comes is there; None for all.

    What is read with it must be read in later statements of the same transaction, in PostgreSQL's READ COMMITTED.
    """
    if connection.dialect.name != "postgresql":
        return None
    newest = int(connection.execute(_READ_NEWEST, {"table": table.name}).scalar_one())
    writers = connection.execute(_READ_WRITERS, {"kind": _kind(table)}).scalars()
    return min((newest - (newest - int(before)) % _KEYS for before in writers), default=newest)


def _kind(table: sa.Table) -> int:
    return zlib.crc32(f"tinyfleet {table.name}".encode()) >> 1  # the same in every process, and an int4
