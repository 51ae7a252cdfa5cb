"""The links between the three pages, and the small parts that they share."""

from __future__ import annotations

from nicegui import ui

from server.access.roles import PEOPLES
from server.access.tokens import IssuedToken
from server.dashboard.views import PageLink, Status, Tone

PATH = "/users"
"""The path that the menu marks on all three pages."""
_TABS = (("/users", "Users"), ("/tokens", "Tokens"), ("/acts", "Log of acts"))
ROLES = {role.value: role.value for role in PEOPLES}


def tabs(path: str) -> None:
    """Show the links between the pages; ``path`` is the one that is shown."""
    with ui.element("nav").classes("tf-tabs").props('aria-label="People"'):
        for target, name in _TABS:
            link = ui.link(name, target).classes("tf-nav" + (" tf-nav-on" if target == path else ""))
            if target == path:
                link.props('aria-current="page"')


def acts_by(account: str) -> PageLink:
    """Return the link to what an account did."""
    return PageLink.to(account, "/acts", person=account)


def token_status(token: IssuedToken, now_ms: int) -> Status:
    """Return whether a token is valid."""
    if token.revoked_ms:
        return Status(f"revoked by {token.revoked_by}" if token.revoked_by else "revoked", Tone.CALM)
    return Status("valid", Tone.GOOD) if token.is_valid(now_ms) else Status("expired", Tone.CALM)
