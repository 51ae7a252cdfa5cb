"""``/users``: people who may log in; ``/users/{name}``: one of them, with what an admin may change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from fastapi import Request, Response
from nicegui import ui

from server.access.passwords import MIN_LETTERS
from server.access.roles import Need, Role
from server.access.users import User
from server.dashboard.finding.addresses import page_of
from server.dashboard.listing import CURSOR, AddressFilters, FilterField, ListedPage, SharedLook
from server.dashboard.pages.people.tabs import PATH, ROLES, acts_by, tabs, token_status
from server.dashboard.services import Services
from server.dashboard.theme import Column, confirm, empty, heading, live_apart, pill
from server.dashboard.views import Cut, PageLink, Status, Tone, clock_time
from server.dashboard.visit import Pages, Visit
from server.errors import UnknownUserError, UserRefusedError
from server.store.lists.paging import Page

_SHOWN, _TOKENS_SHOWN = 100, 50
COLUMNS = (
    Column(name="name", label="Name", look="link", sortable=False),
    Column(name="role", label="Role", sortable=False),
    Column(name="state", label="State", look="pill", sortable=False),
    Column(name="last_login", label="Last login (UTC)", sortable=False),
    Column(name="created", label="Added (UTC)", sortable=False),
    Column(name="acts", label="What it did", look="link", sortable=False),
)
FIELDS = (
    FilterField(name="search", label="Name"),
    FilterField(name="role", label="Role", choices=ROLES),
    FilterField(name="state", label="Only", choices={"active": "may log in", "disabled": "disabled"}),
)
LIST = ListedPage(
    path=PATH, what="users", fields=FIELDS, columns=COLUMNS, key="key",
    none="The tokens of the state directory act as operator and builder. Give each person a name by the form above.",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """One row of the list."""

    key: str
    name: PageLink
    role: str
    state: Status
    last_login: str
    created: str
    acts: PageLink


@dataclass(frozen=True, slots=True, kw_only=True)
class UserView:
    """The content of one user's page."""

    name: str
    role: Role
    disabled: bool
    state: Status
    facts: tuple[str, ...]
    tokens: Cut[tuple[str, str, Status]]


def add_page(pages: Pages) -> None:
    """Add both pages."""
    looks: SharedLook[AddressFilters, Page[UserRow]] = SharedLook(partial(user_rows, pages.services))
    pages.add(PATH, "Users", partial(_build, looks), need=Need.ADMINISTER)

    @ui.page("/users/{name}")
    def page(request: Request, name: str) -> Response | None:
        return pages.show(request, PATH, name[:63], partial(_build_one, name), need=Need.ADMINISTER)


def user_rows(services: Services, asked: AddressFilters) -> Page[UserRow]:
    """Return the page of users at an address.

    Raises:
        CursorRefusedError: If its cursor is not of such a list.
    """
    values = dict(asked)
    return services.users.page(
        search=values.get("search", ""), role=values.get("role", ""),
        disabled={"active": False, "disabled": True}.get(values.get("state", "")), limit=_SHOWN,
        cursor=values.get(CURSOR),
    ).of(_row)  # fmt: skip


def _row(user: User) -> UserRow:
    acts = acts_by(user.name)
    return UserRow(
        key=user.name, name=PageLink(user.name, page_of("user", user.name)), role=user.role.value, state=_state(user),
        last_login=clock_time(user.last_login_ms) or "never", created=f"{clock_time(user.created_ms)} by "
        f"{user.created_by}", acts=PageLink("acts", acts.href),
    )  # fmt: skip


def _state(user: User) -> Status:
    return Status("disabled", Tone.WARN) if user.disabled_ms else Status("may log in", Tone.GOOD)


def _build(looks: SharedLook[AddressFilters, Page[UserRow]], visit: Visit) -> None:
    tabs(PATH)
    NewUser(visit).build()
    LIST.build(visit.request.query_params, looks)


def _passwords() -> tuple[ui.input, ui.input]:
    """Show the two fields for a new password."""
    new, again = (
        ui.input(label, password=True).props('dense outlined autocomplete="new-password"')
        for label in ("Password", "Password once more")
    )
    return new, again


def _typed_twice(new: str, again: str) -> str:
    if new != again:
        raise UserRefusedError("Expected the same password twice, got two that differ: type it again")
    return new


@dataclass(frozen=True, slots=True)
class NewUser:
    """The form that adds a user."""

    visit: Visit

    def build(self) -> None:
        """Show the form."""
        with ui.element("section").classes("tf-card"):
            heading("Add a user")
            with ui.element("div").classes("tf-row"):
                name = ui.input("Name").props('dense outlined maxlength=63 autocomplete="off" autocapitalize=none')
                role = ui.select(ROLES, label="Role", value=Role.VIEWER.value).props("dense outlined")
                role.style("min-width: 140px")
                new, again = _passwords()
                button = ui.button("Add user").props("no-caps dense unelevated").style("padding: 4px 14px")
            ui.label(
                f"A name has a-z 0-9 . _ - and is never given to another person. A password has at least {MIN_LETTERS} "
                "letters; its owner changes it on the page Account."
            ).classes("tf-muted tf-small")

        async def add() -> None:
            given = str(name.value or "").strip(), str(role.value), str(new.value or ""), str(again.value or "")
            if await self._add(*given):
                new.value = again.value = ""
                ui.navigate.to(page_of("user", given[0]))

        button.on_click(add)

    async def _add(self, name: str, role: str, new: str, again: str) -> bool:
        def add() -> User:
            return self.visit.services.users.add(name, role, _typed_twice(new, again), by=self.visit.by())

        return await self.visit.ask(add, Need.ADMINISTER) is not None


