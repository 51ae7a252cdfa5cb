"""``/acts``: the log of acts, newest first, by filters in the address; whether its chain is whole; its export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from nicegui import ui

from server.access.audit_log import RecordedAct
from server.access.chain_watch import ChainState, ChainWatch
from server.access.roles import Need
from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import CURSOR, AddressFilters, FilterField, ListedPage, SharedLook
from server.dashboard.pages.people.tabs import PATH, tabs
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import Column, empty, live_apart, pill
from server.dashboard.views import PageLink, Status, Tone, clock_time
from server.dashboard.visit import Pages, Visit
from server.people import ActorKind
from server.store.lists.paging import Page
from server.store.lists.people import ActFilter
from wire.canonical import canonical_bytes
from wire.codec import Json

_SHOWN = 100
_LIST = "/acts"
_EXPORT = "/acts/export"
_MOST_DETAIL = 240
_DAY = timedelta(days=1)
COLUMNS = (
    Column(name="seq", label="Record", sortable=False),
    Column(name="at", label="Time (UTC)", sortable=False),
    Column(name="who", label="Who", look="link", sortable=False),
    Column(name="act", label="Act", sortable=False),
    Column(name="subject", label="On what", look="link", sortable=False),
    Column(name="how", label="How", sortable=False),
    Column(name="detail", label="Detail", look="wrapped", sortable=False),
)
FIELDS = (
    FilterField(name="person", label="Who"),
    FilterField(name="act", label="Act", hint="rollout.approve"),
    FilterField(name="subject", label="On what, whole"),
    FilterField(name="search", label="On what, words"),
    FilterField(name="since", label="From the day (UTC)", kind="date"),
    FilterField(name="until", label="To the day (UTC)", kind="date"),
)
LIST = ListedPage(
    path=_LIST, what="acts", fields=FIELDS, columns=COLUMNS, key="seq",
    none="The first is recorded when somebody logs in, claims a device or publishes a release.",
)  # fmt: skip
_KINDS = {ActorKind.USER: "", ActorKind.TOKEN: "token", ActorKind.DEVICE: "device", ActorKind.COMMAND: "command",
          ActorKind.SERVER: "", ActorKind.ANYBODY: ""}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ActRow:
    """One row of the list."""

    seq: int
    at: str
    who: PageLink
    act: str
    subject: PageLink
    how: str
    detail: str


def add_page(pages: Pages) -> None:
    """Add the page."""
    looks: SharedLook[AddressFilters, Page[ActRow]] = SharedLook(partial(act_rows, pages.services))
    chain = ChainWatch(log=pages.services.acts, clock=pages.services.users.clock)
    pages.add(_LIST, "Log of acts", partial(_build, looks, chain), need=Need.ADMINISTER, menu=PATH)


def add_export(app: FastAPI, services: Services, sessions: Sessions) -> None:
    """Add the route that sends every act to an admin, as ``fleet-server audit export`` prints them."""

    @app.get(_EXPORT, include_in_schema=False)
    def export(request: Request) -> Response:
        who = sessions.principal(request, acting=True)
        if who is None:
            return sessions.refusal(request) or Response(status_code=401)
        if not who.may(Need.ADMINISTER):
            return Response("Expected an admin: ask one for the export\n", 403, media_type="text/plain")
        lines = (f"{line}\n" for line in services.acts.export())
        name = {"Content-Disposition": 'attachment; filename="acts.jsonl"', "Cache-Control": "no-store"}
        return StreamingResponse(lines, media_type="application/jsonl", headers=name)


def act_rows(services: Services, asked: AddressFilters) -> Page[ActRow]:
    """Return the page of acts at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values = dict(asked)
    wanted = ActFilter(
        person=values.get("person", ""), act=values.get("act", ""), subject=values.get("subject", ""),
        search=values.get("search", ""), since_ms=_day_ms(values.get("since", "")),
        until_ms=_day_ms(values.get("until", ""), 1),
    )  # fmt: skip
    return services.acts.page(wanted, limit=_SHOWN, cursor=values.get(CURSOR)).of(act_row)


