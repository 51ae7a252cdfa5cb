"""The composition root: opens everything on a state directory, starts and stops it in order.

Threads: one takes telemetry from the inbox (``ingest``), one calls ``turn`` of the services (``turns``), one that of
drift detection, which may have weeks of windows to process (``drift``), one disconnects revoked devices without
waiting for the services, one answers requests for chunks of bundles (``chunks``), one for each route of alerts waits
for its receiver (``alerts NAME``), one sees that this process still decides for the fleet (``decider``), and one serves
HTTP. No service starts a thread of its own.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from server.access.policy_changes import note_policy
from server.alerts.delivery import Courier
from server.api.enrol import Address, Reception
from server.app.http import Web, check_certificates
from server.app.processes.decider import Decider, elect, watch
from server.app.services import ServerParts, Service, build_api, build_parts
from server.app.state_directory import (
    RunAddress,
    ServerPorts,
    StateDirectory,
    open_state,
)
from server.broker.mqtt import BrokerTransport
from server.broker.process import Broker, free_port, listening_socket, loopback_of
from server.clock import Clock, system_now_ms
from server.config import ServerConfig, check_config, read_config
from server.dashboard.mount import mount
from server.errors import ServerError, StateDirectoryError
from server.fleet.enrolment import INGEST_USERS, SERVER_USER, EnrolledIdentity, Enrolment
from server.fleet.fleet import Fleet
from server.fleet.identity.certificates import Certificates
from server.fleet.identity.credentials import hash_password, new_secret
from server.fleet.liveness import LostDevices
from server.ingest.ingest import subscriptions
from server.trust.authority import names_missing
from wire.messages import Severity
from wire.transport import Notice, Transport

_LOG = logging.getLogger(__name__)
_INGEST_WAIT_S = 0.2
_PAUSE_AFTER_FAULT_S = 1.0
_INGEST = "loop Ingest"
_RESTORED = (
    "This state directory is a copy: its metadata is signed above what devices saw since it was made. It knows nothing "
    "of what was done since then: revoke and remove devices again (their credentials are good again), withdraw "
    "releases again, publish again what was published (until then, devices that saw a later list of releases refuse "
    "every update: metadata_rollback), roll out again what was under way"
)
_REVOCATIONS = "loop Revocations"
_CHUNKS = "loop Chunks"
_JOIN_TIMEOUT_S = 15.0
_COURIER_JOIN_S = 1.0
_COURIER_WAIT_S = 2.0  # between looks for what is due again; what is new wakes it


@dataclass(frozen=True, slots=True)
class Overrides:
    """Command-line options that replace settings of ``server.toml``; None keeps the setting."""

    http_port: int | None = None
    broker_port: int | None = None
    bind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who may connect to the broker: the server itself, processes that only ingest, and every enrolled device."""

    enrolment: Enrolment
    certificates: Certificates
    fleet: Fleet
    broker: Broker | None
    server_hash: str
    ingest_hash: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def hashes(self) -> dict[str, str]:
        """Return every password hash, by user name."""
        ingesting = dict.fromkeys(INGEST_USERS, self.ingest_hash) if self.ingest_hash else {}
        return {**self.enrolment.password_hashes(), SERVER_USER: self.server_hash, **ingesting}

    def refresh(self, revoked: Collection[str] = ()) -> None:
        """Make the broker reload its users and the revoked certificates; it disconnects users that are none any more.

        The lists are read and written under one lock: an older list must not replace a newer one. ``revoked``: devices
        whose certificates were just revoked; their sessions are ended.
        """
        if self.broker is None:
            return
        with self._lock:
            self.broker.update_users(self.hashes(), self.certificates.revocation_list())
        authority = self.certificates.authority
        if authority is None:
            return
        for device in revoked:
            site, now_ms = self.fleet.device(device).site, self.certificates.clock()
            if not self.broker.end_session(authority.short_lived((site, device), now_ms)):
                _LOG.error("The session of a revoked device may go on: restart the server. device=%s", device)

    def admit(self, identity: EnrolledIdentity) -> None:
        """Make the broker accept a device that was just enrolled.

        Raises:
            BrokerError: If the broker does not accept it in time.
        """
        self.refresh()
        if self.broker is not None and identity.password:
            self.broker.wait_for_user(identity.device, identity.password)


