"""A process that only ingests: any number of them, beside the server or on other hosts, for one PostgreSQL database.

It shares the server's subscription to telemetry: the broker gives each message to one of them. It stores what it gets
and acknowledges it, and decides nothing: what it needs to know (devices, streams' progress, what is known of inputs) it
asks of the database. Samples and everything else go to the server alone. See ADR 78.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from server.app.server import keep_what_is_loaded
from server.app.state_directory import StateDirectory, open_state
from server.broker.mqtt import BrokerTransport
from server.broker.process import loopback_of
from server.clock import Clock, system_now_ms
from server.config import ServerConfig, read_config
from server.drift.latest import TOLD_WINDOWS, DriftStates, newest_evidence
from server.errors import ConfigError, ServerError, StateDirectoryError
from server.fleet.enrolment import INGEST_USERS
from server.fleet.fleet import Fleet, Outbox
from server.ingest.ingest import Ingest, ingest_subscriptions
from server.outages import Outages
from server.store.database import Database, open_database, shown_url
from server.store.processes.session_lock import INGEST, SessionLock, is_shareable, take_first
from wire.transport import Link, LinkChange, Notice, Transport

_LOG = logging.getLogger(__name__)
_WAIT_S = 0.2
_PAUSE_S = 1.0
_EVIDENCE_EVERY_MS = 60_000
_LOOP = "ingest"


@dataclass(slots=True, kw_only=True)
class IngestProcess:
    """One process. ``name``: its user at the broker, which no other process has."""

    name: str
    broker: tuple[str, int]
    database: Database
    transport: Transport
    ingest: Ingest
    clock: Clock
    _group: str
    _session: SessionLock
    _states: DriftStates
    _outages: Outages = field(default_factory=Outages)
    _asked_ms: int = -_EVIDENCE_EVERY_MS

    @classmethod
    def open(cls, path: Path, *, broker: tuple[str, int] | None = None, clock: Clock = system_now_ms) -> IngestProcess:
        """Return a process for the server whose state directory, or a copy of its settings, is at ``path``.

        ``broker``: host and port of the server's broker, None for the one on this host.

        Raises:
            ConfigError: If the database is SQLite, or too many processes ingest already.
            ServerError: If the directory, its settings or the database can't be used; the subclass names the reason.
        """
        state = open_state(path)
        config = read_config(state.config)
        url = config.store.url or state.database_url
        if not is_shareable(url):
            message = (
                f"Expected a PostgreSQL database in store.url for a process that only ingests, got {shown_url(url)}: "
                "into SQLite the server ingests alone (fleet-server run); see PostgreSQL in docs/how-to/own-server.md"
            )
            raise ConfigError(message)
        host, port = broker or _own_broker(state, config)
        database = open_database(url, str(state.path), may_be_new=False)
        try:
            session = take_first(url, INGEST, range(len(INGEST_USERS)))
        except BaseException:
            database.close()
            raise
        if session is None:
            database.close()
            message = f"Expected at most {len(INGEST_USERS)} processes that ingest, got as many already: end one first"
            raise ConfigError(message)
        name = INGEST_USERS[session.number]
        transport = BrokerTransport(
            host=host, port=port, client_id=name, user=name, password=state.ingest_password(), tls_ca=config.tls.ca,
            is_ours=broker is None,
        )  # fmt: skip
        outbox, states = Outbox(transport), DriftStates(TOLD_WINDOWS * config.drift.window_ms + config.drift.grace_ms)
        ingest = Ingest(
            database=database, fleet=Fleet(database=database, outbox=outbox, clock=clock), outbox=outbox,
            config=config.ingest, drift_state=states.of,
        )  # fmt: skip
        return cls(
            name=name, broker=(host, port), database=database, transport=transport, ingest=ingest, clock=clock,
            _group=state.ingest_group(), _session=session, _states=states,
        )  # fmt: skip

    def run(self, is_over: Callable[[float], bool], begun: Callable[[], None] = lambda: None) -> None:
        """Ingest until ``is_over``, which is called with seconds to wait, returns true; then store what has arrived.

        ``begun`` is called with each connection to the broker.
        """

        def receive(notice: Notice) -> None:
            if isinstance(notice, LinkChange) and notice.link is Link.UP:
                begun()
            self.ingest.receive(notice)

        self.transport.start(receive, subscriptions=ingest_subscriptions(self._group))
        keep_what_is_loaded()
        while not is_over(0.0):
            try:
                self.turn()
                self._outages.worked(_LOOP)
            except Exception as error:  # noqa: BLE001 - the outermost loop
                self._outages.failed(_LOOP, error)
                is_over(_PAUSE_S)
        self.transport.stop()
        with contextlib.suppress(Exception):  # what is not stored is not acknowledged: devices send it again
            while self.ingest.turn(self.clock()):
                pass

    def turn(self) -> None:
        """Store one batch. Renews what is known of devices' inputs, which acknowledgements carry, every minute.

        Raises:
            ServerError: If another process took this one's name while the database was away.
        """
        now_ms = self.clock()
        if now_ms - self._asked_ms >= _EVIDENCE_EVERY_MS:
            if not self._session.is_held() and not self._session.take():
                message = f"Expected to be {self.name} for the broker, got another process of that name: start it again"
                raise ServerError(message)
            self._states.load(newest_evidence(self.database))
            self._asked_ms = now_ms
        self.ingest.handle(self.ingest.take(_WAIT_S), now_ms)

    def close(self) -> None:
        """End the session with the database; another process may have the name."""
        self._session.release()
        self.database.close()


def _own_broker(state: StateDirectory, config: ServerConfig) -> tuple[str, int]:
    ports = state.read_ports()
    port = config.broker.port or (ports.broker if ports else 0)
    if not port:
        message = (
            f"Expected a server that has run on {state.path}, got none: start it first (fleet-server run), or name "
            "its broker with --broker HOST:PORT"
        )
        raise StateDirectoryError(message)
    return loopback_of(config.broker.bind), port
