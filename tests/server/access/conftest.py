"""A database with people, at the cost of passwords that tests can afford, and a clock that a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.access.audit_log import AuditLog
from server.access.limits import LoginLimits
from server.access.logins import Logins
from server.access.passwords import Passwords
from server.access.roles import Role
from server.access.sessions import SessionStore
from server.access.tokens import Tokens
from server.access.users import Users
from server.store.database import Database, open_database

HOUR_MS = 3_600_000
PASSWORD = "a long enough password"
FILE_TOKEN = "operator-token-with-enough-letters"


@dataclass(slots=True)
class Clock:
    """A clock that a test moves."""

    now_ms: int = 100 * HOUR_MS

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms


@dataclass(frozen=True, kw_only=True)
class House:
    """The parts of access on one database."""

    clock: Clock
    database: Database
    users: Users
    tokens: Tokens
    logins: Logins
    log: AuditLog

    def log_in(self, name: str = "ada", password: str = PASSWORD, address: str = "192.0.2.1", proof: str = "") -> str:
        """Return the cookie of a login, "" if it was refused."""
        return self.logins.log_in(name, password, address=address, proof=proof).cookie


def house_on(database: Database) -> House:
    """Return the parts of access on ``database``."""
    clock = Clock()
    users = Users(database=database, passwords=Passwords(memory_kib=64, passes=1), clock=clock)
    sessions = SessionStore(
        users=users, clock=clock, file_role=Role.APPROVER, idle_ms=4 * HOUR_MS, life_ms=12 * HOUR_MS
    )
    log, limits = AuditLog(database), LoginLimits(clock=clock)
    logins = Logins(
        users=users, sessions=sessions, limits=limits, log=log, operator_token=FILE_TOKEN, clock=clock
    )  # fmt: skip
    tokens = Tokens(database=database, users=users, clock=clock)
    return House(clock=clock, database=database, users=users, tokens=tokens, logins=logins, log=log)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """The parts of access on an empty SQLite database."""
    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    yield house_on(database)
    database.close()
