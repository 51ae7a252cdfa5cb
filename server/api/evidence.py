"""``GET /api/evidence``, ``/api/drift/map``, ``/api/verdicts``, ``/api/places``, ``/api/commissions``, and decisions.

A person accepts a place or takes that back, and commissions devices again.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import BaseModel, JsonValue

from server.api.auth import Auth, Caller, signed
from server.api.values import Cursor, Limit, Name, PageBody, Person, Reason, ValueBody, Why, check_whole
from server.clock import Clock
from server.drift.alarms.records import Alarms
from server.drift.commissions import Commissions
from server.drift.ledger import Verdicts
from server.drift.places import Places, PlaceState
from server.drift.verdicts import VerdictKind
from server.people import SOMEBODY
from server.store.database import Database
from server.store.lists import drift as lists
from server.telemetry.drift_map import COHORTS, STREAMS, DriftExplorer

_SHOWN = 500  # places or commissions in an answer by default


class StreamBody(BaseModel):
    """One stream's share of a device's evidence."""

    stream: str
    shape: str
    share_ratio: float
    words: str


class EvidenceBody(BaseModel):
    """One window of one device; log values are natural logarithms, an alarm is ``log_value >= log_threshold``.

    ``phase``: ``commissioning`` (its baseline is being collected) or ``judged``; ``provisional``: judged before the
    baseline is complete. ``baseline_windows``: what the baseline has of the ``wanted_windows`` with which that changes
    next (first judged, then complete). ``summaries``: PSI,
    Jensen-Shannon and Kolmogorov-Smirnov of the streams that differ most; they never decide. ``least_sd``: from what
    shift on, in standard deviations, the device's stream would be noticed. ``new_place``: the device looks at a place
    that training does not know, and nobody has accepted it.
    """

    device: str
    start_ms: int
    ref_id: str
    n: int
    phase: str
    log_value: float | None
    training_log_value: float | None
    log_threshold: float
    flagged: bool
    new_place: bool
    fault: str
    cause: str
    provisional: bool
    baseline_windows: int
    wanted_windows: int
    streams: list[StreamBody]
    summaries: dict[str, dict[str, float]]


class PoolBody(BaseModel):
    """One window of one pool; the fleet's pool has no attribute.

    ``collecting``: without a rest of the fleet to compare it with, it opens nothing before its baselines are complete.
    """

    start_ms: int
    ref_id: str
    attribute: str
    value: str
    members: int
    log_value: float | None
    log_threshold: float
    alarm: bool
    collecting: bool


class EvidencesBody(PageBody):
    """The newest evidence, newest first; ``pools``: the newest of them, on the first page for all devices."""

    evidence: list[EvidenceBody]
    pools: list[PoolBody]


class PoolsBody(PageBody):
    """Evidence of pools, newest first."""

    pools: list[PoolBody]


class VerdictBody(ValueBody):
    """One verdict; ``closed_ms`` is 0 while it is open; ``provisional``: most baselines are not complete yet.

    ``dismissed_ms``: when ``dismissed_by`` let a ``release_regression`` hold no rollout, for ``dismissed_why``; 0 if
    nobody did.
    """

    id: int
    kind: str
    first_window_ms: int
    last_window_ms: int
    windows: int
    opened_ms: int
    closed_ms: int
    devices: list[str]
    attributes: dict[str, JsonValue]
    cause: str
    action: str
    detail: str
    release: str
    model: str
    provisional: bool
    dismissed_ms: int
    dismissed_by: str
    dismissed_why: str


class DismissRequest(BaseModel, extra="forbid"):
    """Why an open ``release_regression`` holds no rollout, and who decides it; both are recorded."""

    why: Reason
    by: Person = SOMEBODY


class VerdictsBody(PageBody):
    """The newest verdicts, newest first."""

    verdicts: list[VerdictBody]


class PathBody(ValueBody):
    """One device's evidence, derived again: ``log_values`` after each window from ``from_ms`` on.

    ``log_value``: the recorded one; ``same``: the last has its bits. ``missing``: why nothing was derived.
    """

    device: str
    from_ms: int
    since_baseline: bool
    log_value: float
    log_values: list[float]
    same: bool
    missing: str


class ReplayBody(ValueBody):
    """An alarm, derived again as far as it can be; ``missing``: what can't be.

    ``log_threshold`` (of e-BH over ``judged`` devices) and ``decided`` (values of pools, …) are recorded.
    """

    verdict: int
    slot_ms: int
    log_threshold: float
    judged: int
    same: bool
    paths: list[PathBody]
    missing: list[str]
    decided: dict[str, JsonValue]


def router(auth: Auth, database: Database, verdicts: Verdicts, alarms: Alarms, clock: Clock) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators."""
    routes = APIRouter(tags=["drift"], dependencies=[Depends(auth.view)])

    @routes.get("/api/evidence")
    def list_evidence(
        device: Name = "", limit: Annotated[int, Query(ge=1, le=5000)] = 200, cursor: Cursor = None
    ) -> EvidencesBody:
        """Return the newest evidence of one device, or of all devices and the pools."""
        with database.begin() as connection:
            found = lists.evidence_page(connection, device=device, limit=limit, cursor=cursor)
            pools = lists.pool_page(connection, limit=limit).rows if not device and cursor is None else ()
        return EvidencesBody(
            evidence=[EvidenceBody.model_validate(dict(row)) for row in found.rows],
            pools=[PoolBody.model_validate(dict(row)) for row in pools], next=found.next,
        )  # fmt: skip

    @routes.get("/api/pools")
    def list_pools(attribute: Name = "", value: Name = "", limit: Limit = 200, cursor: Cursor = None) -> PoolsBody:
        """Return the newest evidence of pools; the fleet's pool has no attribute."""
        with database.begin() as connection:
            found = lists.pool_page(connection, attribute=attribute, value=value, limit=limit or 200, cursor=cursor)
        return PoolsBody(pools=[PoolBody.model_validate(dict(row)) for row in found.rows], next=found.next)

    @routes.get("/api/verdicts")
    def list_verdicts(  # noqa: PLR0913 - one argument a parameter of the query
        *, is_open: Annotated[bool | None, Query(alias="open")] = None, kind: VerdictKind | None = None,
        model: Name = "", release: Name = "", device: Name = "", limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        cursor: Cursor = None,
    ) -> VerdictsBody:  # fmt: skip
        """Return the newest verdicts; ``open``: only those that are, or are not."""
        found = verdicts.page(
            is_open=is_open, kind=kind or "", model=model, release=release, device=device, limit=limit, cursor=cursor
        )  # fmt: skip
        return VerdictsBody(
            verdicts=[VerdictBody.of(verdict) for verdict in found.rows], next=found.next, total=found.total
        )  # fmt: skip

    @routes.get("/api/verdicts/{verdict}/replay")
    def replay(verdict: Annotated[int, Path(ge=0, lt=2**63)]) -> ReplayBody:
        """Derive an alarm again from the windows, baselines and settings that are kept with its verdict."""
        return ReplayBody.of(alarms.replay(verdict))

    @routes.post("/api/verdicts/{verdict}/dismiss", dependencies=[Depends(auth.approve)])
    def dismiss(verdict: Annotated[int, Path(ge=0, lt=2**63)], request: DismissRequest, caller: Caller) -> VerdictBody:
        """Let an open ``release_regression`` hold no rollout; it stays open while devices show it."""
        return VerdictBody.of(verdicts.dismiss(verdict, request.why, clock(), by=signed(caller, request.by)))

    return routes


