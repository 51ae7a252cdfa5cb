"""``GET /api/devices``: the registry, the devices' reports, and which release ran when; commands to devices.

Then ``/revoke`` and ``/remove``, by which a device leaves the fleet, and ``/telemetry``, its newest measurements, and
``/history``, what it counted for years.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, JsonValue

from server.api.auth import Auth, Caller, signed
from server.api.values import (
    Cursor,
    Limit,
    Name,
    PageBody,
    Person,
    Search,
    StoredNumber,
    ValueBody,
    Why,
    check_whole,
)
from server.drift.latest import newest_evidence
from server.errors import UnknownDeviceError
from server.fleet.device_list import DeviceList
from server.fleet.fleet import Device, Fleet
from server.fleet.liveness import Presence
from server.fleet.mutes import DeviceMutes
from server.fleet.naming import MAX_TAGS, MAX_TITLE, DeviceNaming
from server.fleet.revocation import Revocations
from server.ingest.window_spans import WindowSpan, WindowSpans
from server.people import SOMEBODY
from server.registry.lineage import Lineage
from server.store.database import Database
from server.store.lists.devices import DeviceFilter, DeviceSort, FleetCondition
from server.store.monitoring.ingest import latest_batches
from server.store.monitoring.usage import device_days
from server.store.monitoring.windows import late_windows
from wire.codec import Json, to_document

_FOREVER_MS = 2**53
_SHOWN = 200  # devices in an answer by default: some 280 kB


class DeviceBody(BaseModel):
    """One device; ``reported`` and ``desired`` as on the wire.

    ``evidence``: phase, threshold_ratio (1 and above is an alarm), flagged, fault and cause of the newest window;
    empty before the first. ``ended``: "" for a device of the fleet, else "revoked", "retired" or "removed".
    ``presence``: there; or away, silent, never_heard, gone, and then the other fields are its last report.
    ``concern``: what it does with its inputs while its release runs and answers none (``reported.unread`` has the
    numbers), else "". ``tags`` and ``title``: what people call it. ``muted_ms``: since when ``muted_by`` muted it, 0
    for not, until ``muted_until_ms`` (0: until it is unmuted).
    """

    device: str
    site: str
    attributes: dict[str, str]
    state: str
    presence: str
    release: str
    phase: str
    desired_gen: int
    desired_release: str
    last_seen_ms: int
    enrolled_ms: int
    clock_skew_ms: int
    reported: dict[str, JsonValue] | None
    desired: dict[str, JsonValue] | None
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
    concern: str = ""
    ended: str = ""
    ended_ms: int = 0
    ended_why: str = ""
    tags: list[str] = Field(default_factory=list)
    title: str = ""
    muted_ms: int = 0
    muted_until_ms: int = 0
    muted_why: str = ""
    muted_by: str = ""


class DevicesBody(PageBody):
    """Devices, by id or as asked for."""

    devices: list[DeviceBody]


class RanBody(ValueBody):
    """The release that ran on a device from ``from_ms`` on."""

    device: str
    from_ms: int
    release: str
    sha256: str
    gen: int


class CommandRequest(BaseModel, extra="forbid"):
    """A command for a device."""

    verb: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    ttl_s: float = Field(default=60.0, gt=0, le=86_400)


class CommandBody(ValueBody):
    """A command and, once ``answered_ms`` is not 0, its answer."""

    id: str
    device: str
    verb: str
    issued_ms: int
    expires_ms: int
    answered_ms: int
    ok: bool
    code: str
    text: str
    data: dict[str, JsonValue]


def router(
    auth: Auth, fleet: Fleet, lineage: Lineage, listing: DeviceList, presence: Callable[[Device], Presence]
) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators.

    Their handlers raise ``UnknownDeviceError`` for an unknown device, or for a time before its first report.
    """
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.view)])

    @routes.get("/api/devices")
    def list_devices(  # noqa: PLR0913 - one argument a parameter of the query
        *, ended: bool = False, retired: bool = False, search: Search = "", site: Name = "", state: Name = "",
        release: Name = "", tag: Name = "", condition: FleetCondition | None = None,
        sort: DeviceSort = DeviceSort.DEVICE, descending: bool = False, limit: Limit = None, cursor: Cursor = None,
    ) -> DevicesBody:  # fmt: skip
        """Return devices of the fleet; with ``ended``, the revoked, retired and removed ones instead, newest first.

        With ``retired``, of those the ones that were retired.

        ``search``: words in id, name, tags, site, release or attributes. Without ``limit``, 422 ``page_needed`` if
        there are more than 200.
        """
        wanted = DeviceFilter(
            search=search, site=site, state=state, release=release, tag=tag, condition=condition, ended=ended,
            retired=retired,
        )  # fmt: skip
        found = listing.page(wanted, sort=sort, descending=descending, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        names = [] if ended or retired else [device.device for device in found.rows]
        known = newest_evidence(listing.database, devices=names) if names else {}
        devices = [_body(device, known.get(device.device, {}), presence(device)) for device in found.rows]
        return DevicesBody(devices=devices, next=found.next, total=found.total)

    @routes.get("/api/devices/{device}")
    def one_device(device: str) -> DeviceBody:
        """Return one device."""
        found = fleet.device(device)
        return _body(found, newest_evidence(listing.database, device).get(device, {}), presence(found))

    @routes.get("/api/devices/{device}/ran")
    def ran(device: str, at_ms: StoredNumber) -> RanBody:
        """Return the release on the device at a time; raises ``UnknownDeviceError`` before its first report."""
        fleet.device(device)
        found = lineage.ran_at(device, at_ms)
        if found is None:
            message = f"Expected a time after the first report of {device!r}, got {at_ms}"
            raise UnknownDeviceError(message)
        return RanBody.of(found)

    @routes.post("/api/devices/{device}/commands", dependencies=[Depends(auth.operator)], status_code=202)
    def command(device: str, request: CommandRequest, caller: Caller) -> CommandBody:
        """Send a command to a device."""
        sent = fleet.send_command(device, request.verb, request.arguments, request.ttl_s, by=caller)
        return CommandBody.of(fleet.command(sent))

    @routes.get("/api/devices/{device}/commands/{command_id}")
    def answer(device: str, command_id: str) -> CommandBody:
        """Return a command with its answer."""
        fleet.device(device)
        return CommandBody.of(fleet.command(command_id))

    return routes


def _body(device: Device, evidence: Mapping[str, Json], presence: Presence) -> DeviceBody:
    phase = device.reported.update.phase if device.reported else None
    return DeviceBody(
        device=device.device, site=device.site, attributes=dict(device.attributes), state=device.state.value,
        presence=presence.value,
        release=device.release, phase=phase.value if phase else "", desired_gen=device.desired_gen,
        desired_release=device.desired_release, last_seen_ms=device.last_seen_ms, enrolled_ms=device.enrolled_ms,
        clock_skew_ms=device.clock_off_ms, reported=to_document(device.reported) if device.reported else None,
        desired=to_document(device.desired) if device.desired else None, evidence=dict(evidence),
        ended=device.ended, ended_ms=device.ended_ms, ended_why=device.ended_why,
        concern=device.answers_nothing, tags=list(device.tags), title=device.title,
        muted_ms=device.muted_ms, muted_until_ms=device.muted_until_ms, muted_why=device.muted_why,
        muted_by=device.muted_by,
    )  # fmt: skip


class TagRequest(BaseModel, extra="forbid"):
    """Tags to give a device, and to take from it; ``by``: who decided it, for the events."""

    add: Annotated[list[str], Field(max_length=MAX_TAGS)] = Field(default_factory=list)
    remove: Annotated[list[str], Field(max_length=MAX_TAGS)] = Field(default_factory=list)
    by: Person = SOMEBODY


class RenameRequest(BaseModel, extra="forbid"):
    """The name beside the id, "" for none; ``by``: who decided it, for the events."""

    title: Annotated[str, Field(max_length=MAX_TITLE)]
    by: Person = SOMEBODY


class NamedBody(ValueBody):
    """What people call a device."""

    device: str
    tags: list[str]
    title: str


def naming_router(auth: Auth, naming: DeviceNaming) -> APIRouter:
    """Return the routes for operators.

    Their handlers raise ``UnknownDeviceError`` for a device that is not registered, ``DeviceEndedError`` for one that
    left the fleet.
    """
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.operator)])

    @routes.post("/api/devices/{device}/tags")
    def tag(device: str, request: TagRequest, caller: Caller) -> NamedBody:
        """Give a device tags and take others from it; rollouts and lists choose devices by them."""
        by = signed(caller, request.by)
        return NamedBody.of(naming.tag(device, request.add, request.remove, by=by))

    @routes.post("/api/devices/{device}/title")
    def rename(device: str, request: RenameRequest, caller: Caller) -> NamedBody:
        """Show a device under a name beside its id, which stays for good."""
        return NamedBody.of(naming.rename(device, request.title, by=signed(caller, request.by)))

    return routes


