"""Who may ask, and how much: odd requests, slow ones, too many, and those that a browser was tricked into."""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.device.clock import SystemClock
from edge_agent.errors import ApiError, SinkError
from edge_agent.local_api.api import ApiSurroundings, LocalApi
from edge_agent.local_api.settings import ApiConfig
from tests.edge_agent.conftest import free_port
from tests.edge_agent.local_api.conftest import Running
from tests.edge_agent.sinks.receiver import until
from wire.errors import SettingsError

_GET = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def talk(one: Running, sent: bytes, limit_s: float = 20.0) -> bytes:
    """Return all that comes back until the server closes."""
    with socket.create_connection(one.api.address, timeout=limit_s) as connection:
        found = b""
        with contextlib.suppress(OSError):  # it may be refused before all is sent
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                found += data
        return found


def alive(one: Running) -> None:
    """The interface answers, and its loop runs."""
    assert one.ask("GET", "/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.1:8500"}, 200),
        ({"Host": "[::1]:8500"}, 200),
        ({"Host": "LOCALHOST:1"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "localhost:80@evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example:8500"}, 421),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
    ],
)
def test_a_page_of_another_site_gets_nothing(headers: dict, status: int, running: Callable[..., Running]) -> None:
    """DNS rebinding sends the other site's Host, a cross-site request its Origin."""
    assert running().ask("GET", "/v2", **headers)[0] == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v2 HTTP/9.1\r\nHost: localhost\r\n\r\n", 505),
        (b"BREW /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"GET http://[/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v2?" + b"&".join([b"a=1"] * 17) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"DELETE /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n", 411),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\nx", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nxx", 400),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"POST /v2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n", 413),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"a%d: 1\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    ],
)
def test_a_request_that_breaks_the_rules_is_refused(sent: bytes, status: int, running: Callable[..., Running]) -> None:
    """Framing that two programs may read in two ways, and sizes beyond the limits, get a status and a closed line."""
    one = running(body_bytes=4096)
    assert talk(one, sent).split(b" ", 2)[1] == str(status).encode()
    alive(one)


def test_odd_bytes_never_end_or_stall_the_interface(running: Callable[..., Running]) -> None:
    """2,000 mutated requests, 300 of them noise: each connection is closed, and afterwards it answers."""
    one, chance = running(wait_s=2.0, body_bytes=4096), random.Random(7)  # noqa: S311 - fuzzing is no secret
    seeds = [
        _GET,
        b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n" + b'{"inputs":[{}]}',
        b"GET /v1/answers?n=5 HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: [::1]\r\nAuthorization: Bearer x\r\nOrigin: http://[::1]\r\n\r\n",
    ]
    started_s = time.monotonic()
    for number in range(2000):
        data = bytearray(chance.choice(seeds))
        if number < 300:
            data = bytearray(chance.randbytes(chance.randrange(200)))
        for _ in range(chance.randrange(6)):
            place = chance.randrange(len(data) + 1)
            data[place : place + chance.randrange(3)] = chance.choice(
                [b"\r\n", b"\0", b"\xff", b":", b" ", b"/", b"%", chance.randbytes(2), b"9" * 20]
            )
        talk(one, bytes(data))
    assert time.monotonic() - started_s < 120
    alive(one)


def test_a_slow_client_is_cut_off_and_stops_nobody(running: Callable[..., Running]) -> None:
    """A byte a moment does not keep a connection: the time is for the whole request."""
    one = running(wait_s=0.5)
    with socket.create_connection(one.api.address, timeout=20) as connection:
        started_s = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in _GET * 4:
                connection.sendall(bytes([byte | 1]))
                alive(one)
                if time.monotonic() - started_s > 3:
                    break
            while connection.recv(4096):
                pass
        assert time.monotonic() - started_s < 6


def test_connections_beyond_the_limit_are_refused_and_free_again_later(running: Callable[..., Running]) -> None:
    """Idle ones hold their place at most as long as a request may take."""
    one = running(connections=2, wait_s=1.0)
    held = [socket.create_connection(one.api.address, timeout=20) for _ in range(2)]
    until(lambda: talk(one, _GET)[:12] in {b"HTTP/1.1 503", b""})
    until(lambda: talk(one, _GET)[:12] == b"HTTP/1.1 200")
    for connection in held:
        connection.close()


def test_one_connection_serves_many_requests(running: Callable[..., Running]) -> None:
    """Keep-alive, also over the unread rest of a buffer."""
    one = running()
    connection = http.client.HTTPConnection(*one.api.address, timeout=20)
    for _ in range(50):
        connection.request("GET", "/v2")
        assert connection.getresponse().read().startswith(b'{"name":"tinyfleet"')
    connection.close()


