"""The table of new places, and its queries: what devices there were asked for, what labels show, who accepted one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.fleet import DEVICES
from server.store.monitoring.evidence import VERDICTS

_DECIDES = ("accepted", "harmless")  # the states by which a place is not reported again

PLACES = sa.Table(
    "places",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("site", sa.String(63), nullable=False),
    sa.Column("model", sa.String(127), nullable=False),
    sa.Column("release", sa.String(127), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("asks", sa.Integer, nullable=False),
    sa.Column("asked_ms", sa.BigInteger, nullable=False),
    sa.Column("request", sa.String(64), nullable=False),
    sa.Column("audited", sa.Integer, nullable=False),
    sa.Column("wrong", sa.Float, nullable=False),
    sa.Column("lower_risk", sa.Float, nullable=False),
    sa.Column("upper_risk", sa.Float, nullable=False),
    sa.Column("source_risk", sa.Float, nullable=False),
    sa.Column("decided_ms", sa.BigInteger, nullable=False),
    sa.Column("decided_by", sa.String(100), nullable=False),
    sa.Column("why", sa.String(500), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)


def all_places(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every place, the newest verdict first."""
    return list(connection.execute(PLACES.select().order_by(PLACES.c.verdict.desc())).mappings())


def verdicts_of_places(connection: sa.Connection, state: str) -> set[int]:
    """Return the verdicts of the places in ``state``, by id."""
    return set(connection.execute(sa.select(PLACES.c.verdict).where(PLACES.c.state == state)).scalars())


def newest_place(connection: sa.Connection, device: str) -> sa.RowMapping | None:
    """Return the newest place of ``device``."""
    query = PLACES.select().where(PLACES.c.device == device).order_by(PLACES.c.verdict.desc()).limit(1)
    return connection.execute(query).mappings().first()


def places_of(connection: sa.Connection, verdicts: Collection[int]) -> list[sa.RowMapping]:
    """Return the places of ``verdicts``."""
    return list(connection.execute(PLACES.select().where(PLACES.c.verdict.in_(list(verdicts)))).mappings())


def place_of(connection: sa.Connection, verdict: int) -> sa.RowMapping | None:
    """Return the place of a verdict."""
    return connection.execute(PLACES.select().where(PLACES.c.verdict == verdict)).mappings().first()


def insert_place(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add the place of a verdict."""
    connection.execute(PLACES.insert(), dict(row))


def update_place(connection: sa.Connection, verdict: int, values: Mapping[str, object], *, undecided: bool) -> bool:
    """Change the place of a verdict; return whether there was one, with ``undecided`` one that nobody had decided."""
    query = PLACES.update().where(PLACES.c.verdict == verdict).values(**values)
    if undecided:
        query = query.where(PLACES.c.decided_ms == 0)
    return bool(connection.execute(query).rowcount)


def update_places_of(connection: sa.Connection, devices: Sequence[str], values: Mapping[str, object]) -> None:
    """Change all places of ``devices``, one statement for any number of devices."""
    statement = PLACES.update().where(PLACES.c.device == sa.bindparam("of_device")).values(**values)
    connection.execute(statement, [{"of_device": device} for device in devices])


def delete_places_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete places whose verdict is gone and that decide nothing any more; return how many.

    An acceptance, and what labels showed to be harmless, count as long as the device is in the fleet.
    """
    open_, there = sa.exists().where(VERDICTS.c.id == PLACES.c.verdict), sa.exists().where(
        DEVICES.c.device == PLACES.c.device, DEVICES.c.ended == ""
    )  # fmt: skip
    old = (~open_, PLACES.c.decided_ms < before_ms, sa.or_(PLACES.c.state.not_in(_DECIDES), ~there))
    return delete_some(connection, PLACES, limit, *old)
