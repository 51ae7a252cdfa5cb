"""``/api/alerts``: what needs a person, and what people do about it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from server.alerts.ledger import MAX_SNOOZE_MS, Alerts
from server.alerts.model import UNRESOLVED, Alert, AlertState
from server.alerts.notices import PROMISE
from server.alerts.picture import EvidencePicture
from server.api.auth import Auth, Caller, signed
from server.api.values import (
    Cursor,
    Limit,
    PageBody,
    Person,
    Reason,
    Search,
    StoredNumber,
    ValueBody,
    Why,
    check_whole,
)
from server.errors import UnknownAlertError
from server.people import SOMEBODY

_SHOWN = 200
_STATES = {
    "unresolved": UNRESOLVED, "all": frozenset(AlertState), **{state.value: frozenset({state}) for state in AlertState},
}  # fmt: skip
Shown = Literal["unresolved", "all", "open", "acknowledged", "snoozed", "resolved"]
Kind = Literal["", "verdict", "rollout", "away", "answers_nothing", "server", "metadata", "harmed"]


class AlertBody(ValueBody):
    """One alert. Times are UTC milliseconds, 0 for never.

    ``devices``: the first of ``device_count``. ``state``: open, acknowledged, snoozed or resolved. ``gone_ms``: since
    when its cause is over, 0 while it lasts. ``reopened``: how often its cause came back. ``resolved_by``: the person,
    "" if its cause ended. ``verdict``: the verdict whose evidence shows it, 0 for none. ``page``: where its subject is
    shown.
    """

    id: int
    key: str
    kind: str
    severity: str
    state: str
    title: str
    cause: str
    action: str
    devices: list[str]
    device_count: int
    sites: list[str]
    owner: str
    opened_ms: int
    seen_ms: int
    gone_ms: int
    snoozed_until_ms: int
    resolved_ms: int
    resolved_by: str
    reopened: int
    verdict: int
    page: str


class AlertsBody(PageBody):
    """Alerts, newest first. ``promise``: what an alert promises and what it does not."""

    alerts: list[AlertBody]
    promise: str


class ActBody(ValueBody):
    """Something that happened to an alert, or that ``by`` did about it ("" for the server)."""

    id: int
    at_ms: int
    act: str
    by: str
    text: str


class DeliveryBody(ValueBody):
    """How far a notice is by one route. ``delivered_ms``: 0 until the receiver accepted it, with its ``answer``.

    ``failed_ms``: when it failed first, ``error``: how it failed last; ``next_ms``: when it is tried again.
    """

    id: int
    route: str
    event: str
    key: str
    created_ms: int
    attempts: int
    next_ms: int
    failed_ms: int
    error: str
    delivered_ms: int
    answer: str


class WholeAlertBody(AlertBody):
    """One alert with its history and what was and is to be delivered about it, both oldest first."""

    history: list[ActBody]
    deliveries: list[DeliveryBody]
    promise: str


class WaitingBody(ValueBody):
    """A route by which something is not delivered: how much, since when, how often it was tried, and the error."""

    route: str
    waiting: int
    since_ms: int
    attempts: int
    error: str


class WaitingRoutesBody(BaseModel):
    """The routes by which something is not delivered yet."""

    routes: list[WaitingBody]


class NoteRequest(BaseModel, extra="forbid"):
    """Who does it, and a note."""

    by: Person = SOMEBODY
    note: Why = ""


class ReasonRequest(BaseModel, extra="forbid"):
    """Who does it, and the reason or note, which is needed."""

    note: Reason
    by: Person = SOMEBODY


class SnoozeRequest(BaseModel, extra="forbid"):
    """Who does it, and for how long: at most 90 days."""

    seconds: Annotated[float, Field(gt=0, le=MAX_SNOOZE_MS / 1000)]
    by: Person = SOMEBODY
    note: Why = ""


def router(auth: Auth, alerts: Alerts, picture: EvidencePicture) -> APIRouter:
    """Return the routes for viewers; acts are for operators."""
    routes = APIRouter(tags=["alerts"], dependencies=[Depends(auth.view)])

    @routes.get("/api/alerts")
    def list_alerts(
        *, state: Shown = "unresolved", kind: Kind = "", search: Search = "", limit: Limit = None, cursor: Cursor = None
    ) -> AlertsBody:  # fmt: skip
        """Return alerts, by default those that are not resolved, newest first; ``search``: in title and cause.

        Without ``limit``, 422 ``page_needed`` if there are more than 200.
        """
        found = alerts.page(_STATES[state], kind=kind, search=search, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        return AlertsBody(
            alerts=[AlertBody.of(one) for one in found.rows], next=found.next, total=found.total, promise=PROMISE
        )

    @routes.get("/api/alerts/routes")
    def waiting() -> WaitingRoutesBody:
        """Return the routes by which something is not delivered yet."""
        return WaitingRoutesBody(routes=[WaitingBody.of(one) for one in alerts.waiting()])

    @routes.get("/api/alerts/{alert}")
    def show(alert: StoredNumber) -> WholeAlertBody:
        """Return one alert with its history and deliveries."""
        return _whole(alerts, alerts.get(alert))

    @routes.get(
        "/api/alerts/{alert}/picture",
        response_class=Response,
        responses={200: {"content": {"image/png": {}}, "description": "Evidence over windows, as PNG"}},
    )
    def show_picture(alert: StoredNumber) -> Response:
        """Return the evidence of the alert's verdict over windows; 404 for an alert without evidence."""
        found = picture.of(alerts.get(alert).verdict)
        if found is None:
            raise UnknownAlertError(f"Expected an alert with evidence of windows, got {alert}, which has none")
        return Response(found.png, media_type="image/png", headers={"Cache-Control": "no-store"})

    _add_acts(routes, auth, alerts)
    return routes


