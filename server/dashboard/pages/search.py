"""``/search``: things of every kind by words; and what the field of the bar shows while somebody types."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from nicegui import ui

from server.access.roles import Need, Principal
from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import SharedLook
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import empty, heading, live_apart
from server.dashboard.views import PageLink
from server.dashboard.visit import Pages, Visit
from server.search.find import MAX_TEXT, FoundKind, Search

_SUGGESTED, _SHOWN = 4, 25
_KINDS = {
    "device": "Devices", "release": "Releases", "rollout": "Rollouts", "verdict": "Verdicts", "sample": "Samples",
    "job": "Jobs", "user": "Users",
}  # fmt: skip
_LISTS: Mapping[str, tuple[str, str]] = {"device": ("/", "search"), "user": ("/users", "search")}
"""Lists with a search of their own, which have all of it: path and the name of the filter."""
Asked = tuple[str, bool]


def add_page(pages: Pages) -> None:
    """Add the page."""
    search = Search(pages.services.database)

    def find(asked: Asked) -> tuple[FoundKind, ...]:
        return search.find(asked[0], each=_SHOWN, admin=asked[1])

    looks: SharedLook[Asked, tuple[FoundKind, ...]] = SharedLook(find)
    pages.add("/search", "Search", partial(_build, looks))


def add_suggestions(app: FastAPI, services: Services, sessions: Sessions) -> None:
    """Add the route that the field of the bar asks while somebody types."""
    search = Search(services.database)

    @app.get("/search/suggest", include_in_schema=False)
    def suggest(request: Request, text: str = "") -> Response:
        who = sessions.principal(request, acting=True)
        if who is None:
            return JSONResponse({"found": []}, 401)
        found = search.find(text[:MAX_TEXT], each=_SUGGESTED, admin=_is_admin(who))
        hits = [
            {"kind": one.kind, "text": one.text, "detail": one.detail, "href": page_of(one.kind, one.id)}
            for kind in found for one in kind.things
        ]  # fmt: skip
        return JSONResponse({"found": hits}, headers={"Cache-Control": "no-store"})


def _is_admin(who: Principal) -> bool:
    return who.may(Need.ADMINISTER)


def _build(looks: SharedLook[Asked, tuple[FoundKind, ...]], visit: Visit) -> None:
    text = visit.request.query_params.get("text", "")[:MAX_TEXT].strip()
    if not text:
        empty("Search everything", "Type words into the field of the bar; the key / leads there.")
        return
    ui.label(f"Everything that has: {text}").classes("tf-muted")
    asked = text, _is_admin(visit.who)
    live_apart(lambda at_most_s: looks.get(asked, at_most_s), partial(_show, text))


def _show(text: str, found: tuple[FoundKind, ...]) -> None:
    if not found:
        empty(
            "Nothing found",
            "Devices are found by id, name, tag and site; releases, rollouts, verdicts and jobs by id or model; "
            "samples by number, label or the beginning of the device.",
        )
    for kind in found:
        with ui.element("section").classes("tf-card"):
            heading(_KINDS[kind.kind])
            for one in kind.things:
                with ui.element("div").classes("tf-row tf-small"):
                    link = ui.link(one.text, page_of(kind.kind, one.id)).classes("tf-link tf-cut")
                    link.props["title"] = one.text
                    ui.label(one.detail).classes("tf-muted")
            if kind.more and kind.kind in _LISTS:
                path, name = _LISTS[kind.kind]
                ui.link("All of them", PageLink.to("", path, **{name: text}).href).classes("tf-link tf-small")
            elif kind.more:
                ui.label("There are more: add a word.").classes("tf-muted tf-small")