class MuteRequest(BaseModel, extra="forbid"):
    """Until when (UTC ms; 0: until it is unmuted) and why; ``by``: who decided it, for the events."""

    until_ms: StoredNumber = 0
    why: Why = ""
    by: Person = SOMEBODY


class UnmuteRequest(BaseModel, extra="forbid"):
    """``by``: who decided it, for the events."""

    by: Person = SOMEBODY


class MutedBody(ValueBody):
    """Since when (UTC ms, 0 for not) a device is muted, until when (0: until it is unmuted), why, and by whom."""

    device: str
    muted_ms: int
    muted_until_ms: int
    muted_why: str
    muted_by: str


def mutes_router(auth: Auth, mutes: DeviceMutes) -> APIRouter:
    """Return the routes for operators.

    Their handlers raise ``UnknownDeviceError`` for a device that is not registered, ``DeviceEndedError`` for one that
    left the fleet.
    """
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.operator)])

    @routes.post("/api/devices/{device}/mute")
    def mute(device: str, caller: Caller, request: MuteRequest | None = None) -> MutedBody:
        """Let a device raise no alert and no concern of its own; it is judged and counts in rollouts as before."""
        wanted = request or MuteRequest()
        by = signed(caller, wanted.by)
        return MutedBody.of(mutes.mute(device, wanted.until_ms, wanted.why, by=by))

    @routes.post("/api/devices/{device}/unmute")
    def unmute(device: str, caller: Caller, request: UnmuteRequest | None = None) -> MutedBody:
        """Let a device raise alerts and concerns again; a mute with an end is over by itself."""
        return MutedBody.of(mutes.unmute(device, by=signed(caller, (request or UnmuteRequest()).by)))

    return routes


