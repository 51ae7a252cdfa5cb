"""Who may see the pages: sessions start with the token, expire, and reveal nothing about it."""

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from server.dashboard.session import COOKIE, Sessions, add_login

TOKEN = "operator-token-with-enough-letters"
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
def client(clock: Clock) -> TestClient:
    """Return a client of an application with only the login."""
    app = FastAPI()
    add_login(app, Sessions(is_operator=lambda token: token == TOKEN, clock=clock))
    return TestClient(app, follow_redirects=False)


def test_the_right_token_opens_a_session(client: TestClient) -> None:
    """The answer leads to the pages; the login page is not shown again."""
    answer = client.post("/login", data={"token": f" {TOKEN}\n"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert client.get("/login").status_code == 303


@pytest.mark.parametrize("body", ["", "token=", "token=wrong", "other=1", "token=" + "x" * 10_000, "\xff\xfe"])
def test_anything_else_opens_none(client: TestClient, body: str) -> None:
    """Empty, wrong, oversize and garbled bodies are one refusal."""
    answer = client.post("/login", content=body)
    assert answer.status_code == 401
    assert COOKIE not in answer.cookies
    assert "not the operator's token" in answer.text.replace("&#x27;", "'")


def test_the_token_is_in_no_answer(client: TestClient) -> None:
    """Neither header, cookie nor page carries it."""
    answer = client.post("/login", data={"token": TOKEN})
    assert TOKEN not in answer.text + str(answer.headers)
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "SameSite=strict" in answer.headers["set-cookie"]


def test_a_session_ends_after_a_working_day(client: TestClient, clock: Clock) -> None:
    """The next day the token is needed again."""
    client.post("/login", data={"token": TOKEN})
    clock.now_ms += 13 * HOUR_MS
    assert client.get("/login").status_code == 200


def test_logging_out_ends_the_session_on_the_server(client: TestClient) -> None:
    """Keeping the cookie doesn't help."""
    cookie = client.post("/login", data={"token": TOKEN}).cookies[COOKIE]
    client.post("/logout")
    client.cookies.set(COOKIE, cookie)
    assert client.get("/login").status_code == 200


def test_an_invented_cookie_opens_nothing(client: TestClient) -> None:
    """Only values that this process gave out count."""
    client.cookies.set(COOKIE, "x" * 43)
    assert client.get("/login").status_code == 200


def test_the_oldest_of_very_many_sessions_goes(clock: Clock) -> None:
    """Memory stays bounded."""
    sessions = Sessions(is_operator=lambda _: True, clock=clock)
    for _ in range(1_000):
        sessions.open("any")
    assert len(sessions._expires_ms) == 256


def test_guessing_is_slowed_to_some_tries_a_minute(client: TestClient, clock: Clock) -> None:
    """After ten wrong tokens even the right one waits; a minute later it opens."""
    for _ in range(10):
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
    answer = client.post("/login", data={"token": TOKEN})
    assert (answer.status_code, "wait a minute" in answer.text) == (429, True)
    clock.now_ms += 60_000
    assert client.post("/login", data={"token": TOKEN}).status_code == 303


def test_one_address_does_not_lock_out_another(clock: Clock) -> None:
    """Failures count by address, and their memory is bounded."""
    sessions = Sessions(is_operator=lambda _: False, clock=clock)
    for number in range(5_000):
        sessions.note_failure("192.0.2.1" if number < 10 else f"address {number}")
    assert len(sessions._failures_ms) == 1_024
    for _ in range(10):
        sessions.note_failure("192.0.2.2")
    assert (sessions.may_try("192.0.2.2"), sessions.may_try("192.0.2.3")) == (False, True)
