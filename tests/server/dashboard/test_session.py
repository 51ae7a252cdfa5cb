"""Who may see the pages: sessions start with a name and a password, end, and reveal nothing about them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.access.audit_log import AuditLog
from server.access.limits import LoginLimits
from server.access.logins import Logins
from server.access.passwords import Passwords
from server.access.roles import Role
from server.access.sessions import SessionStore
from server.access.users import Users
from server.dashboard.session import COOKIE, KNOWN, Sessions, add_login
from server.store.database import open_database

TOKEN = "operator-token-with-enough-letters"
PASSWORD = "a long enough password"
HOUR_MS = 3_600_000


class Clock:
    """A clock that a test moves."""

    now_ms = HOUR_MS

    def __call__(self) -> int:
        """Return the time."""
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock()


@pytest.fixture
def client(clock: Clock, tmp_path: Path) -> TestClient:
    """Return a client of an application with only the login, and a user."""
    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    users = Users(database=database, passwords=Passwords(memory_kib=64, passes=1), clock=clock)
    users.add("ada", "viewer", PASSWORD, by="test")
    sessions = SessionStore(
        users=users, clock=clock, file_role=Role.APPROVER, idle_ms=4 * HOUR_MS, life_ms=12 * HOUR_MS
    )
    logins = Logins(
        users=users, sessions=sessions, limits=LoginLimits(clock=clock), log=AuditLog(database), operator_token=TOKEN,
        clock=clock,
    )  # fmt: skip
    app = FastAPI()
    add_login(app, Sessions(logins))
    return TestClient(app, follow_redirects=False)


@pytest.mark.parametrize("fields", [
    {"name": "ada", "password": PASSWORD}, {"name": "operator", "password": f" {TOKEN}\n"}, {"token": TOKEN},
])  # fmt: skip
def test_what_fits_opens_a_session(client: TestClient, fields: dict[str, str]) -> None:
    """The answer leads to the pages; the login page is not shown again."""
    answer = client.post("/login", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/login").status_code == 303


@pytest.mark.parametrize("body", [
    "", "token=", "token=wrong", "other=1", "token=" + "x" * 10_000, "\xff\xfe", "name=ada&password=wrong",
    f"name=nobody&password={PASSWORD}", f"name=ada&password={TOKEN}", "name=ada", "name=%00&password=%00",
])  # fmt: skip
def test_anything_else_opens_none(client: TestClient, body: str) -> None:
    """Empty, wrong, unknown, oversize and garbled bodies are one refusal, in the same words."""
    answer = client.post("/login", content=body)
    assert answer.status_code == 401
    assert COOKIE not in answer.cookies
    assert "That name and password do not belong together." in answer.text


def test_password_and_token_are_in_no_answer(client: TestClient) -> None:
    """Neither header, cookie nor page carries them."""
    for fields, secret in (({"token": TOKEN}, TOKEN), ({"name": "ada", "password": PASSWORD}, PASSWORD)):
        answer = client.post("/login", data=fields)
        assert secret not in answer.text + str(answer.headers)
        cookies = answer.headers.get_list("set-cookie")
        assert [all(flag in one for flag in ("HttpOnly", "SameSite=strict")) for one in cookies] == [True, True]
        assert [KNOWN in one and "Path=/login" in one for one in cookies] == [False, True]


def test_a_session_ends_after_a_working_day(client: TestClient, clock: Clock) -> None:
    """The next day the password is needed again."""
    client.post("/login", data={"token": TOKEN})
    clock.now_ms += 13 * HOUR_MS
    assert client.get("/login").status_code == 200


@pytest.mark.parametrize("path", ["/logout", "/logout/everywhere"])
def test_logging_out_ends_the_session_on_the_server(client: TestClient, path: str) -> None:
    """Keeping the cookie doesn't help."""
    cookie = client.post("/login", data={"token": TOKEN}).cookies[COOKIE]
    client.post(path)
    client.cookies.set(COOKIE, cookie)
    assert client.get("/login").status_code == 200


def test_an_invented_cookie_opens_nothing(client: TestClient) -> None:
    """Only values that this process gave out count."""
    client.cookies.set(COOKIE, "x" * 43)
    assert client.get("/login").status_code == 200


def test_guessing_is_slowed_to_some_tries_a_minute(client: TestClient, clock: Clock) -> None:
    """After ten wrong tokens even the right one waits; a minute later it opens."""
    for _ in range(10):
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
    answer = client.post("/login", data={"token": TOKEN})
    assert (answer.status_code, "wait a minute" in answer.text) == (429, True)
    clock.now_ms += 60_000
    assert client.post("/login", data={"token": TOKEN}).status_code == 303


def test_a_browser_that_logged_in_before_is_not_held_up_by_strangers(client: TestClient, clock: Clock) -> None:
    """Its cookie, which goes to the login alone, shows it."""
    client.post("/login", data={"name": "ada", "password": PASSWORD})
    client.post("/logout")
    for _ in range(3):
        for _ in range(10):
            TestClient(client.app).post("/login", data={"name": "ada", "password": "wrong"})
        clock.now_ms += 60_000
    stranger = TestClient(client.app).post("/login", data={"name": "ada", "password": PASSWORD})
    assert (stranger.status_code, "wait 12 minutes" in stranger.text) == (429, True)
    assert client.post("/login", data={"name": "ada", "password": PASSWORD}).status_code == 303
