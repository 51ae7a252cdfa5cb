"""What every HTTP answer gets on its way out: an ETag, so that a script that asks again gets 304, and gzip.

Also keeps log lines that any stranger can cause (an unknown page, a broken request) out of the warnings.
"""

from __future__ import annotations

import hashlib
import logging

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SMALL = 1_000  # bytes below which compression gains nothing
_LEVEL = 5  # 9 takes three times as long for 2 % fewer bytes of a list of devices
_JSON = "application/json"
_PACKED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream")  # bundles are compressed already
_STRANGERS = ("not found", "Invalid HTTP request received", "Unsupported upgrade request", "No supported WebSocket")


class TaggedAnswers:
    """ASGI middleware: a JSON answer to GET carries a weak ETag, and is 304 without a body if the caller has it.

    An answer that forbids caching (``no-store``) is left alone. Source: RFC 9110, sections 8.8.3, 13.1.2 and 15.4.5.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Tag the answers of ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith("/api/"):
            await self.app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = Headers(raw=message["headers"])
                plain = message["status"] == 200 and headers.get("content-type", "").startswith(_JSON)  # noqa: PLR2004
                if plain and "no-store" not in headers.get("cache-control", ""):
                    start.update(message)
                    return
            if not start:
                await send(message)
                return
            body.extend(message.get("body", b""))
            if not message.get("more_body", False):
                await _send_tagged(start, bytes(body), Headers(scope=scope), send)

        await self.app(scope, receive, tagged)


async def _send_tagged(start: Message, body: bytes, asked: Headers, send: Send) -> None:
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["ETag"] = tag
    headers["Cache-Control"] = "private, no-cache"  # may be kept, and is asked for again each time
    headers.add_vary_header("Authorization")
    if _is_known(tag, asked.get("if-none-match", "")):
        del headers["content-length"], headers["content-type"]
        await send({"type": "http.response.start", "status": 304, "headers": headers.raw})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": body})


def _is_known(tag: str, given: str) -> bool:
    """Return whether ``tag`` is among those of If-None-Match; weak comparison, as the RFC demands here."""
    wanted = tag.removeprefix("W/")
    return given.strip() == "*" or wanted in {one.strip().removeprefix("W/") for one in given.split(",")}


def dress(api: FastAPI) -> None:
    """Add ETag and gzip to ``api``, and quiet what strangers can cause."""
    api.add_middleware(TaggedAnswers)
    api.add_middleware(GZipMiddleware, minimum_size=_SMALL, compresslevel=_LEVEL, exclude_content_types=_PACKED)
    for name in ("nicegui", "uvicorn.error"):
        log = logging.getLogger(name)
        if not any(isinstance(one, _NoStrangers) for one in log.filters):
            log.addFilter(_NoStrangers())


class _NoStrangers(logging.Filter):
    """Turns a warning that anybody can cause, without a token, into a line for ``--verbose``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lower the level of such a record."""
        if record.levelno == logging.WARNING and any(text in record.getMessage() for text in _STRANGERS):
            record.levelno, record.levelname = logging.INFO, "INFO"
            return logging.getLogger(record.name).isEnabledFor(logging.INFO)
        return True
