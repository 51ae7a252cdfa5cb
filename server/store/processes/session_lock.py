"""Locks that a process has as long as its session with PostgreSQL lives: elections, and numbers that no two have.

PostgreSQL ends the lock with the session, so of a process that was killed at once, and of a host that vanished after
some seconds without an answer to its probes. SQLite has no such thing, and no need: one process serves it.

Source: PostgreSQL manual, "Advisory Locks", 13.3.5; "Connection Settings", 20.3.2 (tcp_keepalives_*).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from server.errors import DatabaseRefusedError
from server.store.database import connect, next_step

DECIDER = 0x74660001
"""The lock of the process that decides: number 0 alone."""
INGEST = 0x74660002
"""The locks of the processes that ingest, one number each."""
_PROBES = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3"
_TAKE = sa.text("SELECT pg_try_advisory_lock(:kind, :number)")


@dataclass(slots=True, kw_only=True)
class SessionLock:
    """One lock of this process. Only one thread uses it."""

    engine: sa.Engine
    kind: int
    number: int
    _connection: sa.Connection | None = None

    def is_held(self) -> bool:
        """Return whether the session still lives, and the lock with it."""
        if self._connection is None:
            return False
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except sa.exc.DBAPIError:
            self._drop()
            return False
        return True

    def take(self) -> bool:
        """Open a session if there is none, and take the lock; return whether no other process has it.

        Raises:
            DatabaseRefusedError: If the database does not answer.
        """
        try:
            if self._connection is None:
                self._connection = self.engine.connect()
                self._connection.exec_driver_sql(_PROBES)
            taken = bool(self._connection.execute(_TAKE, {"kind": self.kind, "number": self.number}).scalar_one())
        except sa.exc.DBAPIError as error:
            self._drop()
            message = f"Expected a database that answers, got: {error.orig}: {next_step(error)}"
            raise DatabaseRefusedError(message) from error
        if not taken:
            self._drop()
        return taken

    def release(self) -> None:
        """End the session: another process may have the lock."""
        self._drop()
        self.engine.dispose()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sa.exc.DBAPIError):
                connection.invalidate()  # closed, not returned to a pool
                connection.close()


def is_shareable(url: str) -> bool:
    """Return whether several processes can serve the database at ``url``.

    Raises:
        DatabaseUnavailableError: If the URL or its driver can't be used.
    """
    engine = connect(url)
    engine.dispose()
    return engine.dialect.name == "postgresql"


def take_first(url: str, kind: int, numbers: Iterable[int]) -> SessionLock | None:
    """Return the lock of the first of ``numbers`` that no process has, held; None if all are taken.

    Raises:
        DatabaseUnavailableError: If the URL or its driver can't be used.
        DatabaseRefusedError: If the database does not answer.
    """
    engine = connect(url).execution_options(isolation_level="AUTOCOMMIT")
    for number in numbers:
        lock = SessionLock(engine=engine, kind=kind, number=number)
        if lock.take():
            return lock
    engine.dispose()
    return None
