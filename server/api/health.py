"""``/api/health``: the server's health, 503 if it is unwell; ``/api/overall``: the fleet's; ``/metrics``: figures."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel

from server.api.auth import Auth, anybody
from server.api.values import ValueBody
from server.app.situation import Situation
from server.app.vitals import Vitals
from server.clock import Clock
from wire import __version__

_UNWELL = 503


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

    @routes.get("/api/health", dependencies=[Depends(anybody)], responses={_UNWELL: {"model": HealthBody}})
    def health(response: Response) -> HealthBody:
        """Return the server's health; the status is 503 when a check fails."""
        now_ms = clock()
        signs = vitals.signs(now_ms)
        bad = [sign for sign in signs if not sign.ok]
        if bad:
            response.status_code = _UNWELL
        response.headers["Cache-Control"] = "no-store"
        return HealthBody(
            ok=not bad, version=__version__, at_ms=now_ms, code="unwell" if bad else "",
            text="; ".join(f"{sign.name}: {sign.text}" for sign in bad),
            signs=[SignBody.of(sign) for sign in signs],
        )  # fmt: skip

    return routes


class ConcernBody(ValueBody):
    """One problem; ``names``: the devices, releases or rollouts that it concerns."""

    signal: str
    level: str
    text: str
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
        concerns = [ConcernBody.of(one) for one in found.concerns]
        return OverallBody(well=not concerns, level=found.level.value, text=found.text, concerns=concerns)

    return routes


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
