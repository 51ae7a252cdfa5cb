"""Users: people with a name, a role and a password, who log in on the pages and own personal tokens.

A user is disabled, not deleted: the name stays with what was done under it and is never given to another person. The
names of the two tokens in the state directory, and of the server itself, are nobody's.

Each change is an act in the log, in the same transaction. Sessions are ``server.access.sessions``'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.access.passwords import Passwords
from server.access.roles import PEOPLES, Role
from server.clock import Clock
from server.errors import UnknownUserError, UserRefusedError
from server.people import By, actor_of
from server.store.database import Database
from server.store.lists.paging import Page
from server.store.lists.people import user_page
from server.store.people import accounts as store
from wire.codec import Json

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
RESERVED = frozenset({"operator", "builder", "server", "admin", "root", "anybody"})
"""``operator`` and ``builder`` are the tokens of the state directory; the rest would be taken for something else."""

_END_SESSIONS = {"session_gen": store.USERS.c.session_gen + 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user. ``disabled_ms``: 0 while it may log in. A session of an earlier ``session_gen`` has ended."""

    name: str
    role: Role
    created_ms: int
    created_by: str
    disabled_ms: int = 0
    session_gen: int = 0
    last_login_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """All users of one server. Safe to share between threads."""

    database: Database
    passwords: Passwords
    clock: Clock

    def all(self) -> tuple[User, ...]:
        """Return every user, by name."""
        with self.database.begin() as connection:
            return tuple(map(_account, store.all_users(connection)))

    def page(
        self, *, search: str = "", role: str = "", disabled: bool | None = None, limit: int = 100,
        cursor: str | None = None,
    ) -> Page[User]:  # fmt: skip
        """Return a page of users by name; ``search``: words in it; ``disabled``: only those, or only the others.

        Raises:
            CursorRefusedError: If ``cursor`` is not the ``next`` of such a page.
        """
        with self.database.begin() as connection:
            return user_page(
                connection, search=search, role=role, disabled=disabled, limit=limit, cursor=cursor
            ).of(_account)  # fmt: skip

    def get(self, name: str) -> User:
        """Return one user.

        Raises:
            UnknownUserError: If there is none of that name.
        """
        found = self.find(name)
        if found is None:
            raise _unknown(name)
        return found

    def find(self, name: str) -> User | None:
        """Return one user, None if there is none of that name."""
        with self.database.begin() as connection:
            row = store.one_user(connection, name)
        return None if row is None else _account(row)

    def add(self, name: str, role: str, password: str, *, by: By) -> User:
        """Add a user.

        Raises:
            UserRefusedError: If the name is taken, reserved or unusable, or the role is none of a user.
            PasswordRefusedError: If the password is too short or too long.
            PasswordsUnavailableError: If argon2-cffi is not installed.
        """
        if not _NAME.fullmatch(name) or name in RESERVED:
            message = (
                f"Expected a name of 1 to 63 of a-z 0-9 . _ - that begins with a letter or digit and is none of "
                f"{', '.join(sorted(RESERVED))}, got {name[:80]!r}"
            )
            raise UserRefusedError(message)
        now_ms, actor = self.clock(), actor_of(by)
        row: dict[str, object] = {
            "name": name, "role": role_of(role).value, "password_hash": self.passwords.hashed(password),
            "created_ms": now_ms, "created_by": actor.name,
        }  # fmt: skip
        try:
            with self.database.begin() as connection:
                store.insert_user(connection, row)
                record_act(connection, by, "user.add", name, now_ms, data={"role": role_of(role).value})
        except sa.exc.IntegrityError as error:
            message = f"Expected a name that nobody has, got {name!r}: fleet-server users list shows them"
            raise UserRefusedError(message) from error
        return self.get(name)

    def set_role(self, name: str, role: str, *, by: By) -> User:
        """Give a user another role, from the next request on.

        Raises:
            UnknownUserError: If there is none of that name.
            UserRefusedError: If the role is none of a user.
        """
        new = role_of(role)
        return self._change(name, {"role": new.value}, by, "user.role", {"role": new.value})

    def disable(self, name: str, *, by: By) -> User:
        """End the sessions and tokens of a user, who can't log in any more.

        Raises:
            UnknownUserError: If there is none of that name.
        """
        return self._change(name, {"disabled_ms": self.clock(), **_END_SESSIONS}, by, "user.disable")

    def enable(self, name: str, *, by: By) -> User:
        """Let a disabled user log in again; sessions from before stay ended.

        Raises:
            UnknownUserError: If there is none of that name.
        """
        return self._change(name, {"disabled_ms": 0}, by, "user.enable")

    def set_password(self, name: str, password: str, *, by: By) -> User:
        """Give a user another password, and end the sessions from before.

        Raises:
            UnknownUserError: If there is none of that name.
            PasswordRefusedError: If the password is too short or too long.
            PasswordsUnavailableError: If argon2-cffi is not installed.
        """
        self.get(name)
        changes = {"password_hash": self.passwords.hashed(password), **_END_SESSIONS}
        return self._change(name, changes, by, "user.password")

    def end_sessions(self, name: str, *, by: By) -> User:
        """End every session of a user, in all browsers.

        Raises:
            UnknownUserError: If there is none of that name.
        """
        return self._change(name, _END_SESSIONS, by, "user.log_out_everywhere")

    def log_in(self, name: str, password: str) -> User | None:
        """Return the user whom name and password prove, and note the login.

        None for a wrong password, an unknown name and a disabled user alike, after the same time.

        Raises:
            PasswordsUnavailableError: If argon2-cffi is not installed.
        """
        with self.database.begin() as connection:
            row = store.one_user(connection, name)
        fits = self.passwords.fits(password, row["password_hash"] if row is not None else "")
        if row is None or not fits or row["disabled_ms"]:
            return None
        with self.database.begin() as connection:
            store.update_user(connection, name, {"last_login_ms": self.clock()})
        return _account(row)

    def password_hash(self, name: str) -> str:
        """Return the hash of a user's password, "" for a name that nobody has."""
        with self.database.begin() as connection:
            row = store.one_user(connection, name)
        return "" if row is None else str(row["password_hash"])

    def _change(
        self, name: str, changes: Mapping[str, object], by: By, act: str, data: Mapping[str, Json] | None = None
    ) -> User:
        with self.database.begin() as connection:
            if not store.update_user(connection, name, changes):
                raise _unknown(name)
            record_act(connection, by, act, name, self.clock(), data=data)
        return self.get(name)


def role_of(text: str) -> Role:
    """Return the role of a user.

    Raises:
        UserRefusedError: If it is none.
    """
    if text not in PEOPLES:
        message = f"Expected one of the roles {', '.join(PEOPLES)}, got {text[:80]!r}"
        raise UserRefusedError(message)
    return Role(text)


def _unknown(name: str) -> UnknownUserError:
    return UnknownUserError(f"Expected the name of a user, got {name[:80]!r}: fleet-server users list shows them")


def _account(row: sa.RowMapping) -> User:
    values = {str(key): value for key, value in row.items() if key != "password_hash"}
    return replace(User(**values), role=Role(row["role"]))
