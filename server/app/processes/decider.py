"""One process serves a fleet: it has the state directory, and of a PostgreSQL database the lock of who decides.

The decider serves HTTP, runs the broker, and has every service that decides (drift, rollouts, retraining, liveness,
retention); it ingests too. Others stand by, or only ingest (``ingest_process``). See ADR 78.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from server.app.state_directory import SERVER, StateDirectory, StateDirectoryLock, lock_state
from server.errors import AlreadyRunningError, DatabaseRefusedError, PortInUseError
from server.store.processes.session_lock import DECIDER, SessionLock, is_shareable, take_first

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0
Opened = TypeVar("Opened")


@dataclass(slots=True, kw_only=True)
class Decider:
    """The right of this process to decide for the fleet. ``deposed`` is set when another process has it."""

    directory: StateDirectoryLock
    session: SessionLock | None
    deposed: threading.Event = field(default_factory=threading.Event)

    def turn(self) -> None:
        """Check that the right is still ours; take it again after the database was away, unless another has it.

        Raises:
            DatabaseRefusedError: If the database does not answer: then no other process can take it either.
        """
        if self.session is None or self.deposed.is_set() or self.session.is_held():
            return
        if self.session.take():
            _LOG.warning("The session with the database was lost; this process decides again.")
        else:
            _LOG.error("Another process decides for this fleet now: this one ends.")
            self.deposed.set()

    def release(self) -> None:
        """Let another process decide."""
        if self.session is not None:
            self.session.release()
        self.directory.release()


def elect(state: StateDirectory, url: str, what: str = SERVER) -> Decider:
    """Return the right to decide for the fleet whose database is at ``url``; ``what`` names the holder to others.

    Raises:
        AlreadyRunningError: If another process has the directory or the database.
        DatabaseUnavailableError: If the URL or its driver can't be used.
        DatabaseRefusedError: If PostgreSQL does not answer.
    """
    directory = lock_state(state, what)
    try:
        return Decider(directory=directory, session=_session(url) if is_shareable(url) else None)
    except BaseException:
        directory.release()
        raise


def _session(url: str) -> SessionLock:
    session = take_first(url, DECIDER, (0,))
    if session is None:
        message = (
            "Expected no other server on this database, got a running one, on another directory or host: end that "
            "first, or start this one with --standby, to take over when the other ends"
        )
        raise AlreadyRunningError(message)
    return session


def when_elected(
    open_server: Callable[[], Opened], wait: Callable[[float], bool], said: Callable[[str], None]
) -> Opened | None:  # fmt: skip
    """Return what ``open_server`` returns once no other server runs; None if ``wait`` returns that it shall end.

    ``wait`` waits for so many seconds; ``said`` gets the reason for waiting, whenever that changes.
    """
    reason = ""
    while True:
        try:
            return open_server()
        except (AlreadyRunningError, PortInUseError, DatabaseRefusedError) as error:  # the last: it may be restarting
            if error.code != reason:
                reason = error.code
                waits = isinstance(error, AlreadyRunningError)
                said("another server runs: takes over when that ends" if waits else str(error))
        if wait(_LOOK_S):
            return None


def watch(decider: Decider, stopping: threading.Event) -> None:
    """Call ``turn`` of ``decider`` every second until ``stopping`` is set: a thread of its own."""
    while not stopping.wait(_LOOK_S):
        try:
            decider.turn()
        except DatabaseRefusedError as error:
            _LOG.warning("The database does not answer; nobody decides meanwhile. reason=%s", error)