def _add_acts(routes: APIRouter, auth: Auth, alerts: Alerts) -> None:
    operators = [Depends(auth.operator)]

    @routes.post("/api/alerts/{alert}/acknowledge", dependencies=operators)
    def acknowledge(alert: StoredNumber, wanted: NoteRequest, caller: Caller) -> WholeAlertBody:
        """Record that a person has seen it."""
        return _whole(alerts, alerts.acknowledge(alert, by=signed(caller, wanted.by), note=wanted.note))

    @routes.post("/api/alerts/{alert}/take", dependencies=operators)
    def take(alert: StoredNumber, wanted: NoteRequest, caller: Caller) -> WholeAlertBody:
        """Record that a person looks after it."""
        return _whole(alerts, alerts.take(alert, by=signed(caller, wanted.by), note=wanted.note))

    @routes.post("/api/alerts/{alert}/snooze", dependencies=operators)
    def snooze(alert: StoredNumber, wanted: SnoozeRequest, caller: Caller) -> WholeAlertBody:
        """Send nothing about it for a while, but its end."""
        until_ms = alerts.clock() + max(1, int(1000 * wanted.seconds))
        return _whole(alerts, alerts.snooze(alert, until_ms, by=signed(caller, wanted.by), note=wanted.note))

    @routes.post("/api/alerts/{alert}/resolve", dependencies=operators)
    def resolve(alert: StoredNumber, wanted: ReasonRequest, caller: Caller) -> WholeAlertBody:
        """End it, although its cause may last."""
        return _whole(alerts, alerts.resolve(alert, wanted.note, by=signed(caller, wanted.by)))

    @routes.post("/api/alerts/{alert}/note", dependencies=operators)
    def note(alert: StoredNumber, wanted: ReasonRequest, caller: Caller) -> WholeAlertBody:
        """Add a note to it."""
        return _whole(alerts, alerts.note(alert, wanted.note, by=signed(caller, wanted.by)))


def _whole(alerts: Alerts, alert: Alert) -> WholeAlertBody:
    return WholeAlertBody(
        **AlertBody.of(alert).model_dump(),
        history=[ActBody.of(one) for one in alerts.history(alert.id)],
        deliveries=[DeliveryBody.of(one) for one in alerts.deliveries(alert.id)],
        promise=PROMISE,
    )