def _day_ms(day: str, later: int = 0) -> int | None:
    """Return the first millisecond of a day, or of so many days later; None for no day."""
    return int((_day(day) + later * _DAY).timestamp() * 1000) if day else None


def _day(day: str) -> datetime:
    return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)


def act_row(one: RecordedAct) -> ActRow:
    """Return the row of one act, with links to who did it and to what it concerns."""
    who = f"{one.account} for {one.said}" if one.said else one.account
    ways = [_KINDS[ActorKind(one.kind)] if one.kind in set(ActorKind) else one.kind, one.through, one.address]
    return ActRow(
        seq=one.seq, at=clock_time(one.at_ms), who=PageLink.to(who, _LIST, person=one.account), act=one.act,
        subject=PageLink(one.subject, subject_page(one)), how=", ".join(way for way in ways if way),
        detail=_detail(one.data),
    )  # fmt: skip


def subject_page(one: RecordedAct) -> str:
    """Return the address of the page of what an act concerns, "" if there is none."""
    kind = one.act.partition(".")[0]
    if one.act == "audit.ask":
        return "/samples"
    if kind == "token":
        return page_of("token", str(one.data.get("id") or ""))
    if kind in {"login", "logout"}:
        return page_of("user", one.subject) if one.kind == ActorKind.USER else ""
    if kind == "place" or (kind == "device" and "=" not in one.subject):
        return page_of("device", one.subject)
    return page_of(kind, one.subject) if kind != "device" else ""


def _detail(data: Mapping[str, Json]) -> str:
    """Return what else is known of an act in few words; the export has all of it."""
    parts = [f"{name} {_short(value)}" for name, value in data.items() if value not in ("", None, [], {})]
    text = ", ".join(parts)
    return text if len(text) <= _MOST_DETAIL else f"{text[: _MOST_DETAIL - 1]}…"


def _short(value: Json) -> str:
    if isinstance(value, Mapping):
        return f"({len(value)} values)"
    return value if isinstance(value, str) else canonical_bytes(value)[:_MOST_DETAIL].decode(errors="replace")


def _build(looks: SharedLook[AddressFilters, Page[ActRow]], chain: ChainWatch, visit: Visit) -> None:
    tabs(_LIST)
    live_apart(lambda _: chain.step(), partial(_show_chain, chain))
    query = visit.request.query_params
    for name in ("since", "until"):
        try:
            _day_ms(query.get(name, ""), 1)
        except (ValueError, OverflowError):
            day = query.get(name, "")[:40]
            empty("No such list", f"Expected {name} to be a day such as 2026-11-30, got {day!r}.")
            return
    LIST.build(query, looks)


def chain_status(state: ChainState) -> tuple[Status, str]:
    """Return whether the chain is whole, and since when that is known, in words."""
    found = state.finding
    if found.broken_seq:
        text = f"It breaks at record {found.broken_seq}: {found.why}. Compare it with a backup, and find out who may "
        return Status("broken", Tone.BAD), text + "write the database."
    if not state.over:
        return Status("being verified", Tone.BUSY), f"Verified up to record {found.count:,} so far."
    since = f"Verified up to record {found.count:,} at {clock_time(state.at_ms)} UTC"
    return Status("none was changed", Tone.GOOD), f"{since}, from the first on since {clock_time(state.begun_ms)} UTC."


def _show_chain(chain: ChainWatch, state: ChainState) -> None:
    status, text = chain_status(state)
    with ui.element("section").classes("tf-card"):
        with ui.element("div").classes("tf-row"):
            pill(status)
            ui.label(text)
            ui.element("div").classes("tf-grow")
            button = ui.button("Verify again", on_click=chain.again).props("no-caps dense outline")
            button.style("padding: 4px 14px")
            ui.link("Export all (JSON lines)", _EXPORT).classes("tf-link tf-small").props("download=acts.jsonl")
        if state.finding.count:
            ui.label(f"{state.finding.count}:{state.finding.head_sha256}").classes("tf-mono").style(
                "overflow-wrap: anywhere"
            )
            ui.label(
                "The line above is an anchor. Keep it elsewhere: fleet-server audit verify --anchor shows with it "
                "whether the newest records were cut off, or all was written anew, which no chain shows alone."
            ).classes("tf-muted tf-small")
