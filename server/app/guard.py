"""What stands before every request of a browser: its origin, the session of the pages' socket, and security headers.

The REST interface takes tokens in a header, which no browser sends by itself, so no other page can use it in a
visitor's name. The pages take a cookie: whatever changes something there, and the socket through which their buttons
act, has to come from a page of this server (``Origin``), beside the cookie's ``SameSite=Strict``. The socket also
needs an open session, so that nobody reaches a page by guessing its id.

Source: OWASP, "Cross-Site Request Forgery Prevention", verifying origin with standard headers; Fetch, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_COOKIE = "tinyfleet_session"
_SOCKET = "/_nicegui_ws/"
_PROGRAMS = ("/api/", "/blobs/", "/tuf/", "/metrics")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PAGES = {
    "default-src": "'self'",
    # NiceGUI starts each page by a script in it, without a nonce ('unsafe-inline'); Vue compiles the templates of
    # table cells in the browser ('unsafe-eval'). What is shown is escaped, so neither lets a text run.
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",  # Quasar and our pages set styles on elements
    "img-src": "'self' data: blob:",  # the empty icon, and charts that are saved as pictures
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
PAGES_CSP = "; ".join(f"{name} {sources}" for name, sources in _PAGES.items())
"""What a page may load and do; each exception from ``'self'`` with its reason."""
PROGRAMS_CSP = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",  # for browsers that don't know frame-ancestors
    "referrer-policy": "same-origin",  # an id in an address stays here
}
_HSTS = "max-age=31536000"  # a year; without subdomains, which may be other servers


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, *, is_open: Callable[[str], bool],
        public_url: Callable[[], str],
    ) -> None:  # fmt: skip
        """Guard ``app``.

        Args:
            app: the application.
            is_open: whether the cookie is that of an open session.
            public_url: the address that this server is reached at, if another than the request names.
        """
        self.app, self.is_open, self.public_url = app, is_open, public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or socket, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal:
            await _refuse(scope, send, refusal)
        elif scope["type"] == "websocket":
            await self.app(scope, receive, send)
        else:
            await self.app(scope, receive, _with_headers(scope, send))

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> str:
        """Return why a request is refused, "" if it is not."""
        path: str = scope["path"]
        socket = path.startswith(_SOCKET)
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if (socket or (changes and not path.startswith(_PROGRAMS))) and self._is_foreign(headers):
            return "Expected a request of a page of this server, got one of another origin"
        if socket and not self.is_open(_cookie(headers.get("cookie", ""))):
            return "Expected an open session, got none: log in"
        return ""

    def _is_foreign(self, headers: Mapping[str, str]) -> bool:
        """Return whether a browser says that another site's page sent this; a program says nothing."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
        try:
            host = urlsplit(origin).netloc.lower()
        except ValueError:
            return True
        return not host or host not in {headers.get("host", "").lower(), urlsplit(self.public_url()).netloc.lower()}


def _cookie(text: str) -> str:
    try:
        found = SimpleCookie(text).get(SESSION_COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""


async def _refuse(scope: Scope, send: Send, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})


def _with_headers(scope: Scope, send: Send) -> Send:
    added = {**_ALWAYS, "content-security-policy": PROGRAMS_CSP if _is_for_programs(scope["path"]) else PAGES_CSP}
    if scope.get("scheme") == "https":
        added["strict-transport-security"] = _HSTS

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            known = {name.lower() for name, _ in given}
            given += [(name.encode(), value.encode()) for name, value in added.items() if name.encode() not in known]
            message["headers"] = given
        await send(message)

    return sending


def _is_for_programs(path: str) -> bool:
    return path.startswith(_PROGRAMS)