class MapCellBody(ValueBody):
    """What a stream holds of a cohort's evidence.

    ``evidence_ratio``: the mean over its devices with a window, as a share of the threshold, at least: a device counts
    with 0 if the stream is not among the five that hold most. ``largest_ratio``: of one device; ``devices``: that name
    the stream.
    """

    stream: str
    evidence_ratio: float
    largest_ratio: float
    devices: int
    words: list[str]


class MapRowBody(ValueBody):
    """A cohort; ``windows``: devices with evidence in the window, which ``flagged``, ``faulty``, ``learning`` count.

    ``largest_ratio``: null without a window, which is not the same as 0. ``cells``: of streams that a device names.
    """

    cohort: str
    devices: int
    windows: int
    flagged: int
    faulty: int
    learning: int
    largest_ratio: float | None
    cells: list[MapCellBody]


class DriftMapBody(ValueBody):
    """A look at one window, not a test: alarms, and their budget, are of verdicts alone.

    ``at_ms``: its start, null without any evidence. ``rows``: the ``cohorts`` with most evidence, those first;
    ``streams``: those of ``all_streams`` that hold most. ``references``: how many the evidence is against.
    """

    at_ms: int | None
    newest_ms: int | None
    window_ms: int
    by: str
    rows: list[MapRowBody]
    cohorts: int
    streams: list[str]
    all_streams: int
    references: int


def map_router(auth: Auth, explorer: DriftExplorer) -> APIRouter:
    """Return the route for viewers."""
    routes = APIRouter(tags=["drift"], dependencies=[Depends(auth.view)])

    @routes.get("/api/drift/map")
    def drift_map(  # noqa: PLR0913 - one argument a parameter of the query
        *, by: Annotated[str, Query(min_length=1, max_length=200)] = "site",
        at_ms: Annotated[int | None, Query(ge=0, lt=2**53)] = None, release: Name = "", attribute: Name = "",
        value: Name = "", stream: Name = "", limit: Annotated[int, Query(ge=1, le=500)] = COHORTS,
        streams: Annotated[int, Query(ge=1, le=64)] = STREAMS,
    ) -> DriftMapBody:  # fmt: skip
        """Return which streams hold the evidence of which cohort in one window, by default the newest.

        ``by``: site, release, device or any attribute of devices. ``release``: evidence against its reference alone.
        ``attribute`` and ``value``: of devices that have it alone. ``stream``: the cohorts with most of it first.
        """
        within = (attribute, value) if attribute else None
        return DriftMapBody.of(explorer.explore(
            by, at_ms=at_ms, release=release, within=within, stream=stream, cohorts=limit, streams=streams
        ))  # fmt: skip

    return routes


