"""``GET /api/acts``: the log of acts, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, JsonValue

from server.access.audit_log import AuditLog
from server.api.auth import Auth
from server.api.values import StoredNumber, ValueBody


class RecordedActBody(ValueBody):
    """One record of the log of acts; ``docs/how-to/people.md`` says how it is chained."""

    seq: int
    at_ms: int
    account: str
    kind: str
    said: str
    through: str
    address: str
    act: str
    subject: str
    data: dict[str, JsonValue]
    previous_sha256: str
    sha256: str


class RecordedActsBody(BaseModel):
    """Acts, oldest first. Continue with ``after`` = the ``seq`` of the last one."""

    acts: list[RecordedActBody]


def router(auth: Auth, acts: AuditLog) -> APIRouter:
    """Return the route for admins."""
    routes = APIRouter(tags=["people"], dependencies=[Depends(auth.admin)])

    @routes.get("/api/acts")
    def list_acts(
        after: StoredNumber | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200
    ) -> RecordedActsBody:
        """Return the acts after a number, or without one the newest; oldest first."""
        found = tuple(reversed(acts.latest(limit))) if after is None else acts.after(after, limit)
        return RecordedActsBody(acts=[RecordedActBody.of(one) for one in found])

    return routes