@dataclass(slots=True, kw_only=True)
class ServerApp:
    """One server. Create it with ``ServerApp.open``; in tests, ``turn`` replaces the threads."""

    state: StateDirectory
    config: ServerConfig
    parts: ServerParts
    transport: Transport
    broker: Broker | None
    admission: Admission
    web: Web
    address: RunAddress
    clock: Clock
    watch: tuple[Service, ...]
    decider: Decider
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _couriers: list[threading.Thread] = field(default_factory=list)

    @classmethod
    def open(
        cls, path: Path, *, transport: Transport | None = None, overrides: Overrides | None = None,
        clock: Clock = system_now_ms, pages: bool = True,
    ) -> ServerApp:  # fmt: skip
        """Return a server on the state directory ``path``, not started yet.

        With ``transport`` (a ``MemoryTransport``) no mosquitto runs. Without ``pages`` there is no dashboard.

        Raises:
            ServerError: If the directory, its settings or a port can't be used; the subclass names the reason.
        """
        state = open_state(path)
        config = _overridden(read_config(state.config), overrides or Overrides())
        check_certificates(config.tls)
        decider = elect(state, config.store.url or state.database_url)
        try:
            app = _assemble(state, config, transport, clock, decider)
            if pages:
                mount(app.web.api, app.parts)
        except BaseException:
            decider.release()
            raise
        return app

    @property
    def http_url(self) -> str:
        """The URL at which operators, build hosts and devices reach the REST interface."""
        return self.address.http_url

    def start(self) -> None:
        """Start broker, connection, threads and HTTP, in this order.

        Raises:
            ServerError: If one of them does not start; those already started are stopped.
        """
        try:
            if self.broker is not None:
                self.broker.start(self.admission.hashes(), self.parts.certificates.revocation_list())
                ports = (self.broker.port, self.broker.certificate_port)
                self.state.keep_ports(ServerPorts(self.web.listener.getsockname()[1], *ports))
            if self.parts.trust.leap(self.clock()):
                self.parts.events.add(self.clock(), "server", "restored", Severity.ERROR, _RESTORED)
            self.connect()
            self.parts.vitals.expect(
                (_INGEST, _REVOCATIONS, _CHUNKS, *(_name(service) for service in self._services())), self.clock()
            )
            for name, loop in (
                ("ingest", self._ingest_loop),
                ("turns", self._turn_loop),
                ("drift", self._drift_loop),
                ("revocations", self._revocation_loop),
                ("chunks", self._chunk_loop),
                ("decider", self._decider_loop),
            ):
                thread = threading.Thread(target=loop, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)
            self._start_couriers()
            self.web.start()
            keep_what_is_loaded()
        except BaseException:
            self.stop()
            raise
        self.state.write_address(self.address)
        self.parts.events.add(self.clock(), "server", "started", Severity.INFO, f"Serving {self.http_url}")
        note_policy(self.parts.acts, self.config, self.clock())
        self._report_names()
        for text in self.parts.audit.idle_settings():
            _LOG.warning("A setting has no effect. setting=%s", text)
            self.parts.events.add(self.clock(), "server", "setting_unknown", Severity.WARNING, f"server.toml: {text}")

    def _report_names(self) -> None:
        """Report addresses that devices get and the certificate lacks: no device with one of them ever connects."""
        if not self.config.tls.enabled:
            return
        hosts = (urlsplit(self.address.http_url).hostname or "", *((self.address.mqtt_host,) if self.broker else ()))
        missing = names_missing(Path(self.config.tls.certificate).read_bytes(), hosts)
        if missing:
            text = (
                f"Expected a certificate for the addresses that devices get, got one without {', '.join(missing)}: set "
                "http.public_url and broker.public_host in server.toml, then enrol again the devices that have enrolled"
            )
            _LOG.error("The certificate lacks an address that devices get. missing=%s", ",".join(missing))
            self.parts.events.add(self.clock(), "server", "certificate_names", Severity.ERROR, text)

    def _start_couriers(self) -> None:
        """Start a thread for each route of alerts; give up what is to go by routes that are gone."""
        for route, count in self.parts.alerts.forsake().items():
            text = f"{count} alerts for the route {route} are given up: server.toml has no such route any more"
            self.parts.events.add(self.clock(), "server", "route_gone", Severity.WARNING, text)
        for courier in self.parts.couriers:
            thread = threading.Thread(
                target=self._courier_loop, args=(courier,), name=f"alerts {courier.route}", daemon=True
            )
            thread.start()
            self._couriers.append(thread)

    def connect(self) -> None:
        """Connect to the broker (part of ``start``; alone in tests that call ``turn``).

        Raises:
            StateDirectoryError: If the name of the shared subscription can't be read or created.
        """
        group = self.state.ingest_group()
        self.transport.start(self._receive, subscriptions=subscriptions(group, shared=self.parts.database.is_shared))

    def _receive(self, notice: Notice) -> None:
        if not self.parts.chunks.receive(notice):
            self.parts.ingest.receive(notice)

    def stop(self) -> None:
        """Stop in the reverse order; may be called twice."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.web.stop()
        for courier in self.parts.couriers:
            courier.wake()
        for thread in self._threads:
            thread.join(_JOIN_TIMEOUT_S)
        for thread in self._couriers:  # not for a slow receiver: what it did not accept is sent after the next start
            thread.join(_COURIER_JOIN_S)
        self.transport.stop()
        if self.broker is not None:
            self.broker.stop()
        self.parts.database.close()
        self.decider.release()

    def turn(self, now_ms: int) -> None:
        """Handle every message that has arrived, then call ``turn`` of every service (for tests without threads)."""
        while self.parts.ingest.turn(now_ms) or self.parts.chunks.turn():
            pass
        self._enforce(now_ms)
        for service in self._services():
            service.turn(now_ms)

    def _enforce(self, now_ms: int) -> None:
        self.parts.revocations.enforce(now_ms, self.admission.refresh)

    def _services(self) -> tuple[Service, ...]:
        return (*self.watch, *self.parts.services)

    def _ingest_loop(self) -> None:
        ingest = self.parts.ingest
        while not self._stopping.is_set():
            if not self._attempt(_INGEST, lambda: ingest.handle(ingest.take(_INGEST_WAIT_S), self.clock())):
                self._stopping.wait(_PAUSE_AFTER_FAULT_S)
        with contextlib.suppress(Exception):  # drain the inbox; devices would send these messages again anyway
            while ingest.turn(self.clock()):
                pass

    def _decider_loop(self) -> None:
        watch(self.decider, self._stopping)

    def _chunk_loop(self) -> None:
        while not self._stopping.is_set():
            if not self._attempt(_CHUNKS, lambda: self.parts.chunks.turn(_INGEST_WAIT_S)):
                self._stopping.wait(_PAUSE_AFTER_FAULT_S)

    def _courier_loop(self, courier: Courier) -> None:
        """Deliver by one route. Its failures are shown with the alerts: a slow receiver is no fault of the server."""
        part = f"alerts {courier.route}"
        while not self._stopping.is_set():
            try:
                busy = courier.turn(self.clock())
                self.parts.outages.worked(part)
            except Exception as error:  # noqa: BLE001 - the outermost loop of this thread
                busy = False
                if not self._stopping.is_set():
                    self.parts.outages.failed(part, error)
            if not busy:
                courier.wait(_COURIER_WAIT_S)

    def _revocation_loop(self) -> None:
        while not self._stopping.wait(self.config.turn_interval_s):
            self._attempt(_REVOCATIONS, lambda: self._enforce(self.clock()))

    def _attempt(self, name: str, work: Callable[[], object]) -> bool:
        """Do one step of the loop ``name``, and note how it went; return whether it worked."""
        try:
            work()
            self.parts.vitals.beat(name, self.clock())
            self.parts.outages.worked(name)
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread
            self.parts.outages.failed(name, error)
            self.parts.vitals.fault(name, f"{type(error).__name__}: {error}"[:500])
            return False
        return True

    def _turn_loop(self) -> None:
        while not self._stopping.wait(self.config.turn_interval_s):
            for service in self._services():
                if service is not self.parts.drift:
                    self._give_turn(service)

    def _drift_loop(self) -> None:
        """Call ``turn`` of the drift service alone: catching up after a restart must not delay rollouts."""
        self.parts.drift.goes_on = self._drift_goes_on
        while not self._stopping.wait(self.config.turn_interval_s):
            self._give_turn(self.parts.drift)

    def _drift_goes_on(self) -> bool:
        self.parts.vitals.beat(_name(self.parts.drift), self.clock())
        return not self._stopping.is_set()

    def _give_turn(self, service: Service) -> None:
        name, now_ms = _name(service), self.clock()
        try:
            service.turn(now_ms)
            self.parts.vitals.beat(name, self.clock())
            self.parts.outages.worked(name)
        except Exception as error:  # noqa: BLE001 - the outermost loop of this thread
            self.parts.outages.failed(name, error)
            text = f"{name} failed: {type(error).__name__}: {error}"[:500]
            self.parts.vitals.fault(name, text)
            with contextlib.suppress(Exception):
                self.parts.ingest.fault_events.add(now_ms, "service_failed", text, sender=name)


def _name(service: Service) -> str:
    return f"loop {type(service).__name__}"


_YOUNG_OBJECTS = 50_000
"""Objects that one drift step of 10,000 devices allocates should die in the youngest generation: with Python's default
of 700 they move to older ones, and four full collections a step scan them (0.25 of 1.7 CPU s; 0.03 with this)."""


def keep_what_is_loaded() -> None:
    """Freeze modules, tables and pages, which live as long as the process, and raise the collector's threshold.

    Otherwise every full collection scans all of them, about a tenth of the time of a busy ingest. The threshold is
    higher for the same reason: fewer collections of what one batch or one step allocates.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _overridden(config: ServerConfig, overrides: Overrides) -> ServerConfig:
    http, broker = config.http, config.broker
    if overrides.http_port is not None:
        http = replace(http, port=overrides.http_port)
    if overrides.broker_port is not None:
        broker = replace(broker, port=overrides.broker_port)
    if overrides.bind is not None:
        http, broker = replace(http, bind=overrides.bind), replace(broker, bind=overrides.bind)
    return check_config(replace(config, http=http, broker=broker))


