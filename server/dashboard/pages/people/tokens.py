"""``/tokens``: personal and service tokens; ``/tokens/{id}``: one of them, with the button that revokes it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import ui

from server.access.roles import Need, Role
from server.access.tokens import MAX_DAYS, IssuedToken, TokenOrder
from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import CURSOR, AddressFilters, FilterField, ListedPage, SharedLook
from server.dashboard.pages.people.tabs import PATH, acts_by, tabs, token_status
from server.dashboard.services import Services
from server.dashboard.theme import Column, confirm, empty, heading, live_apart, pill, show_once
from server.dashboard.views import PageLink, Status, clock_time
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownTokenError
from server.store.lists.paging import Page

_SHOWN = 100
_LIST = "/tokens"
COLUMNS = (
    Column(name="name", label="Name", look="link", sortable=False),
    Column(name="owner", label="Whose", look="link", sortable=False),
    Column(name="scope", label="May do", sortable=False),
    Column(name="state", label="State", look="pill", sortable=False),
    Column(name="expires", label="Expires (UTC)", sortable=False),
    Column(name="used", label="Last used (UTC)", sortable=False),
)
FIELDS = (
    FilterField(name="search", label="Name or owner"),
    FilterField(name="owner", label="User"),
    FilterField(name="state", label="Only", choices={"valid": "valid", "over": "expired or revoked"}),
)
LIST = ListedPage(
    path=_LIST, what="tokens", fields=FIELDS, columns=COLUMNS, key="key",
    none="Programs use the tokens of the state directory. Give each one of its own by the form above.",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One row of the list."""

    key: str
    name: PageLink
    owner: PageLink
    scope: str
    state: Status
    expires: str
    used: str


def add_page(pages: Pages) -> None:
    """Add both pages."""
    looks: SharedLook[AddressFilters, Page[TokenRow]] = SharedLook(partial(token_rows, pages.services))
    pages.add(_LIST, "Tokens", partial(_build, looks), need=Need.ADMINISTER, menu=PATH)

    @ui.page("/tokens/{token}")
    def page(request: Request, token: str) -> Response | None:
        return pages.show(request, PATH, "Token", partial(_build_one, token), need=Need.ADMINISTER)


