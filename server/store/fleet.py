"""Tables and queries of devices, enrolment claims and commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from server.store.database import METADATA, delete_some
from server.store.lists.changed_rows import change_column

DEVICES = sa.Table(
    "devices",
    METADATA,
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("site", sa.String(63), nullable=False),
    sa.Column("attributes", sa.JSON, nullable=False),
    sa.Column("password_hash", sa.String(200), nullable=False),
    sa.Column("enrolled_ms", sa.BigInteger, nullable=False),
    sa.Column("last_seen_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("clock_skew_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("state", sa.String(16), nullable=False, default="init"),
    sa.Column("reported", sa.Text),
    sa.Column("desired", sa.Text),
    sa.Column("desired_gen", sa.BigInteger, nullable=False, default=0),
    sa.Column("ended", sa.String(16), nullable=False, default="", server_default=""),
    sa.Column("ended_ms", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("ended_why", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("tags", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("title", sa.String(100), nullable=False, default="", server_default=""),
    sa.Column("muted_ms", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("muted_until_ms", sa.BigInteger, nullable=False, default=0, server_default="0"),
    sa.Column("muted_why", sa.Text, nullable=False, default="", server_default=""),
    sa.Column("muted_by", sa.Text, nullable=False, default="", server_default=""),
    change_column("devices"),
)

_NAMES = postgresql.ARRAY(sa.String)
NEVER_CONNECTED = {"state": "init", "last_seen_ms": 0, "clock_skew_ms": 0, "reported": None}

CLAIMS = sa.Table(
    "claims",
    METADATA,
    sa.Column("claim_sha256", sa.String(64), primary_key=True),
    sa.Column("site", sa.String(63), nullable=False),
    sa.Column("device", sa.String(63), nullable=False),
    sa.Column("attributes", sa.JSON, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("used_ms", sa.BigInteger, nullable=False, default=0),
)

COMMANDS = sa.Table(
    "commands",
    METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("verb", sa.String(63), nullable=False),
    sa.Column("issued_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("answered_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("ok", sa.Boolean, nullable=False, default=False),
    sa.Column("code", sa.String(64), nullable=False, default=""),
    sa.Column("text", sa.Text, nullable=False, default=""),
    sa.Column("data", sa.JSON, nullable=False, default=dict),
)


def active_devices(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every device that is neither revoked nor removed, by id."""
    query = DEVICES.select().where(DEVICES.c.ended == "").order_by(DEVICES.c.device)
    return list(connection.execute(query).mappings())


def ended_since(connection: sa.Connection) -> dict[str, int]:
    """Return when each device that was revoked or removed ended, by id."""
    query = sa.select(DEVICES.c.device, DEVICES.c.ended_ms).where(DEVICES.c.ended != "")
    return {str(device): int(at_ms) for device, at_ms in connection.execute(query)}


def one_device(connection: sa.Connection, device: str) -> sa.RowMapping | None:
    """Return one device."""
    return connection.execute(DEVICES.select().where(DEVICES.c.device == device)).mappings().first()


def sites_of(connection: sa.Connection, devices: Collection[str]) -> dict[str, str]:
    """Return the sites of ``devices``, by id; a device that is not registered is left out."""
    query = sa.select(DEVICES.c.device, DEVICES.c.site).where(DEVICES.c.device.in_(devices), DEVICES.c.ended == "")
    return {row.device: row.site for row in connection.execute(query)}


def ended_of(connection: sa.Connection, devices: Collection[str]) -> Sequence[sa.RowMapping]:
    """Return those of ``devices`` that were revoked or removed."""
    query = DEVICES.select().where(DEVICES.c.device.in_(devices), DEVICES.c.ended != "")
    return connection.execute(query).mappings().all()


def skews_of(connection: sa.Connection, devices: Collection[str]) -> dict[str, int]:
    """Return how far the clocks of ``devices`` are off in ms, 0 for right ones, by id."""
    if not devices:
        return {}
    query = sa.select(DEVICES.c.device, DEVICES.c.clock_skew_ms).where(DEVICES.c.device.in_(devices))
    return {name: int(skew_ms) for name, skew_ms in connection.execute(query)}