def _assemble(
    state: StateDirectory, config: ServerConfig, transport: Transport | None, clock: Clock, decider: Decider
) -> ServerApp:
    before = state.read_ports() if transport is None else None
    drawn = transport is None and not (before or (config.http.port and config.broker.port))
    listener = listening_socket(config.http.bind, config.http.port or (before.http if before else 0), "http")
    try:
        password, broker = new_secret(), None
        if transport is None:
            bind, devices = config.broker.bind, config.certificates
            port = config.broker.port or (before.broker if before else 0) or free_port(bind)
            kept = devices.broker_port or (before.certificates if before else 0)
            broker = Broker(
                folder=state.broker,
                config=config.broker,
                tls=config.tls,
                port=port,
                user=SERVER_USER,
                readers=INGEST_USERS,
                password=password,
                authority=devices.ca,
                certificate_port=(kept or free_port(bind)) if devices.enabled else kept,
            )
            host = loopback_of(config.broker.bind)
            transport = BrokerTransport(
                host=host, port=port, client_id=SERVER_USER, user=SERVER_USER, password=password, tls_ca=config.tls.ca
            )
        address = _address(config, listener, broker)
        parts = build_parts(state, config, transport, clock)
        if drawn:
            _refuse_to_orphan(state, parts)
        if broker is not None:
            _refuse_lost_trust(parts)
        admission = Admission(
            enrolment=parts.enrolment,
            certificates=parts.certificates,
            fleet=parts.fleet,
            broker=broker,
            server_hash=hash_password(password),
            ingest_hash=hash_password(state.ingest_password()) if parts.database.is_shared else "",
        )
        reception = Reception(
            address=lambda: _public(address, config),
            root=parts.trust.root,
            admit=admission.admit,
            certified_port=broker.certificate_port if broker else 0,
        )
        web = Web(api=build_api(parts, reception), listener=listener, tls=config.tls, authority=config.certificates.ca)
    except BaseException:
        listener.close()
        raise
    lost = LostDevices(fleet=parts.fleet, events=parts.events, started_ms=lambda: broker.started_ms if broker else 0)
    watch: tuple[Service, ...] = (broker, lost) if broker else ()
    return ServerApp(
        state=state,
        config=config,
        parts=parts,
        transport=transport,
        broker=broker,
        admission=admission,
        web=web,
        address=address,
        clock=clock,
        watch=watch,
        decider=decider,
    )


