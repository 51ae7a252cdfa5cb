"""Tables and queries of devices, enrolment claims and commands."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from server.store.database import METADATA

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
)

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


def all_devices(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return every device, by id."""
    return list(connection.execute(DEVICES.select().order_by(DEVICES.c.device)).mappings())


def one_device(connection: sa.Connection, device: str) -> sa.RowMapping | None:
    """Return one device."""
    return connection.execute(DEVICES.select().where(DEVICES.c.device == device)).mappings().first()


def sites_of(connection: sa.Connection, devices: Collection[str]) -> dict[str, str]:
    """Return the sites of ``devices``, by id; a device that is not registered is left out."""
    query = sa.select(DEVICES.c.device, DEVICES.c.site).where(DEVICES.c.device.in_(devices))
    return {row.device: row.site for row in connection.execute(query)}


def insert_device(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a device; an ``IntegrityError`` means that the id is taken."""
    connection.execute(DEVICES.insert(), dict(row))


def update_device(connection: sa.Connection, device: str, changes: Mapping[str, object]) -> bool:
    """Change columns of one device; return whether it exists."""
    return connection.execute(DEVICES.update().where(DEVICES.c.device == device).values(dict(changes))).rowcount == 1


def touch_devices(connection: sa.Connection, devices: list[str], now_ms: int) -> None:
    """Note that ``devices`` were heard at ``now_ms``."""
    if devices:
        connection.execute(DEVICES.update().where(DEVICES.c.device.in_(devices)).values(last_seen_ms=now_ms))


def insert_claim(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add an enrolment claim."""
    connection.execute(CLAIMS.insert(), dict(row))


def use_claim(connection: sa.Connection, claim_sha256: str, now_ms: int) -> sa.RowMapping | None:
    """Mark a claim used and return it; None when it is unknown, used or expired. One statement: no race."""
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


def desired_gens(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return device, site, gen and text of every ``desired`` that was ever set."""
    query = sa.select(DEVICES.c.device, DEVICES.c.site, DEVICES.c.desired_gen.label("gen"), DEVICES.c.desired)
    return list(connection.execute(query.where(DEVICES.c.desired.is_not(None))).mappings())
