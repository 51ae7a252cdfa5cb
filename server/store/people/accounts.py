"""Tables and queries of users and tokens. Only hashes of passwords and tokens are in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA

USERS = sa.Table(
    "users",
    METADATA,
    sa.Column("name", sa.String(63), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(100), nullable=False),
    sa.Column("disabled_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("session_gen", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("last_login_ms", sa.BigInteger, nullable=False, server_default="0"),
)

TOKENS = sa.Table(
    "tokens",
    METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(63), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(63), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("read_only", sa.Boolean, nullable=False),
    sa.Column("token_sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(100), nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("revoked_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("revoked_by", sa.String(100), nullable=False, server_default=""),
    sa.Column("last_used_ms", sa.BigInteger, nullable=False, server_default="0"),
)


def all_users(connection: sa.Connection) -> Sequence[sa.RowMapping]:
    """Return every user, by name."""
    return connection.execute(USERS.select().order_by(USERS.c.name)).mappings().all()


def one_user(connection: sa.Connection, name: str) -> sa.RowMapping | None:
    """Return one user."""
    return connection.execute(USERS.select().where(USERS.c.name == name)).mappings().first()


def insert_user(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a user; an ``IntegrityError`` means that the name is taken."""
    connection.execute(USERS.insert(), dict(row))


def update_user(connection: sa.Connection, name: str, changes: Mapping[str, object]) -> bool:
    """Change columns of one user; return whether there is one of that name."""
    return connection.execute(USERS.update().where(USERS.c.name == name).values(dict(changes))).rowcount == 1


def all_tokens(connection: sa.Connection) -> Sequence[sa.RowMapping]:
    """Return every token, the newest first."""
    query = TOKENS.select().order_by(TOKENS.c.created_ms.desc(), TOKENS.c.id)
    return connection.execute(query).mappings().all()


def one_token(connection: sa.Connection, token: str) -> sa.RowMapping | None:
    """Return the token with this id."""
    return connection.execute(TOKENS.select().where(TOKENS.c.id == token)).mappings().first()


def token_of(connection: sa.Connection, token_sha256: str) -> sa.RowMapping | None:
    """Return the token with this digest."""
    return connection.execute(TOKENS.select().where(TOKENS.c.token_sha256 == token_sha256)).mappings().first()


def insert_token(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a token."""
    connection.execute(TOKENS.insert(), dict(row))


def revoke_token(connection: sa.Connection, token: str, now_ms: int, by: str) -> sa.RowMapping | None:
    """Revoke a token unless it is revoked; return it as it was before, None if there is none of that id."""
    found = connection.execute(TOKENS.select().where(TOKENS.c.id == token)).mappings().first()
    unrevoked = TOKENS.update().where(TOKENS.c.id == token, TOKENS.c.revoked_ms == 0)
    connection.execute(unrevoked.values(revoked_ms=now_ms, revoked_by=by))
    return found


def touch_token(connection: sa.Connection, token: str, now_ms: int) -> None:
    """Note that a token was used at ``now_ms``."""
    connection.execute(TOKENS.update().where(TOKENS.c.id == token).values(last_used_ms=now_ms))
