"""Browsers: pages and their socket are reached from this server's own pages alone, by a session, and by role."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from server.access.passwords import Passwords
from server.app.guard import Guard
from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.dashboard.session import COOKIE
from server.trust.online_keys import init_online_keys
from wire.memory_broker import MemoryBroker, MemoryTransport

PASSWORD = "a long enough password"
FOREIGN = "http://evil.example"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerApp]:
    """A running server with a user of each role."""
    state = init_state(tmp_path_factory.mktemp("guard") / "state")
    init_online_keys(state.path)
    config = "[access]\npassword_memory_kib = 64\npassword_passes = 1\n"
    state.config.write_text(state.config.read_text(encoding="utf-8") + config, encoding="utf-8")
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    for role in ("viewer", "labeller", "operator", "approver"):
        app.parts.users.add(f"a-{role}", role, PASSWORD, by="test")
    app.start()
    yield app
    app.stop()


def visitor(app: ServerApp, name: str) -> httpx.Client:
    """Return a browser in which a user has logged in."""
    client = httpx.Client(base_url=app.http_url)
    assert client.post("/login", data={"name": name, "password": PASSWORD}).status_code == 303
    return client


def socket(
    app: ServerApp, client: httpx.Client, origin: str | None, *, page: str = "", cookie: bool = True
) -> ClientConnection:  # fmt: skip
    """Return the open socket of a page, as a browser opens it."""
    found = re.search(r"'client_id': '([0-9a-f-]+)'", page)
    query = {
        "EIO": "4", "transport": "websocket", "client_id": found.group(1) if found else "x", "tab_id": "t",
        "document_id": "d", "next_message_id": "0", "implicit_handshake": "true" if page else "false",
    }  # fmt: skip
    headers = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"} if cookie else {}
    url = f"{app.http_url.replace('http', 'ws')}/_nicegui_ws/socket.io/?{urlencode(query)}"
    return connect(url, origin=origin, additional_headers=headers, open_timeout=20)  # type: ignore[arg-type]  # any text


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 303), ({"Origin": "own"}, 303), ({"Sec-Fetch-Site": "same-origin"}, 303), ({"Origin": FOREIGN}, 403),
    ({"Origin": "null"}, 403), ({"Origin": "http://["}, 403), ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "same-site"}, 403), ({"Origin": "own", "Sec-Fetch-Site": "cross-site"}, 303),
])  # fmt: skip
def test_a_login_from_another_site_is_refused(app: ServerApp, headers: Mapping[str, str], status: int) -> None:
    """A page of another site must not log a visitor in as somebody else; a program sends neither header."""
    given = {name: app.http_url if value == "own" else value for name, value in headers.items()}
    answer = httpx.post(f"{app.http_url}/login", data={"name": "a-viewer", "password": PASSWORD}, headers=given)
    assert answer.status_code == status
    assert (COOKIE in answer.cookies) == (status == 303)


@pytest.mark.parametrize("path", ["/logout", "/logout/everywhere"])
def test_another_site_does_not_log_anybody_out(app: ServerApp, path: str) -> None:
    """Its request is refused before the session is looked at."""
    with closing(visitor(app, "a-viewer")) as client:
        assert client.post(path, headers={"Origin": FOREIGN}).status_code == 403
        assert client.get("/events").status_code == 200


def test_the_public_address_is_an_own_origin() -> None:
    """A proxy in front may change the host that a request names."""
    app = FastAPI()
    app.add_middleware(Guard, is_open=lambda _: False, public_url=lambda: "https://fleet.example:8443")

    @app.post("/login")
    def enter() -> None:
        """Do what a login does."""

    client = TestClient(app, base_url="http://10.0.0.1:8080")
    origins = ("https://fleet.example:8443", "http://10.0.0.1:8080", "https://fleet.example", "http://10.0.0.1")
    answers = [client.post("/login", headers={"Origin": one}) for one in origins]
    assert [answer.status_code for answer in answers] == [200, 200, 403, 403]


def test_pages_and_answers_have_their_headers(app: ServerApp) -> None:
    """Nothing frames them, loads from elsewhere, or is taken for another type; over plain HTTP without HSTS."""
    with closing(visitor(app, "a-viewer")) as client:
        for path in ("/", "/login", "/api/health", "/api/nothing"):
            headers = client.get(path, follow_redirects=False).headers
            policy = headers["content-security-policy"]
            assert "frame-ancestors 'none'" in policy, path
            assert "default-src 'none'" in policy if path.startswith("/api") else "object-src 'none'" in policy
            found = [headers[name] for name in ("x-content-type-options", "referrer-policy", "x-frame-options")]
            assert found == ["nosniff", "same-origin", "DENY"]
            assert "strict-transport-security" not in headers
        assert "script-src" not in client.get("/api/docs").headers["content-security-policy"], "its own is stricter"


def test_under_tls_browsers_stay_there() -> None:
    """For a year."""
    app = FastAPI()
    app.add_middleware(Guard, is_open=lambda _: False, public_url=lambda: "")
    headers = TestClient(app, base_url="https://fleet.example").get("/").headers
    assert headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(("origin", "cookie"), [(FOREIGN, True), ("null", True), ("own", False), (None, False)])
def test_the_socket_refuses_other_origins_and_strangers(app: ServerApp, origin: str | None, *, cookie: bool) -> None:
    """By a real handshake, and by polling, which is the same interface."""
    given = app.http_url if origin == "own" else origin
    with closing(visitor(app, "a-viewer")) as client:
        with pytest.raises(InvalidStatus) as refused:
            socket(app, client, given, cookie=cookie)
        assert refused.value.response.status_code == 403
        headers = {"Origin": given} if given else {}
        polled = (client if cookie else httpx.Client(base_url=app.http_url)).get(
            "/_nicegui_ws/socket.io/?EIO=4&transport=polling", headers=headers
        )
        assert polled.status_code == 403


@pytest.mark.parametrize("end", ["/logout", "disable"])
def test_the_socket_of_a_page_closes_when_its_session_ends(app: ServerApp, end: str) -> None:
    """The browser is sent to the login page first; a browser that stays is cut."""
    name = f"b-{end.strip('/')}"
    app.parts.users.add(name, "viewer", PASSWORD, by="test")
    with closing(visitor(app, name)) as client, socket(
        app, client, app.http_url, page=client.get("/events").text
    ) as opened:  # fmt: skip
        assert opened.recv(timeout=20).startswith("0")  # Engine.IO: open
        opened.send("40")  # Socket.IO: connect
        assert opened.recv(timeout=20).startswith("40")
        client.post(end) if end.startswith("/") else app.parts.users.disable(name, by="test")
        said: list[str] = []
        with pytest.raises(ConnectionClosed):  # noqa: PT012 - a hundred messages: two minutes of pings
            for _ in range(100):
                said.append(str(opened.recv(timeout=30)))
                opened.send("3") if said[-1] == "2" else None  # Engine.IO: pong to a ping
        assert any('"/login"' in one for one in said)
        assert client.get("/events").headers["location"] == "/login"


@pytest.mark.parametrize(("role", "page", "offered"), [
    ("viewer", "/rollouts", False), ("labeller", "/rollouts", False), ("operator", "/rollouts", True),
])  # fmt: skip
def test_a_page_offers_what_its_visitor_may_do(app: ServerApp, role: str, page: str, *, offered: bool) -> None:
    """The form for a new rollout is an operator's; the account stands in the bar."""
    with closing(visitor(app, f"a-{role}")) as client:
        text = client.get(page).text
    assert (f"a-{role}" in text, "New rollout" in text) == (True, offered)


def test_cheap_passwords_are_of_this_test_alone() -> None:
    """The default is what RFC 9106 recommends where memory is scarce."""
    assert (Passwords().memory_kib, Passwords().passes) == (65_536, 3)
