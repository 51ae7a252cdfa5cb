"""What ``fleet-server login`` keeps: for each server its address, token and authority, and which was the last.

Below the user's folder for settings (``XDG_CONFIG_HOME``, by default ``~/.config/tinyfleet``), which only that user can
read: ``logins.json`` with addresses, and beside it a token (0600) and an authority for each, named after the digest of
the address. So a token is never sent to another address than the one it was given for, whatever was half-written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click

from server.errors import ClientFileError
from wire.durable import write_atomically

_LIMIT_BYTES = 1 << 20
_PRIVATE_FOLDER = 0o700


def folder() -> Path:
    """Return the user's folder for the settings of tinyfleet."""
    return Path(click.get_app_dir("tinyfleet"))


@dataclass(frozen=True, slots=True)
class SavedLogin:
    """A server that was logged in to: the file of its token, and that of its authority ("" for the system's)."""

    url: str
    token: Path
    ca: str = ""


@dataclass(frozen=True, slots=True)
class SavedLogins:
    """The saved logins of this user."""

    path: Path = field(default_factory=folder)

    def current(self) -> str:
        """Return the address of the last login, "" for none."""
        current, _ = self._read()
        return current

    def get(self, url: str) -> SavedLogin | None:
        """Return the login of an address, None for none."""
        _, known = self._read()
        wanted = url.rstrip("/")
        if wanted not in known:
            return None
        ca = self._file(wanted, "ca.pem")
        return SavedLogin(wanted, self._file(wanted, "token"), str(ca) if known[wanted] else "")

    def try_out(self, url: str, token: str, ca: bytes) -> SavedLogin:
        """Store a token and an authority where no command looks yet; ``keep`` or ``drop`` the login then.

        Raises:
            ClientFileError: If the folder can't be written.
        """
        wanted = url.rstrip("/")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
            self.path.chmod(_PRIVATE_FOLDER)
            write_atomically(self._file(wanted, "token.new"), f"{token}\n".encode())
            write_atomically(self._file(wanted, "ca.pem.new"), ca)
        except OSError as error:
            raise ClientFileError(f"Expected to write {self.path}, got: {error.strerror}: see its owner") from error
        ca_file = str(self._file(wanted, "ca.pem.new")) if ca else ""
        return SavedLogin(wanted, self._file(wanted, "token.new"), ca_file)

    def keep(self, login: SavedLogin) -> None:
        """Make a login that was tried out the current one."""
        _, known = self._read()
        for name in ("token", "ca.pem"):
            write_atomically(self._file(login.url, name), self._file(login.url, f"{name}.new").read_bytes())
        self.forget_trial(login.url)
        self._write(login.url, {**known, login.url: bool(login.ca)})

    def drop(self, url: str) -> bool:
        """Forget a login, and what was tried out; return whether there was one."""
        current, known = self._read()
        wanted = url.rstrip("/")
        was = wanted in known
        if was:
            left = {one: has_ca for one, has_ca in known.items() if one != wanted}
            self._write("" if current == wanted else current, left)
        for name in ("token", "ca.pem"):
            self._file(wanted, name).unlink(missing_ok=True)
        self.forget_trial(wanted)
        return was

    def forget_trial(self, url: str) -> None:
        """Remove what ``try_out`` stored."""
        for name in ("token.new", "ca.pem.new"):
            self._file(url.rstrip("/"), name).unlink(missing_ok=True)

    def _file(self, url: str, name: str) -> Path:
        return self.path / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.{name}"

    def _read(self) -> tuple[str, Mapping[str, bool]]:
        path = self.path / "logins.json"
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(_LIMIT_BYTES))
            known = {str(url): bool(has_ca) for url, has_ca in found["servers"].items()}
            return str(found["current"]), known
        except FileNotFoundError:
            return "", {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"Expected the saved logins in {path}, got: {error}"
            raise ClientFileError(f"{message}: remove the file and run fleet-server login again") from error

    def _write(self, current: str, known: Mapping[str, bool]) -> None:
        content = json.dumps({"current": current, "servers": dict(known)}, indent=1)
        write_atomically(self.path / "logins.json", content.encode())