def reports_of(connection: sa.Connection, devices: Collection[str]) -> dict[str, str | None]:
    """Return the last report of each of ``devices`` that has a row, by id; None: it has sent none."""
    if not devices:
        return {}
    query = sa.select(DEVICES.c.device, DEVICES.c.reported).where(DEVICES.c.device.in_(devices))
    return {name: text for name, text in connection.execute(query)}  # noqa: C416 - a row is no pair to mypy


def devices_with_skew(connection: sa.Connection, devices: Collection[str]) -> frozenset[str]:
    """Return those of ``devices`` whose clock is known to be off."""
    query = sa.select(DEVICES.c.device).where(DEVICES.c.device.in_(devices), DEVICES.c.clock_skew_ms != 0)
    return frozenset(connection.execute(query).scalars())


def insert_device(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a device; an ``IntegrityError`` means that the id is taken."""
    connection.execute(DEVICES.insert(), dict(row))


def update_device(connection: sa.Connection, device: str, changes: Mapping[str, object]) -> bool:
    """Change columns of one device; return whether it exists."""
    return connection.execute(DEVICES.update().where(DEVICES.c.device == device).values(dict(changes))).rowcount == 1


def end_mute(connection: sa.Connection, device: str, until_ms: int, changes: Mapping[str, object]) -> bool:
    """Change columns of one device whose mute still ends at ``until_ms``; return whether it did."""
    query = DEVICES.update().where(DEVICES.c.device == device, DEVICES.c.muted_until_ms == until_ms)
    return connection.execute(query.values(dict(changes))).rowcount == 1


def update_devices(connection: sa.Connection, changes: Mapping[str, Mapping[str, object]]) -> None:
    """Change columns of many devices, by id, in as many statements as there are different sets of columns."""
    alike: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for device in sorted(changes):
        alike.setdefault(tuple(sorted(changes[device])), []).append({"_device": device, **changes[device]})
    for columns, rows in sorted(alike.items()):
        values: dict[str, sa.BindParameter[object]] = {name: sa.bindparam(name) for name in columns}
        connection.execute(DEVICES.update().where(DEVICES.c.device == sa.bindparam("_device")).values(values), rows)


def hold_devices(connection: sa.Connection, devices: Collection[str]) -> None:
    """Let no other process store messages of ``devices`` until this transaction ends; waits for those that do.

    On PostgreSQL, where several processes ingest: what each has counted of a stream, and the windows that it merges
    into, must not change meanwhile. Locked in one order, so that no two wait for each other. SQLite's one process
    has one thread that ingests.
    """
    if devices and connection.dialect.name == "postgresql":
        query = sa.select(sa.literal(1)).where(DEVICES.c.device == sa.any_(sa.literal(sorted(devices), _NAMES)))
        connection.execute(query.order_by(DEVICES.c.device).with_for_update(key_share=True)).all()


def touch_devices(connection: sa.Connection, devices: list[str], now_ms: int) -> None:
    """Set ``last_seen_ms`` of ``devices`` to ``now_ms``."""
    if devices:
        connection.execute(DEVICES.update().where(DEVICES.c.device.in_(devices)).values(last_seen_ms=now_ms))


def insert_claim(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add an enrolment claim."""
    connection.execute(CLAIMS.insert(), dict(row))


def use_claim(connection: sa.Connection, claim_sha256: str, now_ms: int) -> sa.RowMapping | None:
    """Mark a claim used and return it; None if it is unknown, used or expired. One statement, so no race."""
    statement = (
        CLAIMS.update()
        .where(CLAIMS.c.claim_sha256 == claim_sha256, CLAIMS.c.used_ms == 0, CLAIMS.c.expires_ms > now_ms)
        .values(used_ms=now_ms)
        .returning(*CLAIMS.c)
    )
    return connection.execute(statement).mappings().first()


def reopen_claim(connection: sa.Connection, claim_sha256: str) -> None:
    """Mark a claim as not used."""
    connection.execute(CLAIMS.update().where(CLAIMS.c.claim_sha256 == claim_sha256).values(used_ms=0))


def claim_of(connection: sa.Connection, claim_sha256: str) -> sa.RowMapping | None:
    """Return a claim, used or not."""
    return connection.execute(CLAIMS.select().where(CLAIMS.c.claim_sha256 == claim_sha256)).mappings().first()


def void_claims(connection: sa.Connection, device: str, now_ms: int) -> None:
    """Mark every unused claim for ``device`` as used."""
    where = (CLAIMS.c.device == device, CLAIMS.c.used_ms == 0)
    connection.execute(CLAIMS.update().where(*where).values(used_ms=now_ms))


def insert_command(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a command that is about to be sent."""
    connection.execute(COMMANDS.insert(), dict(row))


def answer_command(connection: sa.Connection, device: str, command: str, answer: Mapping[str, object]) -> bool:
    """Record the first answer of ``device`` to ``command``; return whether it was awaited."""
    statement = (
        COMMANDS.update()
        .where(COMMANDS.c.id == command, COMMANDS.c.device == device, COMMANDS.c.answered_ms == 0)
        .values(dict(answer))
    )
    return connection.execute(statement).rowcount == 1


def one_command(connection: sa.Connection, command: str) -> sa.RowMapping | None:
    """Return one command with its answer."""
    return connection.execute(COMMANDS.select().where(COMMANDS.c.id == command)).mappings().first()


def newest_command(connection: sa.Connection, device: str, verb: str) -> sa.RowMapping | None:
    """Return the command of one verb that was sent to ``device`` last."""
    query = COMMANDS.select().where(COMMANDS.c.device == device, COMMANDS.c.verb == verb)
    return connection.execute(query.order_by(COMMANDS.c.issued_ms.desc()).limit(1)).mappings().first()


def delete_claims_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete claims that could be used until ``before_ms``, used or not; return how many."""
    return delete_some(connection, CLAIMS, limit, CLAIMS.c.expires_ms < before_ms)


def delete_commands_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete commands that were valid until ``before_ms``, but the newest of each verb and device; return how many."""
    later = COMMANDS.alias()
    newer = sa.exists().where(
        later.c.device == COMMANDS.c.device, later.c.verb == COMMANDS.c.verb, later.c.issued_ms > COMMANDS.c.issued_ms
    )
    return delete_some(
        connection, COMMANDS, limit, COMMANDS.c.issued_ms < before_ms, COMMANDS.c.expires_ms < before_ms, newer
    )


def desired_texts(connection: sa.Connection, devices: list[str]) -> dict[str, str]:
    """Return the ``desired`` of those of ``devices`` that have one, by device."""
    if not devices:
        return {}
    query = sa.select(DEVICES.c.device, DEVICES.c.desired).where(DEVICES.c.device.in_(devices))
    return {row.device: row.desired for row in connection.execute(query.where(DEVICES.c.desired.is_not(None)))}


RAN = sa.Table(
    "ran",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("release", sa.String(200), nullable=False, index=True),
    sa.Column("sha256", sa.String(64), nullable=False),
    sa.Column("gen", sa.BigInteger, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
)


def insert_ran(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Record that a release runs from ``from_ms`` on."""
    connection.execute(RAN.insert(), dict(row))


def latest_from_ms(connection: sa.Connection, device: str) -> int:
    """Return when the newest transition of ``device`` was, 0 when there is none."""
    return int(connection.execute(sa.select(sa.func.max(RAN.c.from_ms)).where(RAN.c.device == device)).scalar() or 0)


def ran_at(connection: sa.Connection, device: str, at_ms: int) -> sa.RowMapping | None:
    """Return what ran at ``at_ms``: the last transition at or before it."""
    query = RAN.select().where(RAN.c.device == device, RAN.c.from_ms <= at_ms)
    return connection.execute(query.order_by(RAN.c.from_ms.desc(), RAN.c.id.desc()).limit(1)).mappings().first()


def ran_history(connection: sa.Connection, device: str) -> list[sa.RowMapping]:
    """Return every transition of a device, oldest first."""
    query = RAN.select().where(RAN.c.device == device).order_by(RAN.c.from_ms, RAN.c.id)
    return list(connection.execute(query).mappings())
