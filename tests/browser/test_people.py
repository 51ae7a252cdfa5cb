"""Users, tokens and the log of acts in a browser: what an admin does there, and what others find."""

from __future__ import annotations

import re
from typing import Protocol

import pytest
from playwright.sync_api import Page, expect

from server.access.tokens import TokenOrder
from server.app.server import ServerApp

pytestmark = pytest.mark.browser
PASSWORD = "a long enough password"


class World(Protocol):
    """The values of the fixture ``world``."""

    app: ServerApp
    token: str


def test_an_admin_adds_a_user_and_disables_it(admin: Page, world: World) -> None:
    """Two passwords that differ are refused; each act is in the log under the admin's name."""
    admin.goto("/users")
    card = admin.locator("section", has=admin.get_by_role("heading", name="Add a user"))
    card.get_by_label("Name").fill("bob")
    card.get_by_label("Password", exact=True).fill(PASSWORD)
    card.get_by_label("Password once more").fill("another long password")
    card.get_by_role("button", name="Add user").click()
    expect(admin.get_by_role("alert")).to_contain_text("Expected the same password twice")
    card.get_by_label("Password once more").fill(PASSWORD)
    card.get_by_role("button", name="Add user").click()
    expect(admin).to_have_url("/users/bob")
    admin.get_by_role("button", name="Disable").click()
    admin.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(admin.get_by_role("main")).to_contain_text("disabled")
    assert world.app.parts.users.get("bob").disabled_ms
    admin.get_by_role("link", name="What was done to it").click()
    expect(admin.get_by_role("cell", name="user.disable")).to_be_visible()
    acts = [(one.act, one.account) for one in world.app.parts.acts.latest(2)]
    assert acts == [("user.disable", "ada"), ("user.add", "ada")]


def test_a_token_is_shown_once_and_revoked(admin: Page, world: World) -> None:
    """It works until it is revoked; after the dialog the page lacks it."""
    admin.goto("/tokens")
    card = admin.locator("section", has=admin.get_by_role("heading", name="Issue a token"))
    card.get_by_label("Name").fill("grafana")
    card.get_by_role("button", name="Issue token").click()
    dialog = admin.get_by_role("dialog")
    secret = dialog.get_by_text(re.compile("^tft_")).inner_text()
    assert world.app.parts.tokens.principal(secret) is not None
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    dialog.get_by_role("button", name="Done").click()
    admin.get_by_role("button", name="Revoke").click()
    assert secret not in admin.content()
    admin.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(admin.get_by_role("main")).to_contain_text("revoked by ada")
    assert world.app.parts.tokens.principal(secret) is None


def test_a_token_revoked_meanwhile_shows_so(admin: Page, world: World) -> None:
    """An open page that offers the button learns that there is nothing to revoke."""
    token, _ = world.app.parts.tokens.issue(TokenOrder(name="old", role="viewer"), by="test")
    admin.goto(f"/tokens/{token.id}")
    expect(admin.get_by_role("button", name="Revoke")).to_be_visible()
    world.app.parts.tokens.revoke(token.id, by="somebody")
    expect(admin.get_by_role("button", name="Revoke")).to_have_count(0)
    expect(admin.get_by_role("main")).to_contain_text("revoked by somebody")


def test_an_open_page_leaves_when_its_admin_is_no_admin_any_more(admin: Page, world: World) -> None:
    """Demoted, the person sees nothing newer, and the page offers what is left."""
    world.app.parts.users.add("eve", "admin", PASSWORD, by="test")
    admin.goto("/acts")
    expect(admin.get_by_role("main")).to_contain_text("none was changed")
    world.app.parts.users.set_role("ada", "viewer", by="eve")
    try:
        expect(admin).to_have_url("/")
        expect(admin.get_by_role("link", name="People")).to_have_count(0)
    finally:
        world.app.parts.users.set_role("ada", "admin", by="eve")