def _build_one(name: str, visit: Visit) -> None:
    tabs("")
    heading(name[:63], 1)
    try:
        known = visit.services.users.get(name)
    except UnknownUserError as error:
        visit.client.status_code = 404
        empty("No such user", str(error))
        return
    ui.link("All users", PATH).classes("tf-link tf-small")
    changes = UserChanges(visit, name)
    visit.look = live_apart(lambda _: _view(visit.services, name), changes.show)
    changes.build(known.role)


def _view(services: Services, name: str) -> UserView:
    user, now_ms = services.users.get(name), services.users.clock()
    found = services.tokens.page(owner=name, limit=_TOKENS_SHOWN)
    tokens = tuple((one.name, one.id, token_status(one, now_ms)) for one in found.rows)
    login = f"Last login {clock_time(user.last_login_ms)} UTC." if user.last_login_ms else "It has never logged in."
    return UserView(
        name=user.name, role=user.role, disabled=bool(user.disabled_ms), state=_state(user),
        facts=(
            f"Role {user.role}.", login, f"Added {clock_time(user.created_ms)} UTC by {user.created_by}.",
            *([f"Disabled {clock_time(user.disabled_ms)} UTC."] if user.disabled_ms else []),
        ),
        tokens=Cut(tokens, (found.total or len(tokens)) - len(tokens)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class UserChanges:
    """What an admin may change about one user, on one visitor's page."""

    visit: Visit
    name: str

    def show(self, view: UserView) -> None:
        """Show how the user stands, with the buttons for that."""
        with ui.element("section").classes("tf-card"):
            with ui.element("div").classes("tf-row"):
                pill(view.state)
                ui.label(" ".join(view.facts))
                ui.element("div").classes("tf-grow")
                ui.link("What it did", acts_by(view.name).href).classes("tf-link tf-small")
                ui.link("What was done to it", PageLink.to("", "/acts", act="user", subject=view.name).href).classes(
                    "tf-link tf-small"
                )
            with ui.element("div").classes("tf-row"):
                if view.disabled:
                    self._button("Enable", self._enable)
                else:
                    self._button("End all sessions", self._end_sessions)
                    self._button("Disable", self._disable, color="negative")
        with ui.element("section").classes("tf-card"):
            heading("Personal tokens")
            if not view.tokens.rows:
                ui.label("None.").classes("tf-muted tf-small")
            for name, token, state in view.tokens.rows:
                with ui.element("div").classes("tf-row tf-small"):
                    ui.link(name, page_of("token", token)).classes("tf-link")
                    pill(state)
            if view.tokens.more:
                ui.link(f"and {view.tokens.more} more", f"/tokens?owner={view.name}").classes("tf-link tf-small")

    def _button(self, text: str, act: object, color: str = "primary") -> None:
        button = ui.button(text, on_click=act)  # type: ignore[arg-type]
        button.props(f"no-caps dense outline color={color}").style("padding: 4px 14px")

    def build(self, role: Role) -> None:
        """Show the forms; they are not drawn anew while somebody types."""
        with ui.element("section").classes("tf-card"):
            heading("Change")
            with ui.element("div").classes("tf-row"):
                chosen = ui.select(ROLES, label="Role", value=role.value).props("dense outlined")
                chosen.style("min-width: 140px")
                self._button("Change role", lambda: self._role(str(chosen.value)))
            with ui.element("div").classes("tf-row"):
                new, again = _passwords()

                async def change() -> None:
                    if await self._password(str(new.value or ""), str(again.value or "")):
                        new.value = again.value = ""

                self._button("Set password", change)
            ui.label("Another role counts from the next act on; another password ends all sessions.").classes(
                "tf-muted tf-small"
            )

    async def _role(self, role: str) -> None:
        users = self.visit.services.users
        await self.visit.do(partial(users.set_role, self.name, role, by=self.visit.by()), Need.ADMINISTER)

    async def _password(self, new: str, again: str) -> bool:
        def change() -> User:
            users = self.visit.services.users
            return users.set_password(self.name, _typed_twice(new, again), by=self.visit.by())

        done = await self.visit.do(change, Need.ADMINISTER)
        if done is not None:
            with self.visit.client:
                ui.notify(f"{self.name} has another password; its sessions have ended.")
        return done is not None

    async def _disable(self) -> None:
        detail = "Sessions and personal tokens end at once. The name stays with what was done under it."
        if await confirm(self.visit.client, f"Disable {self.name}?", detail, "Disable"):
            users = self.visit.services.users
            await self.visit.do(partial(users.disable, self.name, by=self.visit.by()), Need.ADMINISTER)

    async def _enable(self) -> None:
        users = self.visit.services.users
        await self.visit.do(partial(users.enable, self.name, by=self.visit.by()), Need.ADMINISTER)

    async def _end_sessions(self) -> None:
        detail = "The person logs in again in each browser; personal tokens stay."
        if await confirm(self.visit.client, f"End all sessions of {self.name}?", detail, "End sessions"):
            users = self.visit.services.users
            await self.visit.do(partial(users.end_sessions, self.name, by=self.visit.by()), Need.ADMINISTER)
