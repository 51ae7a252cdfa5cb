"""Tables and queries of software: each distinct list once, its components, and when which device ran which list."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some, upsert
from server.store.fleet import DEVICES

SOFTWARE_LISTS = sa.Table(
    "software_lists",
    METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("packed", sa.LargeBinary),
    sa.Column("left_out", sa.BigInteger, nullable=False, default=0),
    sa.Column("first_ms", sa.BigInteger, nullable=False),
    sa.Column("stored_ms", sa.BigInteger, nullable=False, default=0, index=True),
)
"""``packed``: the list as a device sent it, NULL and ``stored_ms`` 0 while only its digest is known."""

SOFTWARE_COMPONENTS = sa.Table(
    "software_components",
    METADATA,
    sa.Column("list", sa.String(64), primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("key", sa.String(200), nullable=False, index=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("version", sa.String(100), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),
)
"""``key``: the name by which a component is found (PEP 503); ``sha256``: of a model's bundle, else ""."""

SOFTWARE_RUNS = sa.Table(
    "software_runs",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("list", sa.String(64), nullable=False),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
    sa.Index("software_runs_by_device", "device", "until_ms"),
    sa.Index("software_runs_by_list", "list", "until_ms"),
)
"""``until_ms``: 0 for what the device reported last."""


def begin_run(connection: sa.Connection, device: str, digest: str, from_ms: int, now_ms: int) -> None:
    """Record that ``device`` runs the list of ``digest`` from ``from_ms`` on; what it ran before ends then.

    ``digest``: "" if it reports none any more. A time before the begin of the last run is that begin.
    """
    open_ = sa.and_(SOFTWARE_RUNS.c.device == device, SOFTWARE_RUNS.c.until_ms == 0)
    last_ms = connection.execute(sa.select(sa.func.max(SOFTWARE_RUNS.c.from_ms)).where(open_)).scalar() or 0
    at_ms = max(from_ms, int(last_ms))
    connection.execute(SOFTWARE_RUNS.update().where(open_).values(until_ms=at_ms))
    if not digest:
        return
    known = upsert(connection, SOFTWARE_LISTS).on_conflict_do_nothing(index_elements=["sha256"])
    connection.execute(known, {"sha256": digest, "left_out": 0, "first_ms": now_ms, "stored_ms": 0})
    run = {"device": device, "list": digest, "from_ms": at_ms, "until_ms": 0, "received_ms": now_ms}
    connection.execute(SOFTWARE_RUNS.insert(), run)


def missing_lists(connection: sa.Connection, limit: int) -> list[str]:
    """Return digests that devices run and whose lists are not stored, the longest known first."""
    runs = sa.exists().where(SOFTWARE_RUNS.c.list == SOFTWARE_LISTS.c.sha256, SOFTWARE_RUNS.c.until_ms == 0)
    query = sa.select(SOFTWARE_LISTS.c.sha256).where(SOFTWARE_LISTS.c.stored_ms == 0, runs)
    query = query.order_by(SOFTWARE_LISTS.c.first_ms, SOFTWARE_LISTS.c.sha256).limit(limit)
    return [str(digest) for digest in connection.execute(query).scalars()]


def connected_runners(connection: sa.Connection, digest: str, states: Collection[str], limit: int) -> list[str]:
    """Return at most ``limit`` devices in one of ``states`` that run the list of ``digest``, by when they were seen."""
    query = sa.select(DEVICES.c.device).join(SOFTWARE_RUNS, SOFTWARE_RUNS.c.device == DEVICES.c.device)
    query = query.where(
        SOFTWARE_RUNS.c.list == digest,
        SOFTWARE_RUNS.c.until_ms == 0,
        DEVICES.c.ended == "",
        DEVICES.c.state.in_(states),
    )
    return [
        str(device)
        for device in connection.execute(
            query.order_by(DEVICES.c.last_seen_ms.desc(), DEVICES.c.device).limit(limit)
        ).scalars()
    ]


def store_list(
    connection: sa.Connection, digest: str, values: Mapping[str, object], components: Sequence[Mapping[str, object]]
) -> bool:  # fmt: skip
    """Store the list of a digest that is missing; return whether it was, so that two who have it store it once."""
    missing = sa.and_(SOFTWARE_LISTS.c.sha256 == digest, SOFTWARE_LISTS.c.stored_ms == 0)
    if connection.execute(SOFTWARE_LISTS.update().where(missing).values(dict(values))).rowcount != 1:
        return False
    if components:
        connection.execute(
            SOFTWARE_COMPONENTS.insert(),
            [{"list": digest, "place": place, **one} for place, one in enumerate(components)],
        )
    return True


def one_list(connection: sa.Connection, digest: str) -> sa.RowMapping | None:
    """Return a list; None if nobody has reported its digest."""
    return connection.execute(SOFTWARE_LISTS.select().where(SOFTWARE_LISTS.c.sha256 == digest)).mappings().first()


def run_at(connection: sa.Connection, device: str, at_ms: int) -> sa.RowMapping | None:
    """Return the run of ``device`` at ``at_ms``; None if it had reported no list by then, or did no longer."""
    query = SOFTWARE_RUNS.select().where(
        SOFTWARE_RUNS.c.device == device, SOFTWARE_RUNS.c.from_ms <= at_ms,
        sa.or_(SOFTWARE_RUNS.c.until_ms == 0, SOFTWARE_RUNS.c.until_ms > at_ms),
    )  # fmt: skip
    return connection.execute(query.order_by(SOFTWARE_RUNS.c.id.desc()).limit(1)).mappings().first()


def delete_runs_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete runs that ended before ``before_ms``; return how many."""
    ended = sa.and_(SOFTWARE_RUNS.c.until_ms > 0, SOFTWARE_RUNS.c.until_ms < before_ms)
    return delete_some(connection, SOFTWARE_RUNS, limit, ended)


def delete_lists_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete lists first reported before ``before_ms`` of which no run is kept; return how many."""
    run = sa.exists().where(SOFTWARE_RUNS.c.list == SOFTWARE_LISTS.c.sha256)
    return delete_some(connection, SOFTWARE_LISTS, limit, SOFTWARE_LISTS.c.first_ms < before_ms, ~run)


def delete_components_before(connection: sa.Connection, before_ms: int, limit: int) -> int:  # noqa: ARG001 - a rule
    """Delete components of lists that are gone; return how many."""
    whole = sa.exists().where(SOFTWARE_LISTS.c.sha256 == SOFTWARE_COMPONENTS.c.list)
    return delete_some(connection, SOFTWARE_COMPONENTS, limit, ~whole)
