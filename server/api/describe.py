"""``GET /api/docs``: every call on one plain page, made from the OpenAPI document; loads nothing from other hosts."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse

_VERBS = ("get", "put", "post", "delete")


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
                f"<td>{html.escape(_first_line(text))}</td></tr>"
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
<p>Operators and build hosts send <code>Authorization: Bearer &lt;token&gt;</code> (the files operator.token and
builder.token of the server's state), devices Basic with their id and password. Errors are
problems (RFC 9457) with <code>code</code> and
<code>text</code>. Bodies and answers in full: <a href="/api/openapi.json">/api/openapi.json</a>
(OpenAPI).</p>
<p>Example: <code>curl -H "Authorization: Bearer $(cat DIR/operator.token)" $URL/api/devices</code></p>
<table>@ROWS@</table>
</main></body></html>
"""
