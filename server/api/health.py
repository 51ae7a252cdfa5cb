"""``/api/health``: the server's health, 503 if it is unwell; ``/api/overall``: the fleet's; ``/metrics``: figures.

A concern may name every device: the status has the first names of each, and ``/api/overall/{signal}`` all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from server.api.auth import Auth, anybody
from server.api.values import Cursor, Limit, PageBody, ValueBody, check_whole
from server.app.overall import WORDS, OpenConcern
from server.app.situation import Situation
from server.app.vitals import Sign, Vitals
from server.clock import Clock
from server.errors import UnknownSignalError
from server.store.lists.paging import names_page
from wire import __version__

_UNWELL = 503
NAMED = 50  # names of one concern in the status
_SHOWN = 500  # names in a list by default


class SignBody(ValueBody):
    """One health check of the server."""

    name: str
    ok: bool
    text: str


class HealthBody(BaseModel):
    """The health at ``at_ms`` (UTC milliseconds). ``code`` and ``text`` describe the fault, "" for none."""

    ok: bool
    version: str
    at_ms: int
    code: str
    text: str
    signs: list[SignBody]


def router(vitals: Vitals, clock: Clock) -> APIRouter:
    """Return the routes for anyone."""
    routes = APIRouter(tags=["health"])

    def told(signs: Sequence[Sign], response: Response, code: str) -> HealthBody:
        bad = [sign for sign in signs if not sign.ok]
        if bad:
            response.status_code = _UNWELL
        response.headers["Cache-Control"] = "no-store"
        return HealthBody(
            ok=not bad, version=__version__, at_ms=clock(), code=code if bad else "",
            text="; ".join(f"{sign.name}: {sign.text}" for sign in bad),
            signs=[SignBody.of(sign) for sign in signs],
        )  # fmt: skip

    @routes.get("/api/health", dependencies=[Depends(anybody)], responses={_UNWELL: {"model": HealthBody}})
    def health(response: Response) -> HealthBody:
        """Return the server's health; the status is 503 when a check fails."""
        return told(vitals.signs(clock()), response, "unwell")

    @routes.get("/api/ready", dependencies=[Depends(anybody)], responses={_UNWELL: {"model": HealthBody}})
    def ready(response: Response) -> HealthBody:
        """Return whether this process can answer requests: 503 while it begins, or without database or broker."""
        return told(vitals.readiness(), response, "not_ready")

    return routes


class ConcernBody(BaseModel):
    """One problem. ``names``: the first 50 of the devices, releases or rollouts that it concerns; ``count``: of all.

    ``address``: where the list of all is, a page at a time; "" for a concern that names nothing.
    """

    signal: str
    level: str
    text: str
    count: int
    names: list[str]
    address: str


class NamesBody(PageBody):
    """The devices, releases or rollouts that one concern names, each once and sorted."""

    names: list[str]


class OverallBody(BaseModel):
    """The status. ``level``: well, unknown (not everything is known), attention or alarm; the worst of ``concerns``."""

    well: bool
    level: str
    text: str
    concerns: list[ConcernBody]


def overall_router(auth: Auth, situation: Situation) -> APIRouter:
    """Return the routes for viewers."""
    routes = APIRouter(tags=["overall"], dependencies=[Depends(auth.view)])

    @routes.get("/api/overall")
    def show() -> OverallBody:
        """Return the overall status; it is well only when no signal reports a problem."""
        found = situation.overall()
        concerns = [_concern(one) for one in found.concerns]
        return OverallBody(well=not concerns, level=found.level.value, text=found.text, concerns=concerns)

    @routes.get("/api/overall/{signal}")
    def show_names(signal: str, limit: Limit = None, cursor: Cursor = None) -> NamesBody:
        """Return everything that a concern names, a page at a time; nothing while the signal reports no problem."""
        if signal not in WORDS:
            message = f"Expected a signal of the overall status, got {signal[:40]!r}: it is one of {', '.join(WORDS)}"
            raise UnknownSignalError(message)
        names = getattr(situation.signals(), signal)
        found = names_page(f"names of {signal}", names, limit or _SHOWN, cursor)
        check_whole(found, limit, cursor)
        return NamesBody(names=list(found.rows), next=found.next, total=found.total)

    return routes


def _concern(found: OpenConcern) -> ConcernBody:
    return ConcernBody(
        signal=found.signal, level=found.level.value, text=found.text, count=len(found.names),
        names=list(found.names[:NAMED]), address=f"/api/overall/{found.signal}" if found.names else "",
    )  # fmt: skip


def metrics_router(auth: Auth, registry: CollectorRegistry) -> APIRouter:
    """Return the route for viewers."""
    routes = APIRouter(tags=["overall"], dependencies=[Depends(auth.view)])

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "Prometheus' text format, or OpenMetrics"}},
    )
    def metrics(request: Request) -> Response:
        """Return every figure in Prometheus' text format, or in OpenMetrics' if the caller accepts that."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=content_type, headers={"Cache-Control": "no-store"})

    return routes