class PlaceBody(ValueBody):
    """A device at a place that training does not know, by its verdict; ``decided_ms`` is 0 before it is decided.

    Of ``audited`` labelled scenes ``wrong`` were answered wrong, as shares: the error rate there lies between
    ``lower_risk`` and ``upper_risk``; in training it was ``source_risk`` (-1: made without labels). ``text``: why the
    device was not asked.
    ``decided_by`` and ``why``: who decided last, who took an acceptance back, or who commissioned the device again.
    """

    verdict: int
    device: str
    site: str
    model: str
    release: str
    state: PlaceState
    asks: int
    asked_ms: int
    request: str
    audited: int
    wrong: float
    lower_risk: float
    upper_risk: float
    source_risk: float
    decided_ms: int
    decided_by: str
    why: str
    text: str


class PlacesBody(PageBody):
    """The places, the newest verdict first."""

    places: list[PlaceBody]


class AcceptRequest(BaseModel, extra="forbid"):
    """The reason, recorded with the place and in the events; ``by``: who decided it."""

    why: Why = ""
    by: Person = SOMEBODY


class CommissionRequest(BaseModel, extra="forbid"):
    """What changed before the device, recorded with the commission and in the events; ``by``: who says so."""

    why: Reason
    by: Person = SOMEBODY


class CommissionAllRequest(CommissionRequest):
    """The same for all devices of the fleet that have this ``value`` of an ``attribute``; "site" is one too."""

    attribute: str
    value: str


class CommissionBody(ValueBody):
    """A device's baseline began anew with the window of ``from_ms``; ``attribute``: "" if it was said of it alone."""

    id: int
    device: str
    from_ms: int
    decided_ms: int
    decided_by: str
    why: str
    attribute: str
    value: str


class CommissionsBody(PageBody):
    """Commissions, the newest first."""

    commissions: list[CommissionBody]


def places_router(auth: Auth, places: Places, clock: Clock) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators."""
    routes = APIRouter(tags=["drift"], dependencies=[Depends(auth.view)])

    @routes.get("/api/places")
    def list_places(
        *, device: Name = "", site: Name = "", state: PlaceState | None = None, limit: Limit = None,
        cursor: Cursor = None,
    ) -> PlacesBody:  # fmt: skip
        """Return the devices at places that training does not know, with their error rates there.

        Without ``limit``, 422 ``page_needed`` if there are more than 500.
        """
        found = places.page(device=device, site=site, state=state or "", limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        return PlacesBody(places=[PlaceBody.of(place) for place in found.rows], next=found.next, total=found.total)

    @routes.post("/api/places/{device}/accept", dependencies=[Depends(auth.operator)])
    def accept(device: str, caller: Caller, request: AcceptRequest | None = None) -> PlaceBody:
        """Accept the place of a device: its verdict ends, and what it sees there is its usual."""
        wanted = request or AcceptRequest()
        return PlaceBody.of(places.accept(device, wanted.why, now_ms=clock(), by=signed(caller, wanted.by)))

    @routes.post("/api/places/{device}/withdraw", dependencies=[Depends(auth.operator)])
    def withdraw(device: str, caller: Caller, request: AcceptRequest | None = None) -> PlaceBody:
        """Take back that the place of a device was accepted: it is new again with its next window."""
        wanted = request or AcceptRequest()
        return PlaceBody.of(places.withdraw(device, wanted.why, now_ms=clock(), by=signed(caller, wanted.by)))

    return routes


def commissions_router(auth: Auth, commissions: Commissions, clock: Clock) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators."""
    routes = APIRouter(tags=["drift"], dependencies=[Depends(auth.view)])

    @routes.get("/api/commissions")
    def list_commissions(*, device: Name = "", limit: Limit = None, cursor: Cursor = None) -> CommissionsBody:
        """Return who commissioned which device again, from when on, and why.

        Without ``limit``, 422 ``page_needed`` if there are more than 500.
        """
        found = commissions.page(device=device, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        shown = [CommissionBody.of(one) for one in found.rows]
        return CommissionsBody(commissions=shown, next=found.next, total=found.total)

    @routes.post("/api/commissions", dependencies=[Depends(auth.operator)])
    def commission_all(request: CommissionAllRequest, caller: Caller) -> CommissionsBody:
        """Let the baselines of all devices with an attribute begin anew with their next window."""
        begun = commissions.begin_all(
            request.attribute, request.value, request.why, now_ms=clock(), by=signed(caller, request.by)
        )  # fmt: skip
        return CommissionsBody(commissions=[CommissionBody.of(one) for one in begun])

    @routes.post("/api/devices/{device}/commission", dependencies=[Depends(auth.operator)])
    def commission(device: str, request: CommissionRequest, caller: Caller) -> CommissionBody:
        """Let the baseline of a device begin anew with its next window, and end its alarms."""
        return CommissionBody.of(commissions.begin(device, request.why, now_ms=clock(), by=signed(caller, request.by)))

    return routes
