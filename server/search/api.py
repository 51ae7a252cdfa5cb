"""``GET /api/search``: things of every kind by words."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel

from server.access.roles import Need
from server.api.auth import Auth
from server.api.values import ValueBody
from server.search.find import MAX_TEXT, Search


class FoundThingBody(ValueBody):
    """One thing: its kind and id, what it is called, and a detail in words."""

    kind: str
    id: str
    text: str
    detail: str


class FoundKindBody(ValueBody):
    """What was found of one kind, the closest first; ``more``: there is more than is shown."""

    kind: str
    things: list[FoundThingBody]
    more: bool


class FoundBody(BaseModel):
    """What was found, by kind; only kinds of which there is something."""

    found: list[FoundKindBody]


def router(auth: Auth, search: Search) -> APIRouter:
    """Return the route for viewers."""
    routes = APIRouter(tags=["search"], dependencies=[Depends(auth.view)])

    @routes.get("/api/search")
    def find(
        request: Request, text: Annotated[str, Query(min_length=1, max_length=MAX_TEXT)],
        limit: Annotated[int, Query(ge=1, le=50)] = 8,
    ) -> FoundBody:  # fmt: skip
        """Return the first ``limit`` devices (id, name, tags, site), releases, rollouts, verdicts, samples and jobs.

        Each has every word of ``text``, in any case; a sample its number, its label, or the beginning of its device.
        An admin finds users too.
        """
        admin = auth.staff(request, Need.VIEW).may(Need.ADMINISTER, reading=True)
        return FoundBody(found=[FoundKindBody.of(one) for one in search.find(text, each=limit, admin=admin)])

    return routes
