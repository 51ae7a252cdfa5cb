"""An HTTP server with limits, on the standard library: one thread a connection, on TCP or a unix socket.

Decides who may ask, and how much: the numbered checks of ``Handler._check``. Does not know what is served: a request
that passed becomes a ``Request`` for ``answer``, which returns a ``Reply`` or a stream of bytes. Limits: connections at
once; seconds for a whole request, its slow bytes included; bytes of head and body, before they are read.
"""

from __future__ import annotations

import hmac
import http.client
import io
import json
import logging
import socket
import socketserver
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edge_agent.errors import ApiError

_LOG = logging.getLogger(__name__)
_HEAD_BYTES = 32 * 1024
_MAX_FIELDS = 16
_POLL_S = 0.1  # how long a stop takes
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request that passed all checks."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What is sent back. ``stream``: pieces of a body without an end, sent until they end or the client goes."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None


def json_reply(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """Return ``document`` as JSON."""
    return Reply(status=status, body=json.dumps(document, separators=(",", ":")).encode(), headers=headers or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """``token``: what a client must know, empty: nothing. ``local``: only names of this machine are valid as Host."""

    body_bytes: int
    connections: int
    wait_s: float
    token: bytes = b""
    local: bool = True


class ApiServer(ThreadingHTTPServer):
    """One listening socket. ``start`` serves it from a thread of its own."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, limits: Limits, answer: Callable[[Request], Reply]) -> None:
        """Serve ``listener``, which listens already."""
        socketserver.BaseServer.__init__(self, listener.getsockname(), Handler)  # ours is bound already
        self.socket = listener
        self.limits, self.answer = limits, answer
        self.statuses: Counter[int] = Counter()
        self._alone = threading.Lock()
        self._slots = threading.BoundedSemaphore(limits.connections)

    def start(self) -> None:
        """Serve from a thread until ``stop``."""
        threading.Thread(target=self.serve_forever, args=(_POLL_S,), name="api", daemon=True).start()

    def stop(self) -> None:
        """Accept nobody any more; running requests end with the process."""
        self.shutdown()
        self.server_close()

    def count(self, status: int) -> None:
        """Count a reply."""
        with self._alone:
            self.statuses[status] += 1

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Serve a connection from a thread, or refuse it if there are too many."""
        if not self._slots.acquire(blocking=False):
            self.count(HTTPStatus.SERVICE_UNAVAILABLE)
            try:
                request.setblocking(False)
                request.send(_BUSY)
            except OSError:
                _LOG.debug("A client that was refused has gone.")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._slots.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Serve a connection and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - as in the base class
        """Log what no client can cause; the connection is closed."""
        del request, client_address
        _LOG.exception("A request of the local interface failed.")


class _LimitedReader(io.RawIOBase):
    """Bytes of a connection until a moment and up to a number, whatever their pace."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.end_s, self.left_bytes = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        if self.left_bytes <= 0:
            raise http.client.HTTPException("too many bytes")
        self._connection.settimeout(left_s)
        count = self._connection.recv_into(memoryview(buffer)[: self.left_bytes])
        self.left_bytes -= count
        return count


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tinyfleet", ""
    server: ApiServer

    def setup(self) -> None:
        """Read with limits."""
        if self.server.socket.family != socket.AF_UNIX:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()
        self._reader = _LimitedReader(self.connection)
        self.rfile = io.BufferedReader(self._reader, 16 * 1024)

    def handle(self) -> None:
        """Serve requests until one of the limits or the client ends it."""
        try:
            super().handle()
        except (OSError, http.client.HTTPException) as error:
            _LOG.debug("A connection ended: %s", error)

    def handle_one_request(self) -> None:
        """Serve one request, within its time."""
        self._reader.end_s = time.monotonic() + self.server.limits.wait_s
        self._reader.left_bytes = _HEAD_BYTES
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer."""
        self._serve()

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self._serve()

    def do_POST(self) -> None:
        """Answer."""
        self._serve()

    def handle_expect_100(self) -> bool:
        """Ask for the body only if it will be taken."""
        try:
            self._check()
        except ApiError as error:
            self._refuse(error)
            return False
        return super().handle_expect_100()

    def _serve(self) -> None:
        try:
            length = self._check()
            self._reader.left_bytes += length
            body = self.rfile.read(length) if length else b""
            if len(body) != length:
                raise ApiError(400, f"Expected {length} bytes of body, got {len(body)}")  # noqa: TRY301 - as the others
            split = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(split.query, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
            path = urllib.parse.unquote(split.path, errors="strict")
            headers = {key.lower(): value for key, value in self.headers.items()}
            method = "GET" if self.command == "HEAD" else self.command
            reply = self.server.answer(Request(method=method, path=path, query=query, headers=headers, body=body))
        except ApiError as error:
            self._refuse(error)
        except ValueError as error:  # of urllib: a port that is no number, a query of too many fields, no UTF-8
            self._refuse(ApiError(400, f"Expected a valid address, got: {error}"))
        else:
            self._send(reply)

    def _check(self) -> int:
        """Check the head; return the length of the body.

        1. One Host at most; on loopback it names this machine: a page of another site that had its name point here
           (DNS rebinding) sends that site's.
        2. An Origin, which browsers send with what a page posts, is this interface's own.
        3. The token, if there is one, compared in constant time.
        4. A length before a body, within the limit; no other framing.

        Raises:
            ApiError: If one fails.
        """
        limits, hosts = self.server.limits, self.headers.get_all("Host", [])
        if len(hosts) != 1 and not (not hosts and self.request_version == "HTTP/1.0"):
            raise ApiError(400, f"Expected one Host, got {len(hosts)}")
        host = hosts[0].strip().lower() if hosts else ""
        if limits.local and host and _without_port(host) not in _LOCAL_NAMES:
            raise ApiError(421, f"Expected localhost or 127.0.0.1 as Host, got {host[:80]!r}")
        if any(origin.strip().lower() != f"http://{host}" for origin in self.headers.get_all("Origin", [])):
            raise ApiError(403, "Expected a request from this interface's own page, got another origin")
        if limits.token:
            given = self.headers.get("Authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, b"Bearer " + limits.token):
                raise ApiError(401, "Expected the header Authorization: Bearer TOKEN, got another or none")
        if self.headers.get_all("Transfer-Encoding"):
            raise ApiError(411, "Expected a body with Content-Length, got Transfer-Encoding")
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) > 1 or not all(text.isascii() and text.isdigit() and len(text) <= 12 for text in lengths):  # noqa: PLR2004 - digits
            raise ApiError(400, f"Expected one Content-Length, a number, got {', '.join(lengths)[:40]!r}")
        if self.command == "POST" and not lengths:
            raise ApiError(411, "Expected Content-Length, got none")
        length = int(lengths[0]) if lengths else 0
        if length > limits.body_bytes:
            raise ApiError(413, f"Expected a body of at most {limits.body_bytes} bytes, got {length}")
        return length

    def _refuse(self, error: ApiError) -> None:
        """Send an error and close the connection: its body may not have been read."""
        self.close_connection = True
        headers = {"Retry-After": str(error.retry_s)} if error.retry_s else {}
        if error.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        self._send(json_reply({"error": str(error)}, error.status, headers))

    def _send(self, reply: Reply) -> None:
        self.server.count(reply.status)
        self.connection.settimeout(self.server.limits.wait_s)
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        for key, value in reply.headers.items():
            self.send_header(key, value)
        if reply.stream is None:
            self.send_header("Content-Length", str(len(reply.body)))
        else:
            self.close_connection = True
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if reply.stream is None:
            self.wfile.write(reply.body)
            return
        for piece in reply.stream:
            self.wfile.write(piece)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error of the base class as JSON: an unknown method, a head that is none."""
        del explain
        self.close_connection = True
        if self.request_version == self.default_request_version:  # of a head that is none; it would get no status
            self.request_version = "HTTP/1.1"
        self._send(json_reply({"error": message or HTTPStatus(code).phrase}, code))

    def address_string(self) -> str:
        """Return a name of the client for logs."""
        return "local" if isinstance(self.client_address, (str, bytes)) else str(self.client_address[0])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base class
        """Log requests only for debugging; never headers, which hold the token."""
        _LOG.debug("client=%s %s", self.address_string(), format % args)


def _without_port(host: str) -> str:
    name, _, port = host.rpartition(":")
    return name if port.isdigit() else host
