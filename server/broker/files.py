"""Renders mosquitto's files as text: configuration, passwords and access rules. Writes nothing.

Source: mosquitto.conf(5), 2.0. Patterns expand ``%u`` to the user name, which is the device id, so one rule
confines every device to its own subtree; ``ingest`` checks the site in the topic. The client id is always the user
name, whatever a client sends; otherwise a device could disconnect another, or the server, by taking its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from server.config import BrokerConfig, TlsConfig
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
    def log(self) -> Path:
        """The log of mosquitto; begun anew at each start."""
        return self.folder / "mosquitto.log"

    @property
    def pid(self) -> Path:
        """The process id, by which the next server finds the mosquitto of a killed one."""
        return self.folder / "mosquitto.pid"


def render_config(paths: BrokerPaths, config: BrokerConfig, tls: TlsConfig, port: int, *, as_root: bool) -> str:
    """Return mosquitto.conf."""
    lines = [
        "per_listener_settings false",
        f"listener {port} {config.bind}",
        "allow_anonymous false",
        f"password_file {paths.passwords}",
        f"acl_file {paths.acl}",
        "use_username_as_clientid true",
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
    if tls.enabled:
        lines += [f"cafile {tls.ca}", f"certfile {tls.certificate}", f"keyfile {tls.key}"]
    if as_root:
        lines.append("user root")
    return "\n".join(lines) + "\n"


def render_acl(server_user: str) -> str:
    """Return the access rules: everything for the server; for a device its own subtree, each topic in one direction."""
    lines = [f"user {server_user}", f"topic readwrite {PREFIX}/#", "topic read $SYS/#", ""]
    lines += [f"pattern write {PREFIX}/+/%u/{leaf}" for leaf in _DEVICE_WRITES]
    lines += [f"pattern read {PREFIX}/+/%u/{leaf}" for leaf in _DEVICE_READS]
    return "\n".join(lines) + "\n"


def render_passwords(hashes: Mapping[str, str]) -> str:
    """Return the password file from hashes by user name."""
    return "".join(f"{user}:{stored}\n" for user, stored in sorted(hashes.items()))
