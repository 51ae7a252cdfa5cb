"""Access to a camera or broker on site: the password of a file, and the certificates to trust.

The connection to the fleet's server has credentials of its own (``device/identity.py``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import AgentError
from wire.errors import SettingsError

if TYPE_CHECKING:
    import ssl

_LONGEST_PASSWORD_BYTES = 65_535  # MQTT 5.0, 3.1.3.6


def check_host(host: str) -> None:
    """Check that ``host`` is the name or address of a machine alone.

    Raises:
        SettingsError: If it is empty, or has a scheme, a port or a path.
    """
    if not host or host.count(":") == 1 or not host.isprintable() or set(host) & set(" /@"):
        message = f"Expected host as the name or address of a broker alone, got {host!r}: broker.local or 192.168.1.2"
        raise SettingsError(f"{message}, the port in port, TLS in tls or tls_ca, and the user in username")


def read_password(path: Path | None, error: type[AgentError]) -> str | None:
    """Return the first line of the file at ``path``; None without one.

    Raises:
        AgentError: As ``error``, if it can't be read, others than its owner may, or it is no text.
    """
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LONGEST_PASSWORD_BYTES)
        if mode & 0o077:
            message = f"Expected a password in {path} that only its owner may read, got mode {mode & 0o777:04o}"
            raise error(f"{message}: chmod 600 {path}")
        return data.decode().partition("\n")[0].removesuffix("\r")
    except OSError as raised:
        raise error(f"Expected a password in {path}, got: {raised.strerror}: correct password_file") from raised
    except UnicodeDecodeError as raised:
        raise error(f"Expected a password as UTF-8 text in {path}, got: {raised.reason}: write it again") from raised


def trusted_certificates(path: Path | None, error: type[AgentError]) -> ssl.SSLContext:
    """Return the TLS context that trusts the certificates at ``path``, or without one those of the system.

    Raises:
        AgentError: As ``error``, if they can't be read.
    """
    from edge_agent.device.tls import client_context  # noqa: PLC0415 - only with TLS

    try:
        return client_context("" if path is None else path.read_text())
    except (OSError, ValueError) as raised:
        message = f"Expected certificates in PEM at {path}, got: {raised}: correct tls_ca"
        raise error(message) from raised
