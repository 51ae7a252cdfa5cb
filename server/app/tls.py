"""Checks the certificate files before anything starts, so that a fault is reported in one line."""

from __future__ import annotations

import ssl
from pathlib import Path

from server.config import TlsConfig
from server.errors import ConfigError


def check_certificates(tls: TlsConfig) -> None:
    """Refuse files that broker and HTTP could not use.

    Raises:
        ConfigError: If a file can't be read or is not PEM, or key and certificate don't match.
    """
    if not tls.enabled:
        return
    for name in ("certificate", "key", "ca"):
        path = Path(getattr(tls, name))
        try:
            path.read_bytes()
        except OSError as error:
            message = f"Expected the file of tls.{name}, got: {path}: {error.strerror}: correct it in server.toml"
            raise ConfigError(message) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except ssl.SSLError as error:
        message = f"Expected a PEM certificate in {tls.certificate} and its key in {tls.key}, got: {error}"
        raise ConfigError(message) from error
    try:
        context.load_verify_locations(cafile=tls.ca)
    except ssl.SSLError as error:
        message = f"Expected PEM certificates in {tls.ca} (tls.ca), got: {error}"
        raise ConfigError(message) from error
