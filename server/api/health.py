"""``GET /api/health``: is the server well, and which version; 503 with words when it is not."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from server.app.vitals import Vitals
from server.clock import Clock
from wire import __version__

_UNWELL = 503


class SignBody(BaseModel):
    """One thing that the server watches of itself."""

    name: str
    ok: bool
    text: str


class Health(BaseModel):
    """The answer at ``at_ms`` (UTC milliseconds). ``code`` and ``text`` say what is wrong, "" where nothing is."""

    ok: bool
    version: str
    at_ms: int
    code: str
    text: str
    signs: list[SignBody]


def router(vitals: Vitals, clock: Clock) -> APIRouter:
    """Return the routes for anyone."""
    routes = APIRouter(tags=["health"])

    @routes.get("/api/health", responses={_UNWELL: {"model": Health}})
    def health(response: Response) -> Health:
        """Say how the server is; the status is 503 when something it needs is not well."""
        now_ms = clock()
        signs = vitals.signs(now_ms)
        bad = [sign for sign in signs if not sign.ok]
        if bad:
            response.status_code = _UNWELL
        response.headers["Cache-Control"] = "no-store"
        return Health(
            ok=not bad, version=__version__, at_ms=now_ms, code="unwell" if bad else "",
            text="; ".join(f"{sign.name}: {sign.text}" for sign in bad),
            signs=[SignBody(name=sign.name, ok=sign.ok, text=sign.text) for sign in signs],
        )  # fmt: skip

    return routes
