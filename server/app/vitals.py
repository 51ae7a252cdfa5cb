"""The server's health checks, with texts for the person who has to act.

1. A check can't go stale: a loop or service that has not completed its work for ``LATE_S`` is unhealthy, whatever it
   reported last.
2. The database is written, not only read: on a full disk reading still works.
3. Cheap checks (disk, connection, inbox) run on every request; the write is done by ``turn``, because requests are
   not limited in number.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from server.config import HealthConfig
from server.errors import ServerError
from server.ingest.ingest import Ingest
from server.registry.events import EventLog
from server.store.database import Database
from server.store.heartbeat import put_heartbeat
from server.wording import listed
from wire.messages import Severity
from wire.transport import Transport

_LOG = logging.getLogger(__name__)
LATE_S = 120.0
_WRITE_EVERY_MS = 15_000
_MAX_LAG_S = 60.0
_DATABASE = "database"
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Sign:
    """One health check; ``text`` describes the state and, if unhealthy, what to do."""

    name: str
    ok: bool
    text: str


@dataclass(slots=True, kw_only=True)
class Vitals:
    """The health of one server. Any thread may read it; each loop sends its own heartbeats."""

    database: Database
    events: EventLog
    ingest: Ingest
    transport: Transport
    folder: Path
    config: HealthConfig
    _beats: dict[str, int] = field(default_factory=dict)
    _faults: dict[str, str] = field(default_factory=dict)
    _begun: set[str] = field(default_factory=set)
    _write_ms: int = 0
    _bad: str = ""
    _unwell: str = ""
    _unwell_ms: int = 0

    def expect(self, names: Iterable[str], now_ms: int) -> None:
        """Watch ``names`` from now on: each must call ``beat`` regularly."""
        self._beats |= dict.fromkeys(names, now_ms)

    def beat(self, name: str, now_ms: int) -> None:
        """Record that ``name`` completed its work."""
        self._beats[name] = now_ms
        self._begun.add(name)
        self._faults.pop(name, None)

    def fault(self, name: str, text: str) -> None:
        """Record that ``name`` failed; it stays unhealthy until its next ``beat``."""
        self._faults[name] = text

    def turn(self, now_ms: int) -> None:
        """Write to the database every 15 s; log an event when the server becomes unhealthy or healthy."""
        if 0 <= now_ms - self._write_ms < _WRITE_EVERY_MS:
            return
        self._write_ms = now_ms
        try:
            with self.database.begin() as connection:
                put_heartbeat(connection, now_ms)
            self._faults.pop(_DATABASE, None)
        except (sa.exc.SQLAlchemyError, ServerError, OSError) as error:
            self._faults[_DATABASE] = (
                str(error) if isinstance(error, ServerError) else f"Expected to write, got: {error}"
            )
        self._note([sign for sign in self.signs(now_ms) if not sign.ok], now_ms)

    def _note(self, bad: Sequence[Sign], now_ms: int) -> None:
        """Log a change of health as an event; a check that fails only once (a broker restarting) is no event."""
        before, self._bad = self._bad, "; ".join(f"{sign.name}: {sign.text}" for sign in bad)
        try:
            if self._bad and before and not self._unwell_ms:
                self._unwell_ms, self._unwell = now_ms, self._bad
                _LOG.error("The server is unwell. signs=%s", self._bad)
                self.events.add(now_ms, "server", "unwell", Severity.ERROR, self._bad)
            elif not self._bad and self._unwell_ms:
                lasted_s = (now_ms - self._unwell_ms) / 1000
                text = f"Healthy again after {lasted_s:.0f} s. The cause was: {self._unwell}"
                self.events.add(now_ms, "server", "well", Severity.INFO, text)
                self._unwell_ms = 0
        except (
            sa.exc.SQLAlchemyError,
            ServerError,
            OSError,
        ) as error:  # a full disk can't store the event; it is logged later
            _LOG.warning("The event log can't be written. error=%s", error)

    def signs(self, now_ms: int) -> tuple[Sign, ...]:
        """Return the result of every check at ``now_ms``."""
        loops = [self._loop(name, beat_ms, now_ms) for name, beat_ms in sorted(self._beats.items())]
        return (self._database(), self._disk(), self._broker(), self._inbox(), *loops)

    def readiness(self) -> tuple[Sign, ...]:
        """Return what a request needs of this process: database, broker, and that each loop has done its work once.

        A full disk or a backlog makes the server unwell (``signs``), but another request finds no better one.
        """
        waits = sorted(self._beats.keys() - self._begun)
        text = (
            f"Expected each loop to have done its work once, waits for {listed(waits, _NAMED)}: ask again in a second"
        )
        begun = Sign("begun", ok=not waits, text=text if waits else "every loop has done its work")
        return (self._database(), self._broker(), begun)

    def _database(self) -> Sign:
        fault = self._faults.get(_DATABASE)
        if fault is None:
            return Sign(_DATABASE, ok=True, text="can be written")
        return Sign(_DATABASE, ok=False, text=fault)

    def _disk(self) -> Sign:
        wanted = self.config.min_free_bytes
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            return Sign("disk", ok=False, text=f"Expected the state directory, got: {error.strerror}")
        if free >= wanted:
            return Sign("disk", ok=True, text=f"{free} bytes free")
        text = f"Expected at least {wanted} bytes free for the state directory, got {free}: free the disk"
        return Sign("disk", ok=False, text=text)

    def _broker(self) -> Sign:
        if self.transport.idle_s() < float("inf"):
            return Sign("broker", ok=True, text="connected")
        text = "Expected a connection to the broker, got none: no device can be reached; see broker/mosquitto.log"
        return Sign("broker", ok=False, text=text)

    def _inbox(self) -> Sign:
        lag_s = self.ingest.lag_s()
        if lag_s <= _MAX_LAG_S:
            return Sign("ingest", ok=True, text=f"{lag_s:.0f} s behind")
        text = f"Expected messages to be stored within {_MAX_LAG_S:.0f} s, got one that waits for {lag_s:.0f} s"
        return Sign("ingest", ok=False, text=f"{text}: see the server's log")

    def _loop(self, name: str, beat_ms: int, now_ms: int) -> Sign:
        age_s = (now_ms - beat_ms) / 1000
        fault = self._faults.get(name)
        if fault is not None:
            return Sign(name, ok=False, text=f"fails, and is tried again: {fault}")
        if age_s <= LATE_S:
            return Sign(name, ok=True, text=f"{max(age_s, 0.0):.0f} s ago")
        text = f"Expected an end of its work within {LATE_S:.0f} s, got none for {age_s:.0f} s: restart the server"
        return Sign(name, ok=False, text=text)