@pytest.mark.parametrize(("path", "status"), [("/v2", 200), ("/metrics", 200), ("/none", 404), ("/v1/correct", 405)])
def test_head_is_answered_as_get_without_the_body(path: str, status: int, running: Callable[..., Running]) -> None:
    """The length is that of the body which is left out, and the connection serves on."""
    one = running()
    connection = http.client.HTTPConnection(*one.api.address, timeout=20)
    heads = []
    for method in ("HEAD", "GET"):
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, body == b"") == (status, method == "HEAD")
        heads.append((answer.headers["Content-Type"], int(answer.headers["Content-Length"]) > 0))
    connection.close()
    assert heads[0] == heads[1]


def test_head_of_a_stream_ends_and_frees_its_place(running: Callable[..., Running]) -> None:
    """More of them than there may be streams at once."""
    one = running(connections=2)
    for _ in range(4):
        assert talk(one, _GET.replace(b"GET /v2 ", b"HEAD /v1/answers/stream "))[:12] == b"HTTP/1.1 200"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """A token that only its owner reads."""
    path = tmp_path / "token"
    path.write_text("a-token-of-this-device\n")
    path.chmod(0o600)
    return path


def test_a_token_is_required_and_never_logged(
    running: Callable[..., Running], token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it, and with another, nothing is answered; health neither."""
    caplog.set_level(logging.DEBUG)
    one = running(token_file=token_file)
    assert one.ask("GET", "/v2/health/live")[0] == 401
    assert one.ask("GET", "/v2", Authorization="Bearer a-token-of-this-devicE")[0] == 401
    assert one.ask("GET", "/v2", Authorization="Bearer \xff")[0] == 401
    assert one.ask("GET", "/v2", Authorization="Bearer a-token-of-this-device")[0] == 200
    assert "a-token" not in caplog.text
    assert "GET /v2" in caplog.text


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [("a-token-of-this-device", 0o640, "its owner only"), ("short", 0o600, "16 characters"), (None, 0, "write one")],
)
def test_a_token_that_protects_nothing_is_refused(text: str | None, mode: int, words: str, tmp_path: Path) -> None:
    """One that others read, a short one, a missing one: the interface does not open."""
    if text is not None:
        (tmp_path / "token").write_text(text)
        (tmp_path / "token").chmod(mode)
    with pytest.raises(ApiError, match=words):
        LocalApi(ApiConfig(listen="0.0.0.0:0", token_file=tmp_path / "token"), ApiSurroundings(model=SystemClock))


@pytest.mark.parametrize("listen", ["0.0.0.0:8500", "192.168.1.7:80", "[::]:80"])
def test_other_addresses_than_loopback_need_a_token(listen: str) -> None:
    """What others on the network could ask is protected."""
    with pytest.raises(SettingsError, match="token_file"):
        ApiConfig(listen=listen)
    assert ApiConfig(listen=listen, token_file=Path("t")).on


@pytest.mark.parametrize("listen", ["8500", "localhost", "example.org:80", "127.0.0.1:65536", "127.0.0.1:x", "[::1]"])
def test_an_address_that_is_none_is_named(listen: str) -> None:
    """ADDRESS:PORT, with an IP address or localhost."""
    with pytest.raises(SettingsError, match="Expected listen as ADDRESS:PORT"):
        ApiConfig(listen=listen)


def test_a_unix_socket_serves_the_same_to_owner_and_group(running: Callable[..., Running]) -> None:
    """It needs no token, and is removed at the end; a second one on it is refused."""
    with tempfile.TemporaryDirectory(prefix="tf-") as folder:
        path = Path(folder) / "api.sock"
        one = running(unix=path)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(path))
            connection.sendall(_GET)
            assert connection.recv(12) == b"HTTP/1.1 200"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(SinkError, match="another program"):
            LocalApi(ApiConfig(unix=path), ApiSurroundings(model=SystemClock))
        one.api.close()
        assert not path.exists()


def test_a_second_address_that_fails_frees_the_first(tmp_path: Path) -> None:
    """Nobody waits at a port that nobody serves."""
    port = free_port()
    (tmp_path / "s").write_text("a file")
    with pytest.raises(SinkError, match="another file"):
        LocalApi(ApiConfig(listen=f"127.0.0.1:{port}", unix=tmp_path / "s"), ApiSurroundings(model=SystemClock))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_port_in_use_is_named(running: Callable[..., Running]) -> None:
    """The error says which address."""
    port = running().api.address[1]
    with pytest.raises(ApiError, match=f"127.0.0.1:{port}, got: Address already in use"):
        LocalApi(ApiConfig(listen=f"127.0.0.1:{port}"), ApiSurroundings(model=SystemClock))
