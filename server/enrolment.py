"""How a device comes into the fleet: an operator's one-time claim, exchanged for credentials of its own.

Claims and passwords are stored as hashes only. A claim for a device that exists on the same site gives it a
new password (its disk was lost); ids are unique in the fleet, because the broker's user name is the id. A device that
was revoked or removed comes back only by a claim that was made afterwards; those made before are void.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from server.clock import Clock
from server.credentials import hash_password, new_secret, verify_password
from server.errors import ClaimRefusedError, DeviceExistsError
from server.store import fleet as store
from server.store.database import Database
from wire.canonical import sha256_hex
from wire.errors import NameRefusedError
from wire.topics import check_name

SERVER_USER = "server"
_CACHE_LIMIT = 20_000
_MAX_ATTRIBUTES, _MAX_KEY, _MAX_VALUE = 32, 63, 255


@dataclass(frozen=True, slots=True)
class Identity:
    """What a device gets once: who it is, and its password (kept here only as a hash)."""

    site: str
    device: str
    password: str


@dataclass(eq=False, slots=True)
class Enrolment:
    """Claims, credentials, and who is who. Safe to share between threads."""

    database: Database
    clock: Clock
    claim_ttl_s: float = 7 * 86_400.0
    _verified: dict[str, bytes] = field(default_factory=dict)

    def claim(self, site: str, device: str, attributes: Mapping[str, str]) -> str:
        """Return a one-time claim for ``device`` on ``site``.

        Raises:
            NameRefusedError: If a name can't be part of a topic, or is reserved, or an attribute is empty or very long.
            DeviceExistsError: If the id is taken on another site.
        """
        check_name(site, "a site")
        if check_name(device, "a device id") == SERVER_USER:
            message = f"Expected a device id other than {SERVER_USER!r}, which is the server's own"
            raise NameRefusedError(message)
        _check_attributes(attributes)
        secret = new_secret()
        row = {
            "claim_sha256": sha256_hex(secret.encode()), "site": site, "device": device,
            "attributes": dict(attributes), "expires_ms": self.clock() + int(self.claim_ttl_s * 1000), "used_ms": 0,
        }  # fmt: skip
        with self.database.begin() as connection:
            _check_site(store.one_device(connection, device), site)
            store.insert_claim(connection, row)
        return secret

    def enrol(self, claim: str) -> Identity:
        """Use ``claim`` up and return the device's new identity.

        Raises:
            ClaimRefusedError: If the claim is unknown, used or expired.
            DeviceExistsError: If the id was taken on another site since.
        """
        now_ms, password = self.clock(), new_secret()
        with self.database.begin() as connection:
            row = store.use_claim(connection, sha256_hex(claim.encode()), now_ms)
            if row is None:
                raise ClaimRefusedError(_refusal(connection, sha256_hex(claim.encode())))
            site, device = row["site"], row["device"]
            known = store.one_device(connection, device)
            _check_site(known, site)
            changes = {
                "attributes": row["attributes"], "password_hash": hash_password(password), "enrolled_ms": now_ms,
                "ended": "", "ended_ms": 0, "ended_why": "",
            }  # fmt: skip
            if known is None:
                store.insert_device(connection, {"device": device, "site": site, **changes})
            else:
                fresh = store.NEVER_HEARD if known["ended"] else {}  # what it said before it was ended is over
                store.update_device(connection, device, {**changes, **fresh})
        return Identity(site, device, password)

    def reopen(self, claim: str) -> None:
        """Make a used ``claim`` good again until it expires, because its device was told nothing."""
        with self.database.begin() as connection:
            store.reopen_claim(connection, sha256_hex(claim.encode()))

    def authenticate(self, device: str, password: str) -> bool:
        """Return whether ``password`` is that of ``device``; a positive answer is remembered as a digest."""
        with self.database.begin() as connection:
            row = store.one_device(connection, device)
        row = row if row is not None and not row["ended"] else None
        stored = row["password_hash"] if row else hash_password("")
        digest = hashlib.sha256(f"{stored}\0{password}".encode()).digest()
        if hmac.compare_digest(self._verified.get(device, b""), digest):
            return True
        if row is None or not verify_password(password, stored):
            return False
        if len(self._verified) >= _CACHE_LIMIT:
            self._verified.clear()
        self._verified[device] = digest
        return True

    def password_hashes(self) -> dict[str, str]:
        """Return the password hash of every device of the fleet, by id, for the broker."""
        with self.database.begin() as connection:
            return {row["device"]: row["password_hash"] for row in store.active_devices(connection)}

    def ended(self, device: str) -> str:
        """Return "revoked" or "removed" for a device that a new claim would let in again, else ""."""
        with self.database.begin() as connection:
            row = store.one_device(connection, device)
        return str(row["ended"]) if row else ""


def _check_attributes(attributes: Mapping[str, str]) -> None:
    """Refuse what no person would name a pool of devices by; every page and every step of detection reads them."""
    if len(attributes) > _MAX_ATTRIBUTES:
        message = f"Expected at most {_MAX_ATTRIBUTES} attributes, got {len(attributes)}"
        raise NameRefusedError(message)
    for key, value in attributes.items():
        if not 0 < len(key.strip()) <= len(key) <= _MAX_KEY or len(value) > _MAX_VALUE:
            message = (
                f"Expected an attribute's name of 1 to {_MAX_KEY} characters and a value of at most {_MAX_VALUE}, "
                f"got {key[:50]!r} ({len(key)}) with {value[:50]!r} ({len(value)})"
            )
            raise NameRefusedError(message)


def _refusal(connection: sa.Connection, claim_sha256: str) -> str:
    known = store.claim_of(connection, claim_sha256)
    device = store.one_device(connection, known["device"]) if known else None
    if device is not None and device["ended"]:
        return (
            f"Expected a claim made after {device['device']} was {device['ended']}, got an older one: "
            "ask the operator for a new one"
        )
    return "Expected a claim that is neither used nor expired: ask the operator for a new one"


def _check_site(known: sa.RowMapping | None, site: str) -> None:
    if known is not None and known["site"] != site:
        message = (
            f"Expected an id that is unique in the fleet, got {known['device']!r}, taken on site {known['site']!r}"
        )
        raise DeviceExistsError(message)
