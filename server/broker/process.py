"""Runs a private mosquitto: starts it, restarts it, reloads its users, stops it.

The port stays the same over the server's life, because devices know it. When mosquitto dies it is restarted, at once
and then with growing delays. A mosquitto that a killed server left behind is ended first.

Source of the files: mosquitto.conf(5), 2.0. Patterns expand ``%u`` to the user name, which is the device id, so one
rule confines every device to its own subtree; ``ingest`` checks the site in the topic. The client id is always the user
name, whatever a client sends; otherwise a device could disconnect another, or the server, by taking its id. Where
devices have certificates, a second listener takes the user name from the certificate (``use_identity_as_username``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from server.clock import system_now_ms
from server.config import BrokerConfig, TlsConfig
from server.errors import BrokerError, BrokerMissingError, PortInUseError
from wire.durable import write_atomically
from wire.topics import PREFIX

_DEVICE_WRITES = ("state", "reported", "tele/#", "event", "res", "get", "blob/req")
_DEVICE_READS = ("desired", "cmd/#", "blob/data")


@dataclass(frozen=True, slots=True)
class BrokerPaths:
    """The files of the broker, all in one folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """mosquitto.conf."""
        return self.folder / "mosquitto.conf"

    @property
    def passwords(self) -> Path:
        """User names and password hashes."""
        return self.folder / "passwords"

    @property
    def acl(self) -> Path:
        """Access rules."""
        return self.folder / "acl"

    @property
    def revoked(self) -> Path:
        """The list of revoked certificates."""
        return self.folder / "revoked.pem"

    @property
    def impostor(self) -> Path:
        """A certificate and its key, while the session of a revoked device is taken over."""
        return self.folder / "take-over.pem"

    @property
    def log(self) -> Path:
        """The log of mosquitto; begun anew at each start."""
        return self.folder / "mosquitto.log"

    @property
    def pid(self) -> Path:
        """The process id, by which the next server finds the mosquitto of a killed one."""
        return self.folder / "mosquitto.pid"


def render_config(
    paths: BrokerPaths, config: BrokerConfig, tls: TlsConfig, ports: tuple[int, int], certificates: str = "", *,
    as_root: bool,
) -> str:  # fmt: skip
    """Return mosquitto.conf. ``ports``: for passwords, and for certificates.

    ``certificates``: the PEM file of the authority of devices, "" if they have passwords alone.
    """
    own = [f"cafile {tls.ca}", f"certfile {tls.certificate}", f"keyfile {tls.key}"] if tls.enabled else []
    lines = ["per_listener_settings false", f"listener {ports[0]} {config.bind}", "use_username_as_clientid true", *own]
    if certificates:
        lines += [
            f"listener {ports[1]} {config.bind}",
            "use_username_as_clientid true",
            f"cafile {certificates}",
            *own[1:],
            "require_certificate true",
            "use_identity_as_username true",
            f"crlfile {paths.revoked}",
        ]
    lines += [
        "allow_anonymous false",
        f"password_file {paths.passwords}",
        f"acl_file {paths.acl}",
        "persistence true",
        f"persistence_location {paths.folder}/",
        "autosave_interval 5",
        "persistent_client_expiration 14d",
        f"max_queued_messages {config.max_queued_messages}",
        f"max_packet_size {config.max_packet_bytes}",
        "max_inflight_messages 200",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
    ]
    if as_root:
        lines.append("user root")
    return "\n".join(lines) + "\n"


def render_acl(server_user: str, readers: Sequence[str] = ()) -> str:
    """Return the access rules: everything for the server; for a device its own subtree, each topic in one direction.

    ``readers`` read telemetry and acknowledge it.
    """
    lines = [f"user {server_user}", f"topic readwrite {PREFIX}/#", "topic read $SYS/#", ""]
    for reader in readers:
        lines += [f"user {reader}", f"topic read {PREFIX}/+/+/tele/#", f"topic write {PREFIX}/+/+/cmd/ack", ""]
    lines += [f"pattern write {PREFIX}/+/%u/{leaf}" for leaf in _DEVICE_WRITES]
    lines += [f"pattern read {PREFIX}/+/%u/{leaf}" for leaf in _DEVICE_READS]
    return "\n".join(lines) + "\n"


def render_passwords(hashes: Mapping[str, str]) -> str:
    """Return the password file from hashes by user name."""
    return "".join(f"{user}:{stored}\n" for user, stored in sorted(hashes.items()))


_LOG = logging.getLogger(__name__)
_SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
_POLL_S = 0.02
_STOP_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 2.0
_BACK_OFF_LIMIT_MS = 30_000
_OWN_FILES = 50  # mosquitto's listeners, logs and database
_ACCEPTED = bytes.fromhex("20020000")
_DISCONNECT = bytes.fromhex("e000")


