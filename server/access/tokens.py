"""Tokens of programs: personal ones, which act as their owner, and service tokens with a name of their own.

A token is shown once and stored as its SHA-256. A slow hash, as for passwords, would protect nothing: a token is 256
random bits, which nobody guesses however cheap a guess is, and it is checked with every request.

A personal token can do at most what its owner may at that moment. The tokens in the files ``operator.token`` and
``builder.token`` of the state directory are service tokens too; they are not in this table, do not expire, and change
with their file.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, replace
from enum import StrEnum

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.access.roles import PEOPLES, Principal, Role, lower
from server.access.users import RESERVED, Users, role_of
from server.clock import Clock
from server.errors import TokenRefusedError, UnknownTokenError
from server.people import Actor, ActorKind, By, actor_of
from server.store.database import Database
from server.store.lists.paging import Page
from server.store.lists.people import token_page
from server.store.people import accounts as store
from wire.canonical import sha256_hex

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_PREFIX = "tft_"  # so that scanners for secrets recognise one
_USED_EVERY_MS = 60_000  # "last used" is exact to a minute, and costs no write with each request
_DAY_MS = 86_400_000
MAX_DAYS = 3_650.0


class TokenKind(StrEnum):
    """Whose token it is."""

    PERSONAL = "personal"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A token, without its secret. ``owner``: of a personal one. ``expires_ms``: 0 for never."""

    id: str
    name: str
    kind: TokenKind
    owner: str
    role: Role
    read_only: bool
    created_ms: int
    created_by: str
    expires_ms: int
    revoked_ms: int = 0
    revoked_by: str = ""
    last_used_ms: int = 0

    def is_valid(self, now_ms: int) -> bool:
        """Return whether it is neither revoked nor expired."""
        return not self.revoked_ms and (self.expires_ms == 0 or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOrder:
    """A wanted token. ``owner``: the user whose personal token it is, "" for a service token.

    ``days``: until it expires, 0 for never.
    """

    name: str
    role: str
    owner: str = ""
    read_only: bool = False
    days: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """All tokens of one server. Safe to share between threads."""

    database: Database
    users: Users
    clock: Clock

    def issue(self, order: TokenOrder, *, by: By) -> tuple[IssuedToken, str]:
        """Return a new token and its secret, which nobody can read again.

        Raises:
            UnknownUserError: If ``owner`` is no user.
            UserRefusedError: If the role is none of a person.
            TokenRefusedError: If the name is unusable, the role is above the owner's, or ``days`` are out of range.
        """
        role, now_ms = self._checked(order), self.clock()
        secret, identity = _PREFIX + secrets.token_urlsafe(32), secrets.token_hex(4)
        row: dict[str, object] = {
            "id": identity, "name": order.name, "owner": order.owner, "role": role.value,
            "kind": (TokenKind.PERSONAL if order.owner else TokenKind.SERVICE).value, "read_only": order.read_only,
            "token_sha256": sha256_hex(secret.encode()), "created_ms": now_ms, "created_by": actor_of(by).name,
            "expires_ms": now_ms + int(order.days * _DAY_MS) if order.days else 0,
        }  # fmt: skip
        data = {
            "id": identity, "kind": str(row["kind"]), "owner": order.owner, "role": role.value,
            "read_only": order.read_only, "expires_ms": int(str(row["expires_ms"])),
        }  # fmt: skip
        with self.database.begin() as connection:
            store.insert_token(connection, row)
            record_act(connection, by, "token.issue", order.name, now_ms, data=data)
        return self.get(identity), secret

    def _checked(self, order: TokenOrder) -> Role:
        if not _NAME.fullmatch(order.name) or order.name in RESERVED:
            message = f"Expected a token's name of 1 to 63 of a-z 0-9 . _ - that is not reserved, got {order.name!r}"
            raise TokenRefusedError(message)
        if not 0 <= order.days <= MAX_DAYS:
            raise TokenRefusedError(f"Expected 0 to {MAX_DAYS:.0f} days, got {order.days}: 0 is for ever")
        if order.role == Role.BUILDER and not order.owner:
            return Role.BUILDER
        role = role_of(order.role)
        if order.owner and PEOPLES.index(role) > PEOPLES.index(self.users.get(order.owner).role):
            held = self.users.get(order.owner).role
            message = (
                f"Expected a role up to {held}, which {order.owner} has, got {role}: give the user that role first"
            )
            raise TokenRefusedError(message)
        return role

    def all(self) -> tuple[IssuedToken, ...]:
        """Return every token, the newest first."""
        with self.database.begin() as connection:
            return tuple(map(_issued, store.all_tokens(connection)))

    def page(
        self, *, search: str = "", owner: str = "", valid: bool | None = None, limit: int = 100,
        cursor: str | None = None,
    ) -> Page[IssuedToken]:  # fmt: skip
        """Return a page of tokens, the newest first.

        ``search``: words in name or owner; ``valid``: only those that are valid now, or only the others.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            return token_page(
                connection, search=search, owner=owner, valid=valid, now_ms=self.clock(), limit=limit, cursor=cursor
            ).of(_issued)  # fmt: skip

    def get(self, token: str) -> IssuedToken:
        """Return the token with this id.

        Raises:
            UnknownTokenError: If there is none.
        """
        row = self.database.row(lambda connection: store.one_token(connection, token[:80]), _unknown(token))
        return _issued(row)

    def revoke(self, token: str, *, by: By) -> IssuedToken:
        """Refuse the token with this id from the next request on; a second time changes nothing.

        Raises:
            UnknownTokenError: If there is none of that id.
        """
        now_ms = self.clock()
        with self.database.begin() as connection:
            before = store.revoke_token(connection, token, now_ms, actor_of(by).name)
            if before is None:
                raise _unknown(token)
            if not before["revoked_ms"]:
                data = {"id": token, "owner": str(before["owner"])}
                record_act(connection, by, "token.revoke", str(before["name"]), now_ms, data=data)
        return self.get(token)

    def principal(self, secret: str, address: str = "") -> Principal | None:
        """Return whom ``secret`` proves; None if it is unknown, revoked or expired, or its owner is disabled."""
        if not secret.startswith(_PREFIX):
            return None
        now_ms = self.clock()
        with self.database.begin() as connection:
            row = store.token_of(connection, sha256_hex(secret.encode(errors="replace")))
        if row is None or not _issued(row).is_valid(now_ms):
            return None
        token, role = _issued(row), Role(row["role"])
        if token.owner:
            owner = self.users.find(token.owner)
            if owner is None or owner.disabled_ms:
                return None
            role = lower(role, owner.role)
        if now_ms - token.last_used_ms >= _USED_EVERY_MS:
            with self.database.begin() as connection:
                store.touch_token(connection, token.id, now_ms)
        kind = ActorKind.USER if token.owner else ActorKind.TOKEN
        actor = Actor(account=token.owner or token.name, kind=kind, through=token.id, address=address)
        return Principal(actor=actor, role=role, read_only=token.read_only)


def _unknown(token: str) -> UnknownTokenError:
    return UnknownTokenError(f"Expected the id of a token, got {token[:80]!r}: fleet-server tokens list shows them")


def _issued(row: sa.RowMapping) -> IssuedToken:
    values = {str(key): value for key, value in row.items() if key != "token_sha256"}
    return replace(IssuedToken(**values), kind=TokenKind(row["kind"]), role=Role(row["role"]))
