"""One visitor's page: it is shown, and its buttons work, only while the visitor is logged in.

Each page's own file defines its list and its buttons.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from fastapi import Request, Response
from nicegui import Client, run, ui

from server.access.roles import Need, Principal, wanted
from server.dashboard.services import Services
from server.dashboard.session import Sessions
from server.dashboard.theme import LOGIN, empty, frame, heading
from server.errors import ForbiddenError, ServerError
from server.people import Actor

Result = TypeVar("Result")
ADMINS_PAGES = (("/users", "People"),)


@dataclass(slots=True, kw_only=True)
class Visit:
    """One page in one browser; ``look`` refreshes its list at once. ``who``: the visitor when the page was opened."""

    services: Services
    sessions: Sessions
    request: Request
    client: Client
    who: Principal
    look: Callable[[], Awaitable[None] | None] = lambda: None

    def may(self, need: Need) -> bool:
        """Return whether the page offers what needs ``need``; ``ask`` and ``do`` check it again when it is done."""
        return self.who.may(need)

    def by(self, name: str = "") -> Actor:
        """Return who acts here, for whom the visitor says: the operator's token may be anybody's."""
        return self.who.actor.saying(name)

    async def ask(self, call: Callable[[], Result], need: Need = Need.VIEW) -> Result | None:
        """Return the result of ``call``, which needs ``need``.

        None if it is refused, which is shown, or the visitor is not logged in any more.
        """
        now = self.sessions.principal(self.request, acting=True)
        if now is None:
            with self.client:
                ui.navigate.to(LOGIN)
            return None
        try:
            if not now.may(need):
                message = f"Expected {wanted(need)}, got {now.actor.account}, whose role is {now.role}: ask an admin"
                raise ForbiddenError(message)
            return await run.io_bound(call)
        except ServerError as error:
            with self.client:
                ui.notify(str(error), type="negative", multi_line=True)
            return None

    async def do_and_reopen(self, call: Callable[[], object], need: Need = Need.OPERATE) -> None:
        """Do the same as ``ask``, then open the page anew if ``call`` was done."""
        if await self.ask(call, need) is not None:
            with self.client:
                ui.navigate.reload()

    async def do(self, call: Callable[[], Result], need: Need = Need.OPERATE) -> Result | None:
        """Do the same as ``ask``, then refresh the list."""
        done = await self.ask(call, need)
        with self.client:
            waiting = self.look()
            if waiting is not None:
                await waiting
        return done


@dataclass(frozen=True, slots=True)
class Pages:
    """Adds the pages of one server."""

    services: Services
    sessions: Sessions

    def add(
        self, path: str, title: str, build: Callable[[Visit], None], *, text: str = "", need: Need = Need.VIEW,
        menu: str = "",
    ) -> None:  # fmt: skip
        """Add the page at ``path``, which ``build`` fills; its heading is ``text``, by default its title.

        ``need``: as of ``show``. ``menu``: the path that the menu marks, by default ``path``.
        """

        @ui.page(path)
        def page(request: Request) -> Response | None:
            return self.show(request, menu or path, title, partial(self._headed, text or title, build), need=need)

    def show(
        self, request: Request, path: str, title: str, build: Callable[[Visit], None], *, need: Need = Need.VIEW
    ) -> Response | None:
        """Show a page that ``build`` fills, or return the redirect for a visitor who is not logged in.

        Who may not do what needs ``need`` reads so instead, and a page that is open leaves once its visitor may no
        longer.
        """
        who = self.sessions.principal(request, acting=True)
        if who is None:
            return self.sessions.refusal(request)
        if not who.may(need):
            build, need = partial(_refuse, need), Need.VIEW
        counts = {"/alerts": lambda: sum(self.services.alerts.counts().values())}
        more = ADMINS_PAGES if who.may(Need.ADMINISTER) else ()
        with frame(title, path, partial(self._may, request, need), who.actor, counts=counts, more=more):
            build(
                Visit(
                    services=self.services, sessions=self.sessions, request=request, client=ui.context.client, who=who
                )
            )
        return None

    def _may(self, request: Request, need: Need) -> bool:
        who = self.sessions.principal(request)
        return who is not None and who.may(need)

    def _headed(self, text: str, build: Callable[[Visit], None], visit: Visit) -> None:
        heading(text, 1)
        build(visit)


def _refuse(need: Need, visit: Visit) -> None:
    visit.client.status_code = 403
    empty(f"This page is for {wanted(need)}", f"Your role is {visit.who.role}: ask an admin.")
