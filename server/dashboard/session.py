"""The login page, and who visits a page by the cookie of the session.

A password or token is sent in the body of one POST and is in no URL, cookie or log. The cookie is a random number that
is valid only in this process: after a restart of the server everybody logs in again.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from server.access.logins import OPERATOR, Logins
from server.access.roles import Principal
from server.api.auth import address_of
from server.app.guard import SESSION_COOKIE
from server.dashboard.theme import LOGIN, STYLE

COOKIE = SESSION_COOKIE
KNOWN = "tinyfleet_known"
"""The cookie by which a browser shows that it has logged in to an account before: ``ACCOUNT:PROOF``."""
_KNOWN_S = 365 * 86_400
_MAX_BODY_BYTES = 4_096
_REFUSED = "That name and password do not belong together."


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions of the pages, by the cookie of a request. Safe to share between threads."""

    logins: Logins

    def principal(self, request: Request, *, acting: bool = False) -> Principal | None:
        """Return who visits, None for a person who is not logged in; ``acting``: the person does something now."""
        return self.logins.sessions.principal(request.cookies.get(COOKIE, ""), acting=acting)

    def is_open(self, request: Request) -> bool:
        """Return whether ``request`` comes from a person who is logged in."""
        return self.principal(request) is not None

    def refusal(self, request: Request) -> Response | None:
        """Return a redirect to the login page if the visitor is not logged in, otherwise None."""
        if self.principal(request, acting=True) is not None:
            return None
        return RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)


def add_login(app: FastAPI, sessions: Sessions) -> None:
    """Add the login page and the routes it posts to; plain HTML, so that it needs no script."""
    logins = sessions.logins

    @app.get(LOGIN, include_in_schema=False)
    def page(request: Request) -> Response:
        return RedirectResponse("/", HTTPStatus.SEE_OTHER) if sessions.is_open(request) else _page("")

    @app.post(LOGIN, include_in_schema=False)
    async def enter(request: Request) -> Response:
        name, password = await _entered(request)
        account, _, proof = request.cookies.get(KNOWN, "").partition(":")
        found = await run_in_threadpool(
            logins.log_in, name, password, address=address_of(request), proof=proof if account == name else ""
        )
        if found.wait_s:
            minutes = f"{-(-found.wait_s // 60)} minutes" if found.wait_s > 60 else "a minute"  # noqa: PLR2004
            return _page(f"Too many wrong logins: wait {minutes}.", HTTPStatus.TOO_MANY_REQUESTS)
        if not found.cookie:
            return _page(_REFUSED)
        answer, secure = RedirectResponse("/", HTTPStatus.SEE_OTHER), request.url.scheme == "https"
        life_s = logins.sessions.life_ms // 1_000
        answer.set_cookie(COOKIE, found.cookie, max_age=life_s, httponly=True, samesite="strict", secure=secure)
        answer.set_cookie(
            KNOWN, f"{name}:{found.proof}", max_age=_KNOWN_S, path=LOGIN, httponly=True, samesite="strict",
            secure=secure,
        )  # fmt: skip
        return answer

    @app.post("/logout", include_in_schema=False)
    def leave(request: Request) -> Response:
        logins.log_out(request.cookies.get(COOKIE, ""))
        return _left()

    @app.post("/logout/everywhere", include_in_schema=False)
    def leave_everywhere(request: Request) -> Response:
        logins.log_out_everywhere(request.cookies.get(COOKIE, ""))
        return _left()


def _left() -> Response:
    answer = RedirectResponse(LOGIN, HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE)
    return answer


async def _entered(request: Request) -> tuple[str, str]:
    """Return the name and the password of the form; a form with a ``token`` alone is the operator's."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > _MAX_BODY_BYTES:
            return "", ""
    fields = {name: values[0] for name, values in parse_qs(body.decode(errors="replace")).items()}
    if "token" in fields:
        return OPERATOR, fields["token"]
    return fields.get("name", "").strip().lower(), fields.get("password", "")


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
<p class="tf-muted">Without a name of your own, log in as <code>operator</code> with the token in the file
<code>operator.token</code> of the server's state directory.</p>@ALERT@
<label for="name">Name</label>
<input id="name" name="name" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="63" required
 autofocus>
<label for="password">Password or token</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button type="submit">Log in</button>
</form></main></body></html>"""
