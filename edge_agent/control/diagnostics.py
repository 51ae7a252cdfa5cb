"""Collects what helps to find a fault of a device into one archive, without secrets: ``edge-agent export``.

Decides what is in it: a list of what is taken, so that a new file of the state directory is left out until somebody
decides otherwise. Never taken: the password, keys and certificates of the identity, the spool, bundles, inputs and
answers. Passwords that settings name are masked in every text, wherever they appear.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import platform
import shutil
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_agent.control.status_file import read_status
from edge_agent.device import hardware
from edge_agent.device.identity import read_identity
from edge_agent.errors import AgentError, RequestRefusedError
from edge_agent.logs import masked
from wire import __version__
from wire.canonical import canonical_bytes
from wire.codec import Json
from wire.durable import write_atomically

TAKEN = (
    "status.json", "update.json", "gen.json", "floor.json", "last_start.json", "slots/a.json", "slots/b.json",
    "slots/current", "slots/boots.json", "agent.log.1", "agent.log",
)  # fmt: skip
"""Below the state directory; ``status.json`` has counts of answers, never an answer."""
_SECRET_KEYS = ("password", "token", "secret", "credential", "apikey", "api_key", "command")
_MAX_FILE_BYTES = 1024 * 1024
_SYSTEM = ("/etc/os-release", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/device-tree/model")


def export(state: Path, to: Path, config: Path | None = None) -> list[str]:
    """Write the archive ``to``, readable by its owner alone; return the names in it.

    Raises:
        RequestRefusedError: If ``to`` exists or is neither .zip nor .tar.gz, or ``state`` is no state directory.
        OSError: If it can't be written.
    """
    packed = to.name.endswith((".tar.gz", ".tgz"))
    if not packed and to.suffix != ".zip":
        text = f"Expected a file that ends in .tar.gz or .zip, got {to.name}: rename it"
        raise RequestRefusedError("export_name", text)
    if to.exists():
        raise RequestRefusedError("export_exists", f"Expected no file at {to}, got one: give another name")
    if not state.is_dir():
        raise RequestRefusedError("no_state", f"Expected the state directory of an agent, got {state}: give --state")
    settings, secrets = _settings(config)
    try:
        identity = read_identity(state)
        secrets.append(identity.password)
        who: dict[str, Json] = {
            "site": identity.site, "device": identity.device, "http_url": identity.http_url,
            "mqtt_host": identity.mqtt_host, "mqtt_port": identity.mqtt_port,
        }  # fmt: skip
    except AgentError as error:
        who = {"missing": str(error)}
    files = {"device.json": canonical_bytes(who), "facts.json": canonical_bytes(_facts(state))}
    if settings is not None:
        files["config.json"] = json.dumps(settings, indent=1, default=str).encode()
    files.update(_below(state))
    for path in map(Path, _SYSTEM):
        if path.is_file():
            files[f"system/{path.name}"] = path.read_bytes()[:_MAX_FILE_BYTES]
    files = {name: masked(data.decode(errors="replace"), secrets).encode() for name, data in files.items()}
    write_atomically(to, _tar(files) if packed else _zip(files), alone=True)
    return sorted(files)


def _below(state: Path) -> Iterator[tuple[str, bytes]]:
    for name in TAKEN:
        path = state / name
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _MAX_FILE_BYTES))
                yield f"state/{name}", file.read(_MAX_FILE_BYTES)


def _facts(state: Path) -> dict[str, Json]:
    """Return what is known of machine, installation and state directory."""
    packages: dict[str, Json] = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    try:
        seen = read_status(state)
        health: dict[str, Json] = {"health": seen.health.value, "pid": seen.pid, "age_s": seen.age_s}
    except AgentError as error:
        health = {"health": str(error)}
    usage = shutil.disk_usage(state)
    return {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "version": __version__, **health,
        "python": platform.python_version(), "machine": " ".join(os.uname()), "hardware": hardware.hardware_class(),
        "runtimes": list(hardware.runtimes()), "packages": packages, "disk_free_bytes": usage.free,
        "disk_bytes": usage.total, "files": _listing(state),
    }  # fmt: skip


def _listing(state: Path) -> dict[str, Json]:
    """Return size and mode of each file, and of each folder how many it has: the names of inputs stay on the device."""
    found: dict[str, Json] = {}
    for path in sorted(state.iterdir()):
        kept = path.lstat()
        count = len(list(path.iterdir())) if path.is_dir() and not path.is_symlink() else None
        found[path.name] = f"{kept.st_mode:o} uid {kept.st_uid} " + (
            f"{kept.st_size} bytes" if count is None else f"{count} entries"
        )
    return found


def _settings(config: Path | None) -> tuple[Mapping[str, object] | None, list[str]]:
    """Return the settings without secrets, and the secrets in the files that they name."""
    if config is None:
        return None, []
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"unreadable": str(error)}, []
    secrets: list[str] = []

    def clean(value: object, key: str) -> object:
        if isinstance(value, dict):
            return {name: clean(item, name) for name, item in value.items()}
        if isinstance(value, list) and "command" not in key:
            return [clean(item, key) for item in value]
        if key.endswith("_file") and isinstance(value, str):
            path = config.parent / value
            if path.is_file():
                secrets.append(path.read_text(errors="replace")[:_MAX_FILE_BYTES].partition("\n")[0].strip())
            return value
        secret = any(word in key.lower() for word in _SECRET_KEYS)
        if secret and isinstance(value, str):
            secrets.append(value)
        return "***" if secret else value

    found = clean(document, "")
    return (found if isinstance(found, dict) else {}), secrets


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _zip(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()
