"""``GET /api/overall``: the overall status of fleet and server, with every concern."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from server.api.auth import Auth
from server.api.values import ValueBody
from server.app.situation import Situation


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


def router(auth: Auth, situation: Situation) -> APIRouter:
    """Return the routes for operators."""
    routes = APIRouter(tags=["overall"], dependencies=[Depends(auth.operator)])

    @routes.get("/api/overall")
    def show() -> OverallBody:
        """Return the overall status; it is well only when no signal reports a problem."""
        found = situation.overall()
        concerns = [ConcernBody.of(one) for one in found.concerns]
        return OverallBody(well=not concerns, level=found.level.value, text=found.text, concerns=concerns)

    return routes
