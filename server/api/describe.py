"""``GET /api/docs``: every call on one plain page, made from the OpenAPI document; loads nothing from other hosts."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

from server.access.roles import Need
from server.api.auth import declared_need
from server.api.failures import PROBLEM
from server.errors import ServerError

_VERBS = ("get", "put", "post", "delete")
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A personal or service token, or one of the state."},
    "device": {"type": "http", "scheme": "basic", "description": "A device's id and password, or its certificate."},
}
_BY_DEVICES = frozenset({Need.DEVICE, Need.CERTIFIED_DEVICE})


def needs(routes: Iterable[Any]) -> Iterator[tuple[tuple[str, str], Need]]:
    """Yield what each operation needs of its caller, by verb (in lower case) and path.

    Raises:
        ServerError: If one declares nothing: an omission must not open it to anybody.
    """
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from needs(included.routes)
        elif getattr(route, "include_in_schema", False) and hasattr(route, "dependant"):
            need = declared_need(one.call for one in route.dependant.dependencies)
            if need is None:
                message = f"Expected a need among the dependencies of {route.path}, got none: see server/api/auth.py"
                raise ServerError(message)
            yield from (((verb.lower(), route.path), need) for verb in route.methods)


_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "Why the request was refused: RFC 9457, with code and text as agents read them.",
    "required": ["type", "title", "status", "detail", "code", "text"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
        "detail": {"type": "string"}, "code": {"type": "string"}, "text": {"type": "string"},
    },
}  # fmt: skip
_REFUSALS = {
    400: "the body can't be parsed", 401: "no credentials, or wrong ones", 403: "the caller's role does not suffice",
    404: "no such thing", 409: "not in its present state", 413: "too large", 422: "a value that can't be used",
    503: "the database does not answer: ask again later", 507: "the disk is full: nothing was stored",
}  # fmt: skip
_UNKNOWN_IN_BODY = frozenset(
    {
        ("get", "/api/tuf/targets"), ("post", "/api/rollouts"), ("post", "/api/measurements"), ("post", "/api/tokens"),
        ("post", "/api/commissions"), ("get", "/api/lineage"), ("get", "/api/lineage/devices"),
        ("get", "/api/lineage/samples"),
    }
)  # fmt: skip
"""Operations without a parameter in their path that need something which may not be there."""


def complete(api: FastAPI) -> None:
    """Let the OpenAPI document say what FastAPI doesn't know: what each operation needs, and how it may refuse.

    ``x-needs`` and the security scheme; each status of a refusal, with what such an answer has.

    Raises:
        ServerError: If an operation declares no need.
    """
    known, plain = dict(needs(api.routes)), api.openapi

    @cache
    def document() -> dict[str, Any]:
        made = plain()
        components = made.setdefault("components", {})
        components["securitySchemes"] = _SCHEMES
        components.setdefault("schemas", {})["Problem"] = _PROBLEM
        for path, calls in made["paths"].items():
            for verb in (verb for verb in _VERBS if verb in calls):
                _add_need(calls[verb], known[verb, path])
                _add_refusals(calls[verb], path, verb)
        return made

    api.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _add_need(call: dict[str, Any], need: Need) -> None:
    call["x-needs"] = need.value
    token: list[dict[str, list[str]]] = [] if need in _BY_DEVICES else [{"token": []}]
    either = need in _BY_DEVICES or need is Need.DEVICE_OR_STAFF
    device: list[dict[str, list[str]]] = [{"device": []}] if either else []
    call["security"] = [] if need is Need.ANYBODY else [*token, *device]


def _add_refusals(call: dict[str, Any], path: str, verb: str) -> None:
    answers = call.setdefault("responses", {})
    for status in _refusals(path, verb, call):
        if "content" not in answers.get(str(status), {}) or status == HTTPStatus.UNPROCESSABLE_ENTITY:
            answers[str(status)] = _refusal(status)


def _refusals(path: str, verb: str, call: Mapping[str, Any]) -> Iterator[int]:
    yield from (422, 503)
    if call.get("security"):
        yield from (401, 403)
    if "{" in path or (verb, path) in _UNKNOWN_IN_BODY:
        yield 404
    if verb != "get":
        yield from (409, 507)
    if "requestBody" in call:
        yield from (400, 413)


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": _REFUSALS[status], "content": {PROBLEM: {"schema": schema}}}


def router(api: FastAPI) -> APIRouter:
    """Return the public route; the page shows nothing beyond the document at /api/openapi.json."""
    routes = APIRouter()

    @routes.get("/api/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        """Return the page."""
        rows = "\n".join(_rows(api.openapi()))
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
        return HTMLResponse(_PAGE.replace("@ROWS@", rows), headers=headers)

    return routes


def _rows(document: Mapping[str, Mapping[str, Mapping[str, Mapping[str, object]]]]) -> Iterator[str]:
    for path, calls in document["paths"].items():
        for verb in (verb for verb in _VERBS if verb in calls):
            call = calls[verb]
            text = str(call.get("description", call.get("summary", "")))
            yield (
                f"<tr><td><b>{verb.upper()}</b></td><td><code>{html.escape(path)}</code>{_parameters(call)}</td>"
                f"<td>{html.escape(_first_line(text))}</td>"
                f"<td>{html.escape(str(call.get('x-needs', '')))}</td></tr>"
            )


def _first_line(text: str) -> str:
    return text.splitlines()[0].replace("``", "") if text else ""


def _parameters(call: Mapping[str, object]) -> str:
    found = call.get("parameters", ())
    names = [str(one["name"]) for one in found if one.get("in") == "query"] if isinstance(found, list) else []
    body = _body(call.get("requestBody"))
    parts = [*(["?" + "&".join(names)] if names else []), *([f"body: {body}"] if body else [])]
    return f"<br><small>{html.escape('; '.join(parts))}</small>" if parts else ""


def _body(request: object) -> str:
    content = request.get("content", {}) if isinstance(request, Mapping) else {}
    schema = content.get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tinyfleet: REST interface</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; max-width: 1100px; margin: 32px auto; padding: 0 20px; }
table { border-collapse: collapse; width: 100%; }
td { border-top: 1px solid #8884; padding: 6px 12px 6px 0; vertical-align: top; }
code { font: 14px ui-monospace, "DejaVu Sans Mono", monospace; }
small { opacity: .75; }
</style></head><body><main>
<h1>REST interface</h1>
<p>People and programs send <code>Authorization: Bearer &lt;token&gt;</code> (of <code>fleet-server tokens issue</code>,
or the files operator.token and builder.token of the server's state), devices Basic with their id and password. Each
call needs a role. Errors are problems (RFC 9457) with <code>code</code> and
<code>text</code>. Bodies and answers in full: <a href="/api/openapi.json">/api/openapi.json</a>
(OpenAPI).</p>
<p>Example: <code>curl -H "Authorization: Bearer $(cat DIR/operator.token)" $URL/api/devices</code></p>
<table>@ROWS@</table>
</main></body></html>
"""
