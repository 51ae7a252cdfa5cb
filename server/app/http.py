"""Serves the web application with uvicorn, in a thread, on a socket that is already bound."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from server.config import TlsConfig
from server.errors import ServerError

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.01


class WebError(ServerError):
    """The web application did not start."""

    code = "http_failed"
    status = 503


@dataclass(slots=True, kw_only=True)
class Web:
    """One uvicorn server; it runs outside the main thread, so that signals stay with the caller."""

    api: FastAPI
    listener: socket.socket
    tls: TlsConfig
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
