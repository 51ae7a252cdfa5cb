"""Tokens are shown once, stored hashed, and refused once they are expired, revoked or their owner is disabled."""

from __future__ import annotations

import pytest

from server.access.roles import Need, Principal, Role
from server.access.tokens import TokenOrder
from server.errors import TokenRefusedError, UnknownTokenError, UnknownUserError
from server.people import ActorKind
from server.store.people import accounts as store

from .conftest import HOUR_MS, PASSWORD, House


@pytest.fixture(autouse=True)
def _ada(house: House) -> None:
    house.users.add("ada", "approver", PASSWORD, by="test")


def issued(house: House, **order: object) -> tuple[str, str]:
    """Return id and secret of a new token."""
    token, secret = house.tokens.issue(TokenOrder(**{"name": "robot", "role": "operator", **order}), by="test")  # type: ignore[arg-type]
    return token.id, secret


def test_the_secret_is_nowhere_but_in_the_answer(house: House) -> None:
    """Neither in the table nor in the log; the digest is of 256 random bits, which nobody guesses."""
    _, secret = issued(house)
    with house.database.begin() as connection:
        rows = str([dict(row) for row in store.all_tokens(connection)])
    assert len(secret) == len("tft_") + 43
    assert secret not in rows + "".join(house.log.export())
    assert issued(house)[1] != secret


def test_a_service_token_acts_under_its_own_name(house: House) -> None:
    """Through the id by which it is revoked."""
    token, secret = issued(house)
    found = house.tokens.principal(secret, "192.0.2.1")
    assert isinstance(found, Principal)
    assert (found.actor.account, found.actor.kind, found.actor.through, found.role) == (
        "robot", ActorKind.TOKEN, token, Role.OPERATOR
    )  # fmt: skip


def test_a_personal_token_can_do_what_its_owner_may_now(house: House) -> None:
    """It acts under the owner's name, and loses rights with the owner."""
    _, secret = issued(house, owner="ada", role="approver")
    roles = []
    for role in ("admin", "viewer"):
        house.users.set_role("ada", role, by="test")
        found = house.tokens.principal(secret)
        roles.append(found.role if found else None)
    assert roles == [Role.APPROVER, Role.VIEWER]
    house.users.disable("ada", by="test")
    assert house.tokens.principal(secret) is None


def test_a_token_expires_to_the_millisecond(house: House) -> None:
    """And one without an end does not."""
    (_, day), (_, ever) = issued(house, days=1), issued(house, days=0)
    house.clock.now_ms += 24 * HOUR_MS - 1
    assert house.tokens.principal(day)
    house.clock.now_ms += 1
    assert house.tokens.principal(day) is None
    assert house.tokens.principal(ever)


def test_one_token_is_revoked_and_the_others_stay(house: House) -> None:
    """Once: a second time changes nothing and records nothing."""
    (first, gone), (_, stays) = issued(house), issued(house)
    assert house.tokens.revoke(first, by="bob").revoked_by == "bob"
    head = house.log.head()
    house.tokens.revoke(first, by="eve")
    assert house.log.head() == head
    assert (house.tokens.principal(gone), house.tokens.principal(stays) is None) == (None, False)


def test_a_read_only_token_changes_nothing_whatever_its_role(house: House) -> None:
    """It reads what its role reads."""
    _, secret = issued(house, role="admin", read_only=True)
    found = house.tokens.principal(secret)
    assert found is not None
    assert [found.may(Need.VIEW), found.may(Need.LABEL), found.may(Need.ADMINISTER)] == [True, False, False]
    assert found.may(Need.ADMINISTER, reading=True)


def test_its_last_use_is_known_to_a_minute(house: House) -> None:
    """Not with a write for each request."""
    token, secret = issued(house)
    used = []
    for pause_ms in (0, 59_999, 1):
        house.clock.now_ms += pause_ms
        house.tokens.principal(secret)
        used.append(house.clock.now_ms - house.tokens.get(token).last_used_ms)
    assert used == [0, 59_999, 0]


@pytest.mark.parametrize(("order", "error"), [
    ({"role": "admin", "owner": "ada"}, TokenRefusedError), ({"owner": "nobody"}, UnknownUserError),
    ({"name": "operator"}, TokenRefusedError), ({"name": "A B"}, TokenRefusedError),
    ({"days": -1}, TokenRefusedError), ({"days": float("nan")}, TokenRefusedError),
])  # fmt: skip
def test_an_impossible_token_is_refused(house: House, order: dict[str, object], error: type[Exception]) -> None:
    """Above its owner, of nobody, under a reserved name, or for an impossible time."""
    with pytest.raises(error, match="Expected"):
        issued(house, **order)
    assert house.tokens.all() == ()


@pytest.mark.parametrize("secret", ["", "tft_", "tft_" + "x" * 43, "x" * 47, "tft_ä\udcff"])
def test_what_was_never_issued_is_nobody(house: House, secret: str) -> None:
    """Also odd texts."""
    assert house.tokens.principal(secret) is None


def test_an_unknown_id_is_named(house: House) -> None:
    """With the command that lists them."""
    with pytest.raises(UnknownTokenError, match="got 'abc': fleet-server tokens list"):
        house.tokens.revoke("abc", by="test")