@dataclass(slots=True, kw_only=True)
class Broker:
    """One mosquitto process. ``hashes`` are password hashes by user name, ``user`` the server's own name.

    ``readers``: users that read telemetry and acknowledge it.

    With ``authority``, a PEM file, it also listens on ``certificate_port`` for devices with a certificate signed by it.
    """

    folder: Path
    config: BrokerConfig
    tls: TlsConfig
    port: int
    user: str
    password: str
    authority: str = ""
    certificate_port: int = 0
    readers: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None
    _restart_at_ms: int = 0
    _back_off_ms: int = 0
    restarts: int = 0
    started_ms: int = 0
    _paths: BrokerPaths = field(init=False)

    def __post_init__(self) -> None:
        """Derive the paths of the files."""
        self._paths = BrokerPaths(self.folder)

    def start(self, hashes: Mapping[str, str], revoked: bytes = b"") -> None:
        """Write the files, start mosquitto and wait until it accepts the server's own user.

        ``revoked``: the list of revoked certificates in PEM, if there is an authority.

        Raises:
            BrokerMissingError: If there is no mosquitto.
            PortInUseError: If another program listens on the port.
            BrokerError: If mosquitto dies, or does not answer in time.
        """
        program_path(self.config.program)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._end_leftover()
        listening_socket(self.config.bind, self.port, "broker").close()  # no other program listens on it
        if self.authority:
            listening_socket(self.config.bind, self.certificate_port, "broker").close()
            write_atomically(self._paths.revoked, revoked)
        as_root, ports = os.geteuid() == 0, (self.port, self.certificate_port)
        text = render_config(self._paths, self.config, self.tls, ports, self.authority, as_root=as_root)
        write_atomically(self._paths.config, text.encode())
        write_atomically(self._paths.acl, render_acl(self.user, self.readers).encode())
        write_atomically(self._paths.passwords, render_passwords(hashes).encode())
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if limit != resource.RLIM_INFINITY and limit < len(hashes) + _OWN_FILES:
            _LOG.warning(
                "More devices than the broker may open files: raise the hard limit (ulimit -Hn; LimitNOFILE of the "
                "service). limit=%s devices=%s", limit, len(hashes),
            )  # fmt: skip
        self._spawn()
        self._wait_until_accepted(self.user, self.password, self.config.start_timeout_s)

    def update_users(self, hashes: Mapping[str, str], revoked: bytes = b"") -> None:
        """Write the password file and the list of revoked certificates anew and make mosquitto reload them."""
        write_atomically(self._paths.passwords, render_passwords(hashes).encode())
        if self.authority:
            write_atomically(self._paths.revoked, revoked)
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGHUP)

    def wait_for_user(self, user: str, password: str) -> None:
        """Wait until mosquitto accepts ``user``, whom ``update_users`` just added.

        Raises:
            BrokerError: If it does not in time.
        """
        self._wait_until_accepted(user, password, self.config.start_timeout_s)

    def end_session(self, own: bytes) -> bool:
        """End the session of the device that ``own``, a certificate and its key in PEM, names; return whether it ended.

        mosquitto checks the list of revoked certificates only when a client connects. A second client of the same name
        takes the session over, without its subscriptions, and leaves. Source: MQTT 3.1.1, 3.1.4 (MQTT-3.1.4-2).
        """
        try:
            write_atomically(self._paths.impostor, own)
            context = ssl.create_default_context(cafile=self.tls.ca)
            context.check_hostname = False  # our own child process over loopback: its certificate may name another host
            context.load_cert_chain(self._paths.impostor)
            address = (loopback_of(self.config.bind), self.certificate_port)
            with context.wrap_socket(socket.create_connection(address, _CONNECT_TIMEOUT_S)) as connection:
                connection.sendall(_connect_packet("", ""))
                accepted = connection.recv(len(_ACCEPTED)) == _ACCEPTED
                connection.sendall(_DISCONNECT)
                return accepted
        except OSError:
            return False
        finally:
            self._paths.impostor.unlink(missing_ok=True)

    def turn(self, now_ms: int) -> bool:
        """Restart mosquitto if it died; return whether it was restarted."""
        process = self._process
        if process is None or process.poll() is None or now_ms < self._restart_at_ms:
            return False
        _LOG.warning("The broker died and is started again. returncode=%s", process.returncode)
        self._back_off_ms = min(max(1000, 2 * self._back_off_ms), _BACK_OFF_LIMIT_MS)
        self._restart_at_ms = now_ms + self._back_off_ms
        self.restarts += 1
        self._spawn()
        return True

    def stop(self) -> None:
        """Stop mosquitto with SIGTERM, so that it saves its retained messages."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._paths.pid.unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """The process id while mosquitto runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def accepts(self, user: str, password: str) -> bool:
        """Return whether mosquitto lets ``user`` in now. Source: MQTT 3.1.1, sections 3.1 and 3.2."""
        try:
            with self._connection() as connection:
                connection.sendall(_connect_packet(user, password))
                return connection.recv(len(_ACCEPTED)) == _ACCEPTED
        except OSError:
            return False

    def _connection(self) -> socket.socket:
        address = (loopback_of(self.config.bind), self.port)
        raw = socket.create_connection(address, _CONNECT_TIMEOUT_S)
        if not self.tls.enabled:
            return raw
        context = ssl.create_default_context(cafile=self.tls.ca)
        context.check_hostname = False  # our own child process over loopback: its certificate may carry another name
        return context.wrap_socket(raw)

    def _spawn(self) -> None:
        try:
            with self._paths.log.open("wb") as log:
                self._process = subprocess.Popen(
                    [program_path(self.config.program), "-c", str(self._paths.config)],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            _let_open_files(self._process.pid)
            self.started_ms = system_now_ms()
            write_atomically(self._paths.pid, str(self._process.pid).encode())
        except OSError as error:
            message = f"Expected to start {self.config.program!r}, got: {error}: see broker.program in server.toml"
            raise BrokerError(message) from error

    def _wait_until_accepted(self, user: str, password: str, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not self.accepts(user, password):
            process = self._process
            if process is not None and process.poll() is not None:
                message = f"Expected mosquitto to run, got exit code {process.returncode}: {self._last_words()}"
                raise BrokerError(message)
            if time.monotonic() > deadline_s:
                message = f"Expected mosquitto to accept {user!r} in {timeout_s} s: see {self._paths.log}"
                raise BrokerError(message)
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self._paths.log.read_text(errors="replace").strip()[-300:]
        return f"see {self._paths.log}"

    def _end_leftover(self) -> None:
        """End the mosquitto of a killed server, and no other: its command line names our configuration.

        All processes are searched, because the pid file is missing after a restore from a backup.
        """
        for pid in _started_with(self._paths.config):
            _LOG.warning("A broker of an earlier run is ended. pid=%s", pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
                deadline_s = time.monotonic() + _STOP_TIMEOUT_S
                while Path(f"/proc/{pid}/cmdline").read_bytes():
                    if time.monotonic() > deadline_s:
                        os.kill(pid, signal.SIGKILL)
                    time.sleep(_POLL_S)


def _let_open_files(pid: int) -> None:
    """Raise the soft limit of open files of ``pid`` to our hard one: each connection needs one; 1,024 is usual."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError):  # the process has ended; ``turn`` notices
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))


def _started_with(config: Path) -> list[int]:
    """Return the ids of processes whose command line names ``config``; none where there is no /proc."""
    found, wanted = [], os.fsencode(config)
    for entry in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (entry / "cmdline").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


def program_path(program: str) -> str:
    """Return the path of ``program``; Debian's mosquitto is in /usr/sbin, which only root has on its path.

    Raises:
        BrokerMissingError: If it is not installed.
    """
    found = shutil.which(program) or shutil.which(program, path=_SYSTEM_PATH)
    if found is None:
        message = (
            f"Expected the broker {program!r} on this machine, got none: install it (as root: apt-get install "
            "mosquitto), or set broker.program in server.toml to where it is"
        )
        raise BrokerMissingError(message)
    return found


def loopback_of(bind: str) -> str:
    """Return the loopback address at which this machine reaches a listener on ``bind``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - translated, not bound


def listening_socket(bind: str, port: int, what: str) -> socket.socket:
    """Return a bound TCP socket; ``port`` 0 chooses a free one.

    Raises:
        PortInUseError: If the address can't be bound.
    """
    found = socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((bind, port))
    except OSError as error:
        found.close()
        message = (
            f"Expected a free port for the {what}, got {bind}:{port}: {error.strerror}. Stop the other program (a "
            f"mosquitto of this server that was moved, perhaps); another {what}.port in server.toml is for a fleet "
            "without devices: each device was given this one"
        )
        raise PortInUseError(message) from error
    return found


def free_port(bind: str) -> int:
    """Return a port that is free now."""
    with listening_socket(bind, 0, "broker") as found:
        return int(found.getsockname()[1])


def _connect_packet(user: str, password: str) -> bytes:
    def field_of(text: str) -> bytes:
        data = text.encode()
        return len(data).to_bytes(2, "big") + data

    body = field_of("MQTT") + bytes([4, 0b1100_0010, 0, 5]) + field_of("") + field_of(user) + field_of(password)
    return bytes([0x10, len(body) & 0x7F | 0x80, len(body) >> 7]) + body
