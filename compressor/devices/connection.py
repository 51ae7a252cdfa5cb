"""The build host's HTTP client for the server; TLS verifies certificate and host name."""

from __future__ import annotations

import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from compressor.errors import CompressorError, ServerUnreachableError

_TIMEOUT_S = 60.0


def connect(url: str, token: str, ca: Path | None = None) -> httpx.Client:
    """Return a client that sends ``token``; it connects on first use.

    Args:
        url: Address of the server, http://… or https://….
        token: The builder token.
        ca: PEM file whose certificates are trusted instead of the system's.

    Raises:
        CompressorError: If ``ca`` can't be read or is not a certificate.
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


class Connection:
    """A client of the server that closes its connections when its ``with`` block ends."""

    def __init__(self, url: str, token: str, ca: Path | None = None) -> None:
        """Connect on first use; arguments as in ``connect``.

        Raises:
            CompressorError: If ``ca`` is not a certificate.
        """
        self._http = connect(url, token, ca)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self._http.close()

    def _send(self, method: str, address: str, **body: Any) -> httpx.Response:  # noqa: ANN401 - passed on to httpx
        """Return the server's response, whatever its status.

        Raises:
            ServerUnreachableError: If the server did not answer.
        """
        try:
            return self._http.request(method, address, **body)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> ServerUnreachableError:
        message = f"Expected an answer from {self._http.base_url}, got: {error!r}: is the server running?"
        return ServerUnreachableError(message)
