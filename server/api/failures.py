"""Formats errors for callers: a problem with ``code`` and ``text`` and the right status, never a stack.

Source: RFC 9457, "Problem Details for HTTP APIs". ``text`` repeats ``detail``, ``code`` is the end of ``type``: they
were here first, and agents in the field read them.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from server.errors import DiskFullError, ServerError, UnauthorizedError
from wire.errors import WireError

_LOG = logging.getLogger(__name__)
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PROBLEM = "application/problem+json"
_SHOWN = 100  # characters of a wrong value


def install(api: FastAPI) -> None:
    """Make every error of the API answer with a problem."""
    api.add_exception_handler(ServerError, _server_error)
    api.add_exception_handler(WireError, _wire_error)
    api.add_exception_handler(OSError, _disk_error)
    api.add_exception_handler(UnicodeEncodeError, _not_unicode)
    api.add_exception_handler(RequestValidationError, _invalid_request)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(Exception, _fault)


def unknown_path() -> APIRouter:
    """Return the last route below ``/api``, so that an unknown path is not answered by a page."""
    routes = APIRouter()

    verbs = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS"]

    @routes.api_route("/api/{rest:path}", methods=verbs, include_in_schema=False)
    def unknown(rest: str, request: Request) -> JSONResponse:
        """Answer that there is no such path, or that it has other methods."""
        known = sorted(_methods(request.app.openapi()["paths"], request.url.path))
        if known:
            text = f"Expected {' or '.join(known)} for /api/{rest[:100]}, got {request.method}"
            return answer(405, "http_405", text, {"Allow": ", ".join(known)})
        return answer(404, "http_404", f"Expected a path that /api/docs lists, got /api/{rest[:100]}")

    return routes


def _methods(paths: Mapping[str, Mapping[str, object]], path: str) -> set[str]:
    """Return the methods that the description of the interface (``paths``) has for ``path``."""
    return {verb.upper() for form, calls in paths.items() if _pattern(form).match(path) for verb in calls}


@cache
def _pattern(form: str) -> re.Pattern[str]:
    return compile_path(form)[0]


def answer(status: int, code: str, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer for an error."""
    sendable = text.encode(errors="backslashreplace").decode()  # it may quote what the caller sent
    problem = {
        "type": f"urn:tinyfleet:problem:{code}", "title": code.replace("_", " "), "status": status, "detail": sendable,
        "code": code, "text": sendable,
    }  # fmt: skip
    return JSONResponse(problem, status, headers, PROBLEM)


def _server_error(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, ServerError) else 500
    headers = {"WWW-Authenticate": "Bearer, Basic"} if isinstance(error, UnauthorizedError) else None
    return answer(status, getattr(error, "code", "server"), str(error), headers)


def _wire_error(_: Request, error: Exception) -> JSONResponse:
    return answer(422, getattr(error, "code", "wire"), str(error))


def _not_unicode(_: Request, error: Exception) -> JSONResponse:
    """Answer to a text with a lone surrogate, which JSON can carry and UTF-8 can't."""
    return answer(422, "request_invalid", f"Expected text in Unicode, got: {error}")


def _disk_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, OSError) and error.errno in _FULL:
        text = f"Expected room on the server's disk, got: {error.strerror}: free it; nothing was stored"
        return answer(DiskFullError.status, DiskFullError.code, text)
    return _fault(request, error)


def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return answer(422, "request_invalid", "Expected a valid request, got " + "; ".join(map(_said, problems[:5])))


def _said(problem: Mapping[str, Any]) -> str:
    """Return the wrong field, the expectation, and the value if it is short enough to show."""
    said = f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
    value = problem.get("input")
    shown = (
        repr(value) if isinstance(value, str | float | bool) or (isinstance(value, int) and abs(value) < 2**64) else ""
    )
    return f"{said}, got {shown[:_SHOWN]}" if shown and "claim" not in problem["loc"] else said


def _http_error(_: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = str(error.detail) if isinstance(error, HTTPException) else str(error)
    return answer(status, f"http_{status}", text, dict(getattr(error, "headers", None) or {}))


def _fault(request: Request, error: Exception) -> JSONResponse:
    _LOG.error("A request failed in an unforeseen way. path=%s", request.url.path, exc_info=error)
    return answer(500, "internal", "The server failed unexpectedly; see its log")