class EndRequest(BaseModel, extra="forbid"):
    """The reason, recorded with the device and in the events; ``by``: who decided it, for the events."""

    why: Why = ""
    by: Person = SOMEBODY


class EndedBody(ValueBody):
    """A device that left the fleet."""

    device: str
    site: str
    ended: str
    ended_ms: int
    ended_why: str


def revocations_router(auth: Auth, revocations: Revocations) -> APIRouter:
    """Return the routes for viewers; what changes something is for operators.

    Their handlers raise ``UnknownDeviceError`` for a device that is not registered.
    """
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.view)])

    @routes.post("/api/devices/{device}/revoke", dependencies=[Depends(auth.operator)])
    def revoke(device: str, caller: Caller, request: EndRequest | None = None) -> EndedBody:
        """Refuse a device's credentials on HTTP and broker; it can return only with a new claim."""
        wanted = request or EndRequest()
        return EndedBody.of(revocations.revoke(device, wanted.why, by=signed(caller, wanted.by)))

    @routes.post("/api/devices/{device}/retire", dependencies=[Depends(auth.operator)])
    def retire(device: str, caller: Caller, request: EndRequest | None = None) -> EndedBody:
        """Let a device leave the fleet for good: revoked, without an assignment; tags, name and history stay."""
        wanted = request or EndRequest()
        return EndedBody.of(revocations.retire(device, wanted.why, by=signed(caller, wanted.by)))

    @routes.post("/api/devices/{device}/remove", dependencies=[Depends(auth.operator)])
    def remove(device: str, caller: Caller, request: EndRequest | None = None) -> EndedBody:
        """Revoke a device and delete its assignment; its events, evidence and history stay."""
        wanted = request or EndRequest()
        return EndedBody.of(revocations.remove(device, wanted.why, by=signed(caller, wanted.by)))

    return routes


