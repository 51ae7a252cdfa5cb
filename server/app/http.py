"""Serves the web application with uvicorn, in a thread, on a socket that is already bound; checks its certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.config import TlsConfig
from server.errors import ConfigError, ServerError


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


_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.01


class _NamesItsPeer(H11Protocol):
    """A connection whose requests carry the client's certificate, if TLS has verified one.

    Source: ASGI TLS Extension, version 0.2, ``client_cert_chain``; uvicorn has no such extension.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """Take the certificate from the finished handshake."""
        super().connection_made(transport)
        secured = transport.get_extra_info("ssl_object")
        certificate = secured.getpeercert(binary_form=True) if secured is not None else None
        if certificate:
            chain, application = [ssl.DER_cert_to_PEM_cert(certificate)], self.app

            async def named(scope: Scope, receive: Receive, send: Send) -> None:
                scope["extensions"] = {**scope.get("extensions", {}), "tls": {"client_cert_chain": chain}}
                await application(scope, receive, send)

            self.app = named


class WebError(ServerError):
    """The web application did not start."""

    code = "http_failed"
    status = 503


@dataclass(slots=True, kw_only=True)
class Web:
    """One uvicorn server; it runs outside the main thread, so that signals stay with the caller.

    ``authority``: PEM file of the authority of devices; a client may then show a certificate, and one that it did not
    sign is refused in the handshake.
    """

    api: FastAPI
    listener: socket.socket
    tls: TlsConfig
    authority: str = ""
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve; return when requests are answered.

        Raises:
            WebError: If the application did not start.
        """
        settings = uvicorn.Config(
            self.api, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=3,
            ssl_certfile=self.tls.certificate or None, ssl_keyfile=self.tls.key or None,
            ssl_ca_certs=self.authority or None, ssl_cert_reqs=ssl.CERT_OPTIONAL if self.authority else ssl.CERT_NONE,
            http=_NamesItsPeer if self.authority else "auto",
        )  # fmt: skip
        server = uvicorn.Server(settings)
        self.listener.listen(1024)
        self._server = server
        self._thread = threading.Thread(target=server.run, args=([self.listener],), name="http", daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline_s:
                raise WebError("Expected the web application to start, got none: see the log")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Wait for running requests, then stop."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_TIMEOUT_S)
        self._server = self._thread = None
        self.listener.close()
