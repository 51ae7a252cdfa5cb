"""Users log in, are limited, disabled and logged out; nothing says which half of a login was wrong."""

from __future__ import annotations

import pytest

from server.access.limits import browser_proof
from server.access.passwords import Passwords
from server.access.roles import Role
from server.errors import PasswordRefusedError, UnknownUserError, UserRefusedError
from server.store.people import accounts as store

from .conftest import FILE_TOKEN, HOUR_MS, PASSWORD, House


@pytest.fixture(autouse=True)
def _ada(house: House) -> None:
    house.users.add("ada", "operator", PASSWORD, by="test")


def test_a_password_is_stored_as_argon2id_alone(house: House) -> None:
    """With the parameters that it was made with, and another salt for the same password."""
    house.users.add("bob", "viewer", PASSWORD, by="test")
    with house.database.begin() as connection:
        ada, bob = (str(row["password_hash"]) for row in store.all_users(connection))
    assert ada.startswith("$argon2id$v=19$m=64,t=1,p=4$")
    assert ada != bob
    assert PASSWORD not in ada
    assert Passwords(memory_kib=128, passes=2).fits(PASSWORD, ada), "a new cost leaves old passwords valid"


@pytest.mark.parametrize("name", ["", "Ada", "a b", "operator", "builder", "server", "ö", "a" * 64, "ada\n", "-a"])
def test_a_name_that_could_be_taken_for_another_is_refused(house: House, name: str) -> None:
    """Also those of the two tokens of the state directory."""
    with pytest.raises(UserRefusedError, match="Expected a name"):
        house.users.add(name, "viewer", PASSWORD, by="test")


def test_what_can_not_be_is_refused_and_not_recorded(house: House) -> None:
    """A taken name, a short password, a role of programs, somebody unknown."""
    before = house.log.head()
    with pytest.raises(UserRefusedError, match="that nobody has, got 'ada'"):
        house.users.add("ada", "viewer", PASSWORD, by="test")
    with pytest.raises(PasswordRefusedError, match="of 12 to 1000 letters, got 11"):
        house.users.set_password("ada", "x" * 11, by="test")
    with pytest.raises(UserRefusedError, match="one of the roles viewer, labeller"):
        house.users.set_role("ada", "builder", by="test")
    with pytest.raises(UnknownUserError, match="got 'eve'"):
        house.users.disable("eve", by="test")
    assert house.log.head() == before


def test_name_and_password_open_a_session_with_the_role_of_now(house: House) -> None:
    """A changed role holds at once, without a new login."""
    cookie = house.log_in(" Ada ")
    found = house.logins.sessions.principal(cookie)
    assert found is not None
    assert (found.actor.account, found.role) == ("ada", Role.OPERATOR)
    house.users.set_role("ada", "viewer", by="test")
    found = house.logins.sessions.principal(cookie)
    assert found is not None
    assert found.role is Role.VIEWER


def test_the_token_of_the_file_is_the_user_operator(house: House) -> None:
    """With all that it could do before there were users, and no more."""
    found = house.logins.sessions.principal(house.log_in("operator", f" {FILE_TOKEN}\n"))
    assert found is not None
    assert (found.actor.account, found.role) == ("operator", Role.APPROVER)
    assert house.log_in("ada", FILE_TOKEN) == ""
    assert house.log_in("operator", PASSWORD) == ""


