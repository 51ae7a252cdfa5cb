"""Claims, passwords and identities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from server.api.enrol import Address, Reception
from server.app.services import build_api
from server.errors import BrokerError, ClaimRefusedError, DeviceExistsError
from server.fleet.identity.credentials import hash_password, verify_password
from wire.errors import NameRefusedError

if TYPE_CHECKING:
    from server.fleet.enrolment import EnrolledIdentity
    from tests.server.conftest import MemoryFleet


@pytest.mark.stores
def test_a_claim_works_once(fleet: MemoryFleet) -> None:
    """The second use is refused."""
    enrolment = fleet.app.parts.enrolment
    claim = enrolment.claim("berlin", "cam-1", {"lens": "a"})
    identity = enrolment.enrol(claim)
    assert enrolment.authenticate("cam-1", identity.password)
    assert fleet.app.parts.fleet.device("cam-1").attributes == {"lens": "a"}
    with pytest.raises(ClaimRefusedError):
        enrolment.enrol(claim)


@pytest.mark.parametrize("attributes", [
    {"": "a"}, {" ": "a"}, {"k" * 64: "a"}, {"k": "a" * 256}, {str(number): "a" for number in range(33)},
])  # fmt: skip
def test_attributes_are_words_not_files(fleet: MemoryFleet, attributes: dict[str, str]) -> None:
    """Each is shown on pages and names a pool; the longest permitted ones are accepted."""
    claim = fleet.app.parts.enrolment.claim
    with pytest.raises(NameRefusedError, match="attribute"):
        claim("berlin", "cam-1", attributes)
    assert claim("berlin", "cam-1", {f"{number:063}": "a" * 255 for number in range(32)})


def test_a_claim_expires(fleet: MemoryFleet) -> None:
    """After a week it is worth nothing."""
    claim = fleet.app.parts.enrolment.claim("berlin", "cam-1", {})
    fleet.clock.now_ms += 8 * 86_400_000
    with pytest.raises(ClaimRefusedError, match="expired"):
        fleet.app.parts.enrolment.enrol(claim)


def test_a_refused_claim_is_an_event_that_names_the_cause_and_never_the_claim(fleet: MemoryFleet) -> None:
    """Unknown, used, expired, void, or its id already in use; once a minute, however often it is tried."""
    enrolment, day_ms = fleet.app.parts.enrolment, 86_400_000
    used, void, early = (enrolment.claim("berlin", name, {}) for name in ("cam-1", "cam-2", "cam-3"))
    enrolment.enrol(used)
    enrolment.enrol(enrolment.claim("berlin", "cam-2", {}))
    fleet.app.parts.revocations.revoke("cam-2")
    taken = enrolment.claim("paris", "cam-4", {})
    enrolment.enrol(enrolment.claim("berlin", "cam-4", {}))
    for claim, days in ((used, 0), (void, 0), (taken, 0), ("no claim", 0), (early, 8)):
        fleet.clock.now_ms += days * day_ms
        for _ in range(3):
            with pytest.raises((ClaimRefusedError, DeviceExistsError)):
                enrolment.enrol(claim)
    found = [one for one in fleet.app.parts.events.latest(500)[::-1] if one.code == "claim_refused"]
    assert [(one.data["cause"], one.device) for one in found] == [
        ("used", "cam-1"), ("void", "cam-2"), ("id_taken", "cam-4"), ("unknown", None), ("expired", "cam-3"),
    ]  # fmt: skip
    assert not any(claim in one.text for one in found for claim in (used, void, taken, early))


def test_an_id_of_a_removed_device_is_refused_elsewhere_with_a_way_out(fleet: MemoryFleet) -> None:
    """Its history stays under the id; on its own site it may be claimed again."""
    enrolment = fleet.app.parts.enrolment
    enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    fleet.app.parts.revocations.remove("cam-1")
    with pytest.raises(DeviceExistsError, match=r"was removed there: .* take another, or claim it on 'berlin'"):
        enrolment.claim("paris", "cam-1", {})
    assert enrolment.claim("berlin", "cam-1", {})


def test_enrolling_again_replaces_the_password(fleet: MemoryFleet) -> None:
    """A device that lost its disk enrols again; the old password is invalid, also in the cache."""
    enrolment = fleet.app.parts.enrolment
    first = enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    assert enrolment.authenticate("cam-1", first.password)
    second = enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    assert not enrolment.authenticate("cam-1", first.password)
    assert enrolment.authenticate("cam-1", second.password)


def test_an_id_is_unique_in_the_fleet(fleet: MemoryFleet) -> None:
    """The broker's user name is the id, so two sites can't share one; a claim made before is refused too."""
    enrolment = fleet.app.parts.enrolment
    early = enrolment.claim("paris", "cam-1", {})
    enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    with pytest.raises(DeviceExistsError, match="berlin"):
        enrolment.claim("paris", "cam-1", {})
    with pytest.raises(DeviceExistsError):
        enrolment.enrol(early)


@pytest.mark.parametrize(
    ("site", "device"), [("berlin", "server"), ("Berlin", "a"), ("a", "a/b"), ("a", "+"), ("", "a")]
)
def test_refuses_names_that_topics_or_the_broker_cannot_carry(fleet: MemoryFleet, site: str, device: str) -> None:
    """``server`` is the server's own user."""
    with pytest.raises(NameRefusedError):
        fleet.app.parts.enrolment.claim(site, device, {})


def test_nobody_has_the_empty_password(fleet: MemoryFleet) -> None:
    """An unknown device can't log in."""
    assert not fleet.app.parts.enrolment.authenticate("ghost", "")


def test_a_hash_is_mosquittos_own_form() -> None:
    """``$7$<iterations>$<salt>$<hash>``, salted; a wrong or damaged one matches nothing."""
    first, second = hash_password("secret"), hash_password("secret")
    assert first.startswith("$7$101$")
    assert first != second
    assert verify_password("secret", first)
    assert not verify_password("Secret", first)
    assert not verify_password("secret", "plain")


def test_a_claim_is_not_used_up_when_the_broker_lets_nobody_in(fleet: MemoryFleet) -> None:
    """The device got no credentials, so the same claim stays valid."""
    parts, refusals = fleet.app.parts, [BrokerError("Expected mosquitto to answer, got nothing")]

    def admit(_identity: EnrolledIdentity) -> None:
        if refusals:
            raise refusals.pop()

    reception = Reception(
        address=lambda: Address(mqtt_host="127.0.0.1", mqtt_port=1, http_url="http://127.0.0.1"),
        root=lambda: b"{}",
        admit=admit,
    )
    client = TestClient(build_api(parts, reception))
    body = {"claim": parts.enrolment.claim("berlin", "cam-1", {})}
    assert [client.post("/api/enrol", json=body).status_code for _ in range(3)] == [503, 200, 403]
