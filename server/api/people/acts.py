"""``GET /api/acts``: the log of acts, for admins."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue

from server.access.audit_log import AuditLog
from server.api.auth import Auth
from server.api.values import Cursor, Name, PageBody, Search, StoredNumber, ValueBody
from server.store.lists.people import ActFilter


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


class RecordedActsBody(PageBody):
    """Acts, oldest first.

    To follow the log, continue with ``after`` = the ``seq`` of the last one. Without ``after`` they are the newest, and
    ``next`` leads to older ones.
    """

    acts: list[RecordedActBody]


def router(auth: Auth, acts: AuditLog) -> APIRouter:
    """Return the route for admins."""
    routes = APIRouter(tags=["people"], dependencies=[Depends(auth.admin)])

    @routes.get("/api/acts")
    def list_acts(  # noqa: PLR0913 - one argument a parameter of the query
        *,
        after: StoredNumber | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 200, person: Name = "",
        act: Name = "", subject: Name = "", search: Search = "", since_ms: StoredNumber | None = None,
        until_ms: StoredNumber | None = None, cursor: Cursor = None,
    ) -> RecordedActsBody:  # fmt: skip
        """Return the acts after a number, or without one the newest; oldest first.

        ``person``: who acted, or for whom a program said so; ``act``: a code, or what stands before its dot;
        ``subject``: the whole of it, ``search``: words in it; from ``since_ms`` to before ``until_ms``.
        """
        wanted = ActFilter(
            person=person, act=act, subject=subject, search=search, since_ms=since_ms, until_ms=until_ms
        )  # fmt: skip
        if after is None:
            page = acts.page(wanted, limit=limit, cursor=cursor)
            return RecordedActsBody(acts=[RecordedActBody.of(one) for one in page.rows[::-1]], next=page.next)
        if wanted != ActFilter() or cursor:
            message = "no such parameter beside after, expected limit"
            raise RequestValidationError([{"loc": ("query", "after"), "msg": message}])
        return RecordedActsBody(acts=[RecordedActBody.of(one) for one in acts.after(after, limit)])

    return routes
