"""The server's state directory: its layout, its creation, and the lock that keeps a second server out."""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from server.errors import AlreadyRunningError, StateDirectoryError
from server.fleet.identity.credentials import new_secret
from wire.durable import write_atomically

_PORT_LIMIT = 65_536
_LAYOUT = 1  # raised when a change of the layout would break an older server
_LOOK_S = 0.1
_HOLDER_LIMIT = 200
SERVER = "fleet-server run"
_TEMPLATE = """\
# tinyfleet server. Every key and its default: server/config.py. An unknown key is an error.

[http]
# port = 0        # 0: a free one, kept from the first run on

[broker]
# port = 0
"""
_TLS_TEMPLATE = """\
# Before a device on another machine enrols, set bind, port and public_url in [http], bind, port and public_host in
# [broker] (docs/how-to/own-server.md): it keeps the addresses that it gets then, 127.0.0.1 without them.

[tls]
certificate = "ca/server.pem"
key = "ca/server.key"
ca = "ca/ca.pem"

[certificates]      # devices prove their identity by a certificate that this server signs
ca = "ca/ca.pem"
key = "ca/ca.key"
# required = true   # no device may use a password
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAddress:
    """The addresses of a running server (``run/address.json``)."""

    http_url: str
    mqtt_host: str
    mqtt_port: int
    pid: int


@dataclass(frozen=True, slots=True)
class ServerPorts:
    """The ports that devices know this server by (``ports.json``); if lost, no device finds it again.

    ``certificates``: of the broker for devices with a certificate, 0 if there are none.
    """

    http: int
    broker: int
    certificates: int = 0


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """The files of one server."""

    path: Path

    @property
    def config(self) -> Path:
        """server.toml."""
        return self.path / "server.toml"

    @property
    def layout(self) -> Path:
        """The layout version; a directory without the file (up to commit 42f48ee) has version 1."""
        return self.path / "layout"

    @property
    def keys(self) -> Path:
        """The online keys (0600)."""
        return self.path / "keys"

    @property
    def authority(self) -> Path:
        """The private authority that ``init --tls-name`` made, and the server's own certificate (0600)."""
        return self.path / "ca"

    @property
    def tuf(self) -> Path:
        """Published metadata."""
        return self.path / "tuf"

    @property
    def blobs(self) -> Path:
        """Bundles by digest."""
        return self.path / "blobs" / "sha256"

    @property
    def samples(self) -> Path:
        """Images from devices."""
        return self.path / "samples"

    @property
    def jobs(self) -> Path:
        """Samples of retraining jobs."""
        return self.path / "jobs"

    @property
    def measurements(self) -> Path:
        """Measurement orders for devices, the bytes these need, and the reports."""
        return self.path / "measurements"

    @property
    def backups(self) -> Path:
        """Copies of the database, made before each migration."""
        return self.path / "backups"

    @property
    def broker(self) -> Path:
        """Files of mosquitto."""
        return self.path / "broker"

    @property
    def ports(self) -> Path:
        """The ports that devices know; part of a backup."""
        return self.path / "ports.json"

    @property
    def address(self) -> Path:
        """The addresses of the last run; scratch."""
        return self.path / "run" / "address.json"

    @property
    def database_url(self) -> str:
        """The default store."""
        return f"sqlite:///{self.path / 'fleet.db'}"

    def token(self, role: str) -> str:
        """Return the token of ``operator`` or ``builder``.

        Raises:
            StateDirectoryError: If its file can't be read or is empty.
        """
        path = self.path / f"{role}.token"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            message = f"Expected a readable token in {path}, got: {error.strerror}"
            raise StateDirectoryError(message) from error
        if not token:
            message = f"Expected a token in {path}, got an empty file"
            raise StateDirectoryError(message)
        return token

    def ingest_group(self) -> str:
        """Return the secret name of the server's shared subscription; created on first use.

        Raises:
            StateDirectoryError: If its file can't be read or written.
        """
        return self._secret("ingest.group", "the name of the shared subscription")

    def ingest_password(self) -> str:
        """Return the password with which processes that only ingest connect to the broker; created on first use.

        Raises:
            StateDirectoryError: If its file can't be read or written.
        """
        return self._secret("ingest.token", "the password of processes that ingest")

    def _secret(self, name: str, what: str) -> str:
        path = self.path / name
        try:
            secret = path.read_text(encoding="utf-8").strip() if path.exists() else ""
            if not secret:
                secret = new_secret()
                write_atomically(path, f"{secret}\n".encode())
        except (OSError, UnicodeDecodeError) as error:
            message = f"Expected {what} in {path}, got: {error}: remove it for a new one"
            raise StateDirectoryError(message) from error
        return secret

    def read_ports(self) -> ServerPorts | None:
        """Return the ports that devices know, None before the first run.

        Raises:
            StateDirectoryError: If the file is damaged: other ports would orphan every device.
        """
        try:
            found = ServerPorts(**json.loads(self.ports.read_text(encoding="utf-8")))
            ports = (found.http, found.broker, found.certificates or found.broker)
            if all(type(port) is int and 0 < port < _PORT_LIMIT for port in ports):
                return found
            problem: object = found
        except FileNotFoundError:
            before = self.read_address()  # servers of 42f48ee kept the ports only there
            tail = before.http_url.rpartition(":")[2] if before else ""
            return ServerPorts(int(tail), before.mqtt_port) if before and tail.isdigit() and before.mqtt_port else None
        except (OSError, ValueError, TypeError) as error:
            problem = error
        message = (
            f'Expected {{"http": PORT, "broker": PORT}} in {self.ports}, got: {problem}: restore it from the backup, '
            "or write the ports there that a device's identity.json has"
        )
        raise StateDirectoryError(message)

    def keep_ports(self, ports: ServerPorts) -> None:
        """Store the ports that devices get from now on."""
        known = {name: port for name, port in asdict(ports).items() if port}  # older servers know only two
        data = json.dumps(known).encode()
        if not self.ports.exists() or self.ports.read_bytes() != data:
            write_atomically(self.ports, data)

    def has_served(self) -> bool:
        """Return whether a server ran here before, so that a missing file is a lost one."""
        return self.ports.exists() or self.address.exists() or any(self.blobs.glob("*"))

    def read_address(self) -> RunAddress | None:
        """Return the addresses of the last run; None before the first."""
        try:
            return RunAddress(**json.loads(self.address.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write_address(self, address: RunAddress) -> None:
        """Store the addresses of this run."""
        self.address.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.address, json.dumps(asdict(address), indent=1).encode())


def init_state(path: Path, *, certificates: bool = False) -> StateDirectory:
    """Create a state directory with fresh tokens; ``trust`` creates the online keys, and the private authority.

    ``certificates``: the settings name the files of a private authority.

    Raises:
        StateDirectoryError: If the path exists and is not empty, or can't be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        message = f"Expected a new or empty directory, got {path}: choose another, or remove it first"
        raise StateDirectoryError(message)
    state = StateDirectory(path)
    try:
        for folder in (
            path,
            state.keys,
            state.tuf,
            state.blobs.parent,
            state.blobs,
            state.broker,
            state.samples,
            state.jobs,
            path / "run",
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        for role in ("operator", "builder"):
            write_atomically(path / f"{role}.token", f"{new_secret()}\n".encode())
        state.ingest_group()
        write_atomically(state.layout, f"{_LAYOUT}\n".encode())
        write_atomically(state.config, (_TEMPLATE + _TLS_TEMPLATE * certificates).encode())
    except OSError as error:
        message = f"Expected a directory that can be written, got {path}: {error.strerror}"
        raise StateDirectoryError(message) from error
    return state


def open_state(path: Path) -> StateDirectory:
    """Return the state directory at ``path``.

    Raises:
        StateDirectoryError: If it is not one.
    """
    state = StateDirectory(path.resolve())
    if not state.config.is_file() and state.has_served():
        message = (
            f"Expected {state.config} of a server that ran before, got no such file: restore it from the backup; a "
            "backup that has none was not finished"
        )
        raise StateDirectoryError(message)
    if not state.config.is_file():
        message = f"Expected a server's state directory, got {path}: make one with fleet-server init {path}"
        raise StateDirectoryError(message)
    try:
        layout = state.layout.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        layout = str(_LAYOUT)
    except (OSError, ValueError) as error:
        message = f"Expected a number in {state.layout}, got: {error}: restore it from the backup"
        raise StateDirectoryError(message) from error
    if layout != str(_LAYOUT):
        message = (
            f"Expected a state directory of layout {_LAYOUT}, got {layout[:20]!r} in {state.layout}: install the "
            "tinyfleet that made it, or restore the backup that belongs to this version"
        )
        raise StateDirectoryError(message)
    return state


@dataclass(slots=True)
class StateDirectoryLock:
    """Held while a server runs on the directory; the kernel releases it when the process ends."""

    descriptor: int

    def release(self) -> None:
        """Let another server run."""
        os.close(self.descriptor)


def lock_state(state: StateDirectory, what: str = SERVER) -> StateDirectoryLock:
    """Return the lock on ``state``; waits briefly, because ``is_locked`` takes the lock for a moment too.

    The lock file names the holder: ``what`` and the process id.

    Raises:
        AlreadyRunningError: If another process holds it; the text names it and the next step.
    """
    descriptor = _locked(state)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{what} {os.getpid()}\n".encode(), 0)
    return StateDirectoryLock(descriptor)


def _locked(state: StateDirectory) -> int:
    descriptor = os.open(state.path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + _LOOK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() < deadline_s:
                time.sleep(_LOOK_S / 10)
                continue
            holder = os.pread(descriptor, _HOLDER_LIMIT, 0).decode(errors="replace")
            os.close(descriptor)
            raise AlreadyRunningError(_held_by(state, holder)) from error
        return descriptor


def _held_by(state: StateDirectory, holder: str) -> str:
    what, _, pid = holder.strip().rpartition(" ")
    if what and what != SERVER:
        return (
            f"Expected no other process on {state.path}, got {what}, process {pid}: wait until it ends, then try again"
        )
    process = f"process {pid}" if what else f"see {state.address}"
    return f"Expected no other server on {state.path}, got a running one, {process}: end that first"


def is_locked(state: StateDirectory) -> bool:
    """Return whether a server runs on ``state`` now; files outlive a server, its lock does not."""
    try:
        os.close(_locked(state))
    except AlreadyRunningError:
        return True
    return False
