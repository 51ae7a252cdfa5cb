"""Sessions of the pages: a person enters the operator's token once, on the login page.

The token is sent in the body of one POST and is in no URL, cookie or log. The cookie is a random number that is valid
only in this process: after a restart of the server the token is asked for again.
"""

from __future__ import annotations

import html
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from server.clock import Clock
from server.dashboard.theme import LOGIN, STYLE

COOKIE = "tinyfleet_session"
_LIFETIME_MS = 12 * 3_600_000  # a working day; the token is on the server's own disk
_MAX_SESSIONS = 256  # the oldest goes first
_MAX_BODY_BYTES = 4_096
_MINUTE_MS = 60_000
_MAX_FAILURES = 10  # per minute and address: a person who mistypes never reaches it
_MAX_ADDRESSES = 1_024


@dataclass(slots=True, kw_only=True)
class Sessions:
    """The sessions of this process. Safe to share between threads."""

    is_operator: Callable[[str], bool]
    clock: Clock
    _expires_ms: dict[str, int] = field(default_factory=dict)
    _failures_ms: dict[str, list[int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, token: str) -> str | None:
        """Return a new session's cookie value, or None when ``token`` is not the operator's."""
        if not self.is_operator(token):
            return None
        cookie = secrets.token_urlsafe(32)
        with self._lock:
            self._expires_ms[cookie] = self.clock() + _LIFETIME_MS
            while len(self._expires_ms) > _MAX_SESSIONS:
                del self._expires_ms[next(iter(self._expires_ms))]
        return cookie

    def may_try(self, address: str) -> bool:
        """Return whether ``address`` is below the limit of failures per minute."""
        with self._lock:
            return len(self._recent(address)) < _MAX_FAILURES

    def note_failure(self, address: str) -> None:
        """Record a wrong token."""
        with self._lock:
            self._failures_ms[address] = [*self._recent(address), self.clock()]
            while len(self._failures_ms) > _MAX_ADDRESSES:
                del self._failures_ms[next(iter(self._failures_ms))]

    def _recent(self, address: str) -> list[int]:
        return [at_ms for at_ms in self._failures_ms.get(address, ()) if self.clock() - at_ms < _MINUTE_MS]

    def is_open(self, request: Request) -> bool:
        """Return whether ``request`` comes from a person who is logged in."""
        with self._lock:
            return self._expires_ms.get(request.cookies.get(COOKIE, ""), 0) > self.clock()

    def close(self, request: Request) -> None:
        """End the session of ``request``."""
        with self._lock:
            self._expires_ms.pop(request.cookies.get(COOKIE, ""), None)

    def refusal(self, request: Request) -> Response | None:
        """Return a redirect to the login page if the visitor is not logged in, otherwise None."""
        return None if self.is_open(request) else RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)


def add_login(app: FastAPI, sessions: Sessions) -> None:
    """Add the login page and the route it posts to; plain HTML, so that it needs no script."""

    @app.get(LOGIN, include_in_schema=False)
    def page(request: Request) -> Response:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER) if sessions.is_open(request) else _page("")

    @app.post(LOGIN, include_in_schema=False)
    async def enter(request: Request) -> Response:
        address = request.client.host if request.client else ""
        if not sessions.may_try(address):
            return _page("Too many wrong tokens from your address: wait a minute.", HTTPStatus.TOO_MANY_REQUESTS)
        cookie = sessions.open(await _token(request))
        if cookie is None:
            sessions.note_failure(address)
            return _page("That is not the operator's token. It is in the file operator.token of the server's state.")
        answer = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie, max_age=_LIFETIME_MS // 1000, httponly=True, samesite="strict", secure=secure)
        return answer

    @app.post("/logout", include_in_schema=False)
    def leave(request: Request) -> Response:
        sessions.close(request)
        answer = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
        answer.delete_cookie(COOKIE)
        return answer


async def _token(request: Request) -> str:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            return ""
    return parse_qs(body.decode(errors="replace")).get("token", [""])[0].strip()


def _page(problem: str, refused: HTTPStatus = HTTPStatus.UNAUTHORIZED) -> HTMLResponse:
    alert = f'<p class="tf-alert" role="alert">{html.escape(problem)}</p>' if problem else ""
    status = refused if problem else HTTPStatus.OK
    return HTMLResponse(_LOGIN_PAGE.replace("@STYLE@", STYLE).replace("@ALERT@", alert), status)


_LOGIN_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tinyfleet: log in</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>@STYLE@</style></head>
<body class="tf-login"><main><form method="post" action="/login" class="tf-card">
<h1 class="tf-brand">tinyfleet</h1>
<p class="tf-muted">Enter the operator's token. It is in the file <code>operator.token</code> of the server's state
directory.</p>@ALERT@
<label for="token">Operator's token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<button type="submit">Log in</button>
</form></main></body></html>"""
