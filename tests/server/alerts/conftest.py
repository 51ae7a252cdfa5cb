"""Real receivers on loopback: an HTTP sink that misbehaves as it is told, and a mail server with TLS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from server.alerts.model import AlertCause, AlertKind, AlertSeverity
from server.trust.authority import init_authority

SECRET = "0123456789abcdef0123456789abcdef"
CAUSE = AlertCause(
    key="away:device:cam-1", kind=AlertKind.AWAY, severity=AlertSeverity.ALARM, title="Device cam-1 is lost",
    cause="its connection broke", action="see whether it has power", devices=("cam-1",), sites=("north",),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class HttpSink:
    """A receiver that keeps what arrives. ``behave`` answers: a status, or None after it answered by itself."""

    url: str = ""
    behave: Callable[[BaseHTTPRequestHandler, int], int | None] = lambda _, __: 204
    heard: list[Request] = field(default_factory=list)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def keys(self) -> list[str]:
        """Return the idempotency key of each request."""
        return [one.headers["idempotency-key"] for one in self.heard]


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    """An HTTP server on a free port that accepts everything, unless told otherwise."""
    found = HttpSink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.heard.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            found.arrived.release()
            status = found.behave(self, len(found.heard))
            if status is not None:
                answer = b"noted" if status == 200 else b""
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False  # a handler that hangs is left alone
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with the secret of a route."""
    file = tmp_path / "hook.secret"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (``ca.pem``) and a certificate of localhost (``server.pem``, ``server.key``)."""
    folder = tmp_path_factory.mktemp("mail") / "authority"
    init_authority(folder, ("localhost",), int(time.time() * 1000))
    return folder