def _refuse_to_orphan(state: StateDirectory, parts: ServerParts) -> None:
    """Refuse newly drawn ports if enrolled devices know other ones.

    Raises:
        StateDirectoryError: If there are devices.
    """
    count = len(parts.fleet.devices())
    if count:
        parts.database.close()
        message = (
            f"Expected the ports that {count} devices were given in {state.ports}, got no such file: restore it from "
            "the backup, or set http.port and broker.port in server.toml to those in a device's identity.json"
        )
        raise StateDirectoryError(message)


def _refuse_lost_trust(parts: ServerParts) -> None:
    """Refuse to start without the keys and signed metadata that devices know.

    Raises:
        TrustStoreError: If one of them is lost.
    """
    try:
        parts.trust.refuse_losses(published=bool(parts.versions.releases()))
    except ServerError:
        parts.database.close()
        raise


def _address(config: ServerConfig, listener: socket.socket, broker: Broker | None) -> RunAddress:
    scheme, port = "https" if config.tls.enabled else "http", listener.getsockname()[1]
    host = loopback_of(config.http.bind)
    return RunAddress(
        http_url=config.http.public_url or f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}",
        mqtt_host=config.broker.public_host or (loopback_of(config.broker.bind) if broker else "memory"),
        mqtt_port=broker.port if broker else 0,
        pid=os.getpid(),
    )


def _public(address: RunAddress, config: ServerConfig) -> Address:
    ca = Path(config.tls.ca).read_text(encoding="utf-8") if config.tls.enabled else ""
    return Address(mqtt_host=address.mqtt_host, mqtt_port=address.mqtt_port, http_url=address.http_url, mqtt_tls_ca=ca)