class BatchBody(BaseModel):
    """One batch as the device sent it; ``docs/reference/wire.md`` describes the rows."""

    t0_ms: int
    received_ms: int
    n: int
    rows: list[dict[str, JsonValue]]


class TelemetryBody(BaseModel):
    """The newest batches of one stream, newest first."""

    device: str
    stream: str
    batches: list[BatchBody]


class DayBody(BaseModel):
    """What a device used in one UTC day so far; ``docs/reference/wire.md``, DayUsage."""

    day: str
    sent_bytes: int
    received_bytes: int
    written_bytes: int
    dropped: dict[str, int]
    merged: int
    received_ms: int


class LateBody(BaseModel):
    """Windows that arrived more than five minutes after their end: how many, with how many inferences.

    ``delay_ms``: the longest delay; ``merged``: how many stand for more than one of the device's windows.
    """

    windows: int
    n: int
    delay_ms: int
    merged: int


class UsageBody(BaseModel):
    """The newest days, newest first."""

    device: str
    days: list[DayBody]
    late: LateBody


class SpanBody(ValueBody):
    """The counts of one span: a window (``hour``), or all windows of a day or month, added up.

    ``windows``: how many; ``n`` their inferences. ``values``, if they were asked for: 16 bins of each stream, one count
    of invalid values a stream, then the table of classes and confidences.
    """

    start_ms: int
    len_ms: int
    resolution: str
    ref_id: str
    artifact: str
    context: int
    n: int
    windows: int
    streams: int
    classes: int
    confidence_bins: int
    values: list[int] | None


class HistoryBody(BaseModel):
    """What a device counted, oldest first. Continue with ``since_ms`` = the end of the last span."""

    device: str
    spans: list[SpanBody]


def _span_body(span: WindowSpan, *, values: bool) -> SpanBody:
    names = ("start_ms", "len_ms", "ref_id", "artifact", "context", "n", "windows")
    shape = {name: getattr(span.shape, name) for name in ("streams", "classes", "confidence_bins")}
    return SpanBody(
        **{name: getattr(span, name) for name in names}, **shape, resolution=span.resolution.value,
        values=span.values.tolist() if values else None,
    )  # fmt: skip


def telemetry_router(auth: Auth, fleet: Fleet, database: Database, spans: WindowSpans) -> APIRouter:
    """Return the route for operators."""
    routes = APIRouter(tags=["devices"], dependencies=[Depends(auth.view)])

    @routes.get("/api/devices/{device}/telemetry")
    def telemetry(
        device: str, stream: Literal["infer", "hw", "answer"] = "infer", limit: Annotated[int, Query(ge=1, le=500)] = 20
    ) -> TelemetryBody:
        """Return what the device sent: ``infer`` (latency, classes), ``hw`` (memory, temperature) or ``answer``.

        Answers come from devices with a sink of the kind ``fleet``.
        """
        fleet.device(device)
        with database.begin() as connection:
            rows = latest_batches(connection, device, stream, limit)
        return TelemetryBody(
            device=device, stream=stream,
            batches=[BatchBody(**{name: row[name] for name in BatchBody.model_fields}) for row in rows],
        )  # fmt: skip

    @routes.get("/api/devices/{device}/history")
    def history(
        device: str, since_ms: StoredNumber = 0, until_ms: StoredNumber = _FOREVER_MS,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200, *, values: bool = False,
    ) -> HistoryBody:  # fmt: skip
        """Return what the device counted, for years: windows as they came, then days, then months (``resolution``)."""
        fleet.device(device)
        found = spans.history(device, since_ms, until_ms, limit)
        return HistoryBody(device=device, spans=[_span_body(span, values=values) for span in found])

    @routes.get("/api/devices/{device}/usage")
    def usage(device: str, days: Annotated[int, Query(ge=1, le=366)] = 30) -> UsageBody:
        """Return what the device used by day: bytes on air and to its disk, what its spool dropped, what came late."""
        fleet.device(device)
        with database.begin() as connection:
            found, late = device_days(connection, device, days), late_windows(connection, device)
        return UsageBody(
            device=device,
            days=[DayBody(**{name: row[name] for name in DayBody.model_fields}) for row in found],
            late=LateBody(**{name: int(late[name]) for name in LateBody.model_fields}),
        )

    return routes
