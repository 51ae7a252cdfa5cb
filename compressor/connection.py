"""How the build host reaches the server: one HTTP client, whose TLS checks certificate and host name."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx

from compressor.errors import CompressorError

_TIMEOUT_S = 60.0


def connect(url: str, token: str, ca: Path | None = None) -> httpx.Client:
    """Return a client that shows ``token``; it connects on first use.

    Args:
        url: address of the server, http://… or https://….
        token: the builder token.
        ca: PEM file whose certificates are trusted instead of the system's.

    Raises:
        CompressorError: If ``ca`` can't be read or is no certificate.
    """
    headers = {"Authorization": f"Bearer {token}"}
    if ca is None:
        return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        message = f"Expected PEM certificates in {ca}, got: {error}: give --ca the server's CA"
        raise CompressorError(message) from error
    return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, verify=context)