def test_unknown_disabled_and_wrong_take_the_same_way(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outcome, and one hash is computed for each: the time would tell names apart."""
    house.users.add("gone", "viewer", PASSWORD, by="test")
    house.users.disable("gone", by="test")
    counted: list[str] = []
    plain = Passwords.fits

    def fits(self: Passwords, password: str, stored: str) -> bool:
        counted.append(stored[:9])
        return plain(self, password, stored)

    monkeypatch.setattr(Passwords, "fits", fits)
    found = [house.logins.log_in(*pair, address="192.0.2.1")
             for pair in (("nobody", PASSWORD), ("gone", PASSWORD), ("ada", "wrong password"))]  # fmt: skip
    assert [one == found[0] for one in found] == [True] * 3
    assert counted == ["", "$argon2id", "$argon2id"]


def test_a_session_ends_unused_or_old(house: House) -> None:
    """Looking at a page that refreshes itself is no use of it; what its person does is."""
    sessions = house.logins.sessions
    idle, used = house.log_in(), house.log_in()
    for _ in range(5):
        house.clock.now_ms += 2 * HOUR_MS
        sessions.principal(idle)
        assert sessions.principal(used, acting=True) is not None
    assert sessions.principal(idle) is None
    house.clock.now_ms += 2 * HOUR_MS
    assert sessions.principal(used, acting=True) is None, "after twelve hours in any case"


@pytest.mark.parametrize("act", ["disable", "set_password", "end_sessions", "log_out_everywhere"])
def test_every_session_of_a_user_ends_at_once(house: House, act: str) -> None:
    """In all browsers, also when a command beside the server does it; those of others go on."""
    house.users.add("bob", "viewer", PASSWORD, by="test")
    first, second, others = house.log_in(), house.log_in(address="192.0.2.2"), house.log_in("bob")
    if act == "log_out_everywhere":
        house.logins.log_out_everywhere(first)
    elif act == "set_password":
        house.users.set_password("ada", "another long password", by="test")
    else:
        getattr(house.users, act)("ada", by="test")
    found = [house.logins.sessions.principal(one) for one in (first, second, others)]
    assert [one is not None for one in found] == [False, False, True]


def test_an_enabled_user_does_not_get_old_sessions_back(house: House) -> None:
    """They have ended."""
    cookie = house.log_in()
    house.users.disable("ada", by="test")
    house.users.enable("ada", by="test")
    assert house.logins.sessions.principal(cookie) is None
    assert house.log_in()


def test_only_hashes_of_cookies_are_kept(house: House) -> None:
    """Who reads the memory can't log in with it; and it is bounded."""
    cookie = house.log_in()
    assert cookie not in str(house.logins.sessions._open)
    for number in range(400):
        house.logins.sessions.open("ada", house.logins.sessions._open.popitem()[1].kind, str(number))
    assert len(house.logins.sessions._open) <= 256


def test_guessing_from_one_address_waits_a_minute(house: House) -> None:
    """Another address is not affected, and refused tries do not prolong the wait."""
    for _ in range(10):
        assert house.log_in(password="wrong") == ""
    assert house.logins.log_in("ada", PASSWORD, address="192.0.2.1").wait_s == 60
    assert house.log_in(address="192.0.2.2")
    house.clock.now_ms += 60_000
    assert house.log_in()


def test_guessing_from_many_addresses_does_not_lock_the_person_out(house: House) -> None:
    """A browser that logged in before goes on; others wait as long as somebody guesses, and a quarter of an hour."""
    proof = house.logins.log_in("ada", PASSWORD, address="198.51.100.7").proof
    for number in range(60):
        house.log_in(password="wrong", address=f"192.0.2.{number}")
    assert house.logins.log_in("ada", PASSWORD, address="203.0.113.1").wait_s == 15 * 60
    assert house.log_in(address="198.51.100.8", proof=proof)
    assert house.log_in(address="203.0.113.1", proof=browser_proof("ada", "invented")) == ""
    house.clock.now_ms += 15 * 60_000
    assert house.log_in(address="203.0.113.1")


def test_the_proof_of_a_browser_is_worthless_after_a_change_of_the_password(house: House) -> None:
    """A stolen one opens nothing anyway; it only counts failures apart."""
    proof = house.logins.log_in("ada", PASSWORD, address="198.51.100.7").proof
    house.users.set_password("ada", "another long password", by="test")
    for number in range(60):
        house.log_in(password="wrong", address=f"192.0.2.{number}")
    assert house.logins.log_in("ada", "another long password", address="198.51.100.7", proof=proof).wait_s > 0


def test_the_memory_of_failures_is_bounded(house: House) -> None:
    """Anybody can fail under any name, and only so many failures a minute are recorded for ever."""
    before = house.log.head()[0]
    for number in range(3_000):
        house.logins.limits.note_failure(f"address {number}", f"name {number}", known=False)
    for number in range(100):
        house.log_in(f"name-{number}", "wrong", address=f"192.0.2.{number}")
    assert len(house.logins.limits._failures_ms) <= 4_096
    assert house.log.head()[0] - before == 60


def test_logins_and_their_refusals_are_recorded_without_passwords(house: House) -> None:
    """With the address, and under the name that was tried."""
    house.logins.log_out(house.log_in())
    house.log_in(password="wrong password!")
    acts = [(one.act, one.account, one.subject, one.address) for one in house.log.after(1, 9)]
    assert acts == [
        ("login", "ada", "ada", "192.0.2.1"), ("logout", "ada", "ada", "192.0.2.1"),
        ("login.refuse", "anybody", "ada", "192.0.2.1"),
    ]  # fmt: skip
    assert "wrong password!" not in "".join(house.log.export())
