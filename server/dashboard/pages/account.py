"""``/account``: who is logged in, the own password, the own tokens, and the end of all own sessions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from nicegui import ui

from server.access.passwords import MIN_LETTERS
from server.access.roles import Need
from server.access.tokens import IssuedToken, TokenOrder
from server.dashboard.theme import LOGIN, confirm, heading, live, show_once
from server.dashboard.views import clock_time
from server.dashboard.visit import Pages, Visit
from server.errors import UserRefusedError
from server.people import ActorKind

_MAY = {
    "viewer": "see everything but users, tokens and the log of acts",
    "labeller": "also label samples",
    "operator": "also create, pause and abort rollouts, command and revoke devices, and more",
    "approver": "also approve and resume rollouts",
    "admin": "also manage users and tokens, and read the log of acts",
}


def add_page(pages: Pages) -> None:
    """Add the page."""
    pages.add("/account", "Account", _build)


def _build(visit: Visit) -> None:
    actor, role = visit.who.actor, visit.who.role
    with ui.element("section").classes("tf-card"):
        heading(actor.account)
        ui.label(f"Role {role}: you may {_MAY[role]}.")
        ui.label("Sessions in all browsers end at once, this one too.").classes("tf-muted tf-small")
        with ui.element("form").props('method="post" action="/logout/everywhere"'):
            ui.button("Log out everywhere").props("no-caps dense outline type=submit").style("padding: 4px 14px")
    if actor.kind is not ActorKind.USER:
        ui.label(
            "This is the token of the server's state directory. Give each person a name: fleet-server users add."
        ).classes("tf-muted")
        return
    OwnPassword(visit).build()
    OwnTokens(visit).build()


@dataclass(frozen=True, slots=True)
class OwnPassword:
    """The form that changes the visitor's password."""

    visit: Visit

    def build(self) -> None:
        """Show the form."""
        with ui.element("section").classes("tf-card"):
            heading("Password")
            with ui.element("div").classes("tf-row"):
                old, new, again = (
                    ui.input(label, password=True).props(f'dense outlined autocomplete="{kind}"')
                    for label, kind in (
                        ("Password of now", "current-password"), ("New password", "new-password"),
                        ("Once more", "new-password"),
                    )
                )  # fmt: skip
                button = ui.button("Change password").props("no-caps dense outline").style("padding: 4px 14px")
            ui.label(f"At least {MIN_LETTERS} letters. You log in again afterwards.").classes("tf-muted tf-small")
        button.on_click(lambda: self._change(str(old.value or ""), str(new.value or ""), str(again.value or "")))

    async def _change(self, old: str, new: str, again: str) -> None:
        users, name = self.visit.services.users, self.visit.who.actor.account

        def change() -> bool:
            if new != again:
                raise UserRefusedError("Expected the new password twice, got two that differ")
            if users.log_in(name, old) is None:
                raise UserRefusedError("Expected the password that you have now, got another")
            users.set_password(name, new, by=self.visit.by())
            return True

        if await self.visit.ask(change):
            with self.visit.client:
                ui.navigate.to(LOGIN)


@dataclass(frozen=True, slots=True)
class OwnTokens:
    """The visitor's personal tokens."""

    visit: Visit

    def build(self) -> None:
        """Show the form that issues one, and the list."""
        with ui.element("section").classes("tf-card"):
            heading("Personal tokens")
            ui.label("For scripts that act under your name, with at most your role. Each is shown once.").classes(
                "tf-muted tf-small"
            )
            with ui.element("div").classes("tf-row"):
                name = ui.input("Name of the token").props("dense outlined maxlength=63")
                days = ui.number("Days", value=90, min=1, max=3_650, step=1, precision=0).props("dense outlined")
                reads = ui.checkbox("It may only read")
                button = ui.button("Issue token").props("no-caps dense outline").style("padding: 4px 14px")
            self.visit.look = live(self._own, self._show)
        button.on_click(lambda: self._issue(str(name.value or ""), float(days.value or 90), read_only=reads.value))

    def _own(self) -> tuple[IssuedToken, ...]:
        now_ms, tokens = self.visit.services.fleet.clock(), self.visit.services.tokens.all()
        return tuple(one for one in tokens if one.owner == self.visit.who.actor.account and one.is_valid(now_ms))

    def _show(self, tokens: tuple[IssuedToken, ...]) -> None:
        if not tokens:
            ui.label("None yet.").classes("tf-muted tf-small")
        for token in tokens:
            with ui.element("div").classes("tf-row tf-small"):
                ui.label(token.name).style("font-weight: 600")
                until = f"until {clock_time(token.expires_ms)}" if token.expires_ms else "does not expire"
                used = f"last used {clock_time(token.last_used_ms)}" if token.last_used_ms else "never used"
                reads = ", read only" if token.read_only else ""
                ui.label(f"{token.role}{reads}, {until}, {used}").classes("tf-muted")
                ui.element("div").classes("tf-grow")
                button = ui.button("Revoke", on_click=partial(self._revoke, token))
                button.props("no-caps dense outline color=negative").style("padding: 2px 10px")
                button.props["aria-label"] = f"Revoke {token.name}"

    async def _issue(self, name: str, days: float, *, read_only: bool) -> None:
        who = self.visit.who
        order = TokenOrder(name=name, role=who.role, owner=who.actor.account, read_only=read_only, days=days)
        made = await self.visit.do(partial(self.visit.services.tokens.issue, order, by=self.visit.by()), Need.VIEW)
        if made is None:
            return
        note = "Copy it now: nobody can read it again."
        await show_once(self.visit.client, f"Token {made[0].name}", note, made[1])

    async def _revoke(self, token: IssuedToken) -> None:
        if await confirm(self.visit.client, f"Revoke {token.name}?", "Scripts that use it are refused.", "Revoke"):
            revoke = partial(self.visit.services.tokens.revoke, token.id, by=self.visit.by())
            await self.visit.do(revoke, Need.VIEW)