def token_rows(services: Services, asked: AddressFilters) -> Page[TokenRow]:
    """Return the page of tokens at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values, now_ms = dict(asked), services.tokens.clock()
    return services.tokens.page(
        search=values.get("search", ""), owner=values.get("owner", ""),
        valid={"valid": True, "over": False}.get(values.get("state", "")), limit=_SHOWN, cursor=values.get(CURSOR),
    ).of(lambda token: _row(token, now_ms))  # fmt: skip


def _row(token: IssuedToken, now_ms: int) -> TokenRow:
    return TokenRow(
        key=token.id, name=PageLink(token.name, page_of("token", token.id)), owner=_owner(token), scope=_scope(token),
        state=token_status(token, now_ms), expires=clock_time(token.expires_ms) or "never",
        used=clock_time(token.last_used_ms) or "never",
    )  # fmt: skip


def _owner(token: IssuedToken) -> PageLink:
    return PageLink(token.owner, page_of("user", token.owner)) if token.owner else PageLink("a service")


def _scope(token: IssuedToken) -> str:
    return f"{token.role}, read only" if token.read_only else token.role.value


def _build(looks: SharedLook[AddressFilters, Page[TokenRow]], visit: Visit) -> None:
    tabs(_LIST)
    NewToken(visit).build()
    LIST.build(visit.request.query_params, looks)


@dataclass(frozen=True, slots=True)
class NewToken:
    """The form that issues a token."""

    visit: Visit

    def build(self) -> None:
        """Show the form."""
        with ui.element("section").classes("tf-card"):
            heading("Issue a token")
            with ui.element("div").classes("tf-row"):
                name = ui.input("Name").props('dense outlined maxlength=63 autocomplete="off" autocapitalize=none')
                roles = {role.value: role.value for role in Role}
                role = ui.select(roles, label="Role at most", value=Role.VIEWER.value).props("dense outlined")
                role.style("min-width: 140px")
                owner = ui.input("User, if it is personal").props('dense outlined maxlength=63 autocomplete="off"')
                days = ui.number("Days, 0 for ever", value=90, min=0, max=MAX_DAYS, precision=0).props("dense outlined")
                days.style("width: 140px")
                reads = ui.checkbox("It may only read")
                button = ui.button("Issue token").props("no-caps dense unelevated").style("padding: 4px 14px")
            ui.label(
                "A personal token acts under its user's name, with at most what the user may at that moment; a service "
                "token acts under its own name. It is shown once."
            ).classes("tf-muted tf-small")

        async def issue() -> None:
            await self._issue(
                TokenOrder(
                    name=str(name.value or "").strip(), role=str(role.value), owner=str(owner.value or "").strip(),
                    read_only=bool(reads.value), days=90.0 if days.value is None else float(days.value),
                )
            )  # fmt: skip

        button.on_click(issue)

    async def _issue(self, order: TokenOrder) -> None:
        issue = partial(self.visit.services.tokens.issue, order, by=self.visit.by())
        made = await self.visit.ask(issue, Need.ADMINISTER)
        if made is not None:
            note = "Copy it now: nobody can read it again."
            await show_once(self.visit.client, f"Token {made[0].name}", note, made[1])
            with self.visit.client:
                ui.navigate.to(page_of("token", made[0].id))


def _build_one(token: str, visit: Visit) -> None:
    tabs("")
    try:
        known = visit.services.tokens.get(token)
    except UnknownTokenError as error:
        visit.client.status_code = 404
        heading("Token", 1)
        empty("No such token", str(error))
        return
    heading(f"Token {known.name}", 1)
    ui.link("All tokens", _LIST).classes("tf-link tf-small")
    visit.look = live_apart(lambda _: visit.services.tokens.get(known.id), TokenRevocation(visit).show)


@dataclass(frozen=True, slots=True)
class TokenRevocation:
    """One token on one visitor's page, and the button that ends it."""

    visit: Visit

    def show(self, token: IssuedToken) -> None:
        """Show what it may do, until when, and when it was used last (to a minute)."""
        now_ms = self.visit.services.tokens.clock()
        until = f"expires {clock_time(token.expires_ms)} UTC" if token.expires_ms else "does not expire"
        used = f"last used {clock_time(token.last_used_ms)} UTC" if token.last_used_ms else "never used"
        with ui.element("section").classes("tf-card"):
            with ui.element("div").classes("tf-row"):
                pill(token_status(token, now_ms))
                ui.label(f"{token.kind.value.capitalize()} token {token.id}, {_scope(token)}; {until}; {used}.")
            ui.label(f"Issued {clock_time(token.created_ms)} UTC by {token.created_by}.").classes("tf-muted tf-small")
            with ui.element("div").classes("tf-row tf-small"):
                owner = _owner(token)
                if owner.href:
                    ui.link(f"User {owner.text}", owner.href).classes("tf-link")
                ui.link("What it did", acts_by(token.owner or token.name).href).classes("tf-link")
                ui.link("Its own record", PageLink.to("", "/acts", act="token", subject=token.name).href).classes(
                    "tf-link"
                )
            if token.is_valid(now_ms):
                button = ui.button("Revoke", on_click=partial(self._revoke, token))
                button.props("no-caps dense outline color=negative").style("padding: 4px 14px; width: fit-content")

    async def _revoke(self, token: IssuedToken) -> None:
        detail = "Programs that use it are refused from the next request on."
        if await confirm(self.visit.client, f"Revoke {token.name}?", detail, "Revoke"):
            revoke = partial(self.visit.services.tokens.revoke, token.id, by=self.visit.by())
            await self.visit.do(revoke, Need.ADMINISTER)
