"""Enrols devices: a device exchanges an operator's one-time claim for credentials of its own.

Claims and passwords are stored as hashes only. A claim for a device that exists on the same site gives it a
new password (its disk was lost); ids are unique in the fleet, because the broker's user name is the id. A device that
was revoked or removed comes back only by a claim that was made afterwards; those made before are void.

Each refusal is an event that names the cause, and the device if the claim is known; never the claim itself.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa

from server.access.audit_log import record_act
from server.clock import Clock
from server.errors import ClaimRefusedError, DeviceExistsError, ServerError
from server.fleet.anew import begin_anew
from server.fleet.identity.certificates import Certificates
from server.fleet.identity.credentials import hash_password, new_secret, verify_password
from server.fleet.revocation import FOR_GOOD
from server.people import Actor, ActorKind, By
from server.registry.events import event_row
from server.store import fleet as store
from server.store.certificates import revoke_certificates
from server.store.database import Database
from server.store.events import insert_events
from wire.canonical import sha256_hex
from wire.errors import NameRefusedError
from wire.messages import Severity
from wire.topics import check_name

SERVER_USER = "server"
INGEST_USERS = tuple(f"{SERVER_USER}.{number}" for number in range(1, 17))
"""The broker's users for processes that only ingest, one each: no device id has a dot, and a user is one client."""
_CACHE_LIMIT = 20_000
_NOTED_EVERY_MS = 60_000
_MAX_ATTRIBUTES, _MAX_KEY, _MAX_VALUE = 32, 63, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledIdentity:
    """A device's identity and its proof, handed out once.

    ``password``: the server stores only a hash. ``certificate``: PEM, with those up to the authority, for the key that
    the device made itself. One of the two is "".
    """

    site: str
    device: str
    password: str = ""
    certificate: str = ""


@dataclass(eq=False, slots=True, kw_only=True)
class Enrolment:
    """Claims, credentials and their verification. Safe to share between threads."""

    database: Database
    clock: Clock
    certificates: Certificates
    claim_ttl_s: float = 7 * 86_400.0
    _verified: dict[str, bytes] = field(default_factory=dict)
    _noted_ms: dict[tuple[str, str], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, site: str, device: str, attributes: Mapping[str, str], *, by: By = "") -> str:
        """Return a one-time claim for ``device`` on ``site``, which ``by`` asked for.

        Raises:
            NameRefusedError: If a name can't be part of a topic, or is reserved, or an attribute is empty or very long.
            DeviceExistsError: If the id is taken on another site.
        """
        check_name(site, "a site")
        if check_name(device, "a device id") == SERVER_USER:
            message = f"Expected a device id other than {SERVER_USER!r}, which is the server's own"
            raise NameRefusedError(message)
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
        secret, now_ms = new_secret(), self.clock()
        row = {
            "claim_sha256": sha256_hex(secret.encode()), "site": site, "device": device,
            "attributes": dict(attributes), "expires_ms": now_ms + int(self.claim_ttl_s * 1000), "used_ms": 0,
        }  # fmt: skip
        with self.database.begin() as connection:
            _check_site(store.one_device(connection, device), site)
            store.insert_claim(connection, row)
            record_act(connection, by, "device.claim", device, now_ms, data={"site": site})
        return secret

    def enrol(self, claim: str, request: str = "", *, address: str = "") -> EnrolledIdentity:
        """Consume ``claim`` and return the device's new identity; its earlier proofs are void.

        ``request``: of a certificate, in PEM; "" for a password. ``address``: from where the device asks.

        Raises:
            CertificateRefusedError: If ``request`` is invalid, or this server expects the other proof.
            ClaimRefusedError: If the claim is unknown, used, void or expired.
            DeviceExistsError: If the id has been taken on another site since.
        """
        now_ms, password, certificate = self.clock(), "" if request else new_secret(), ""
        claim_sha256 = sha256_hex(claim.encode())
        self.certificates.check(request)
        try:
            with self.database.begin() as connection:
                row = store.use_claim(connection, claim_sha256, now_ms)
                if row is None:
                    raise _refusal(connection, claim_sha256, now_ms)
                site, device = row["site"], row["device"]
                known = store.one_device(connection, device)
                _check_site(known, site)
                changes = {
                    "attributes": row["attributes"], "enrolled_ms": now_ms,
                    "password_hash": hash_password(password) if password else "",
                    "ended": "", "ended_ms": 0, "ended_why": "",
                }  # fmt: skip
                if known is None:
                    store.insert_device(connection, {"device": device, "site": site, **changes})
                else:
                    fresh = store.NEVER_CONNECTED if known["ended"] else {}  # its old reports no longer count
                    if known["ended"] in FOR_GOOD:
                        fresh = {**fresh, "tags": "", "title": ""}
                        begin_anew(connection, device, f"it was {known['ended']}, and claimed again", device, now_ms)
                    store.update_device(connection, device, {**changes, **fresh})
                revoke_certificates(connection, device, now_ms)
                if request:
                    certificate = self.certificates.issue(connection, site, device, request).pem
                actor = Actor(account=device, kind=ActorKind.DEVICE, through="claim", address=address)
                record_act(connection, actor, "device.enrol", device, now_ms, data={"site": site})
        except ClaimRefusedError as error:
            self._note_refusal(error, error.cause, error.device, now_ms)
            raise
        except DeviceExistsError as error:
            self._note_refusal(error, "id_taken", device, now_ms)
            raise
        return EnrolledIdentity(site=site, device=device, password=password, certificate=certificate)

    def _note_refusal(self, error: ServerError, cause: str, device: str, now_ms: int) -> None:
        """Log an event, at most one a minute for each cause and device: anybody may try any claim."""
        with self._lock:
            if now_ms < self._noted_ms.get((cause, device), 0) + _NOTED_EVERY_MS:
                return
            self._noted_ms[cause, device] = now_ms
        text = f"A claim{f' for {device}' if device else ''} was refused: {error}"
        event = event_row(
            now_ms, "enrolment", ClaimRefusedError.code, Severity.WARNING, text, device=device or None,
            data={"cause": cause},
        )  # fmt: skip
        with self.database.begin() as connection:
            insert_events(connection, [event])

    def reopen(self, claim: str) -> None:
        """Make a used ``claim`` valid again until it expires, because its device received nothing."""
        with self.database.begin() as connection:
            store.reopen_claim(connection, sha256_hex(claim.encode()))

    def authenticate(self, device: str, password: str) -> bool:
        """Return whether ``password`` is that of ``device``; a positive answer is cached as a digest."""
        if self.certificates.required:
            return False
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
        """Return the password hash of every device of the fleet that has a password, by id, for the broker."""
        if self.certificates.required:
            return {}
        with self.database.begin() as connection:
            known = store.active_devices(connection)
        return {row["device"]: row["password_hash"] for row in known if row["password_hash"]}

    def ended(self, device: str) -> str:
        """Return "revoked", "retired" or "removed" for a device that a new claim would let in again, else ""."""
        with self.database.begin() as connection:
            row = store.one_device(connection, device)
        return str(row["ended"]) if row else ""


def _refusal(connection: sa.Connection, claim_sha256: str, now_ms: int) -> ClaimRefusedError:
    """Return why a claim that can't be used is refused."""
    known = store.claim_of(connection, claim_sha256)
    if known is None:
        text = "Expected a claim that this server made, got another: see that it was copied whole, and for this server"
        return ClaimRefusedError(text, "unknown")
    device = store.one_device(connection, known["device"])
    name, advice = known["device"], "ask the operator for a new one (fleet-server claim)"
    if device is not None and device["ended"]:
        text = f"Expected a claim made after {name} was {device['ended']}, got an older one: {advice}"
        return ClaimRefusedError(text, "void", name)
    if known["used_ms"]:
        text = f"Expected a claim that was not used, got one for {name}, used {_at(known['used_ms'])}: {advice}"
        return ClaimRefusedError(text, "used", name)
    if known["expires_ms"] <= now_ms:
        text = (
            f"Expected a claim that has not expired, got one for {name}, expired {_at(known['expires_ms'])}: {advice}"
        )
        return ClaimRefusedError(text, "expired", name)
    return ClaimRefusedError(
        f"Expected a claim that no other device uses at this moment, got one for {name}: try again", "", name
    )


def _at(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("on %Y-%m-%d at %H:%M UTC")


def _check_site(known: sa.RowMapping | None, site: str) -> None:
    if known is not None and known["site"] != site:
        device, taken = known["device"], known["site"]
        holder = f"of a device that was {known['ended']} there" if known["ended"] else "of a device there"
        message = (
            f"Expected an id that is unique in the fleet, got {device!r} for site {site!r}, taken on site {taken!r}, "
            f"{holder}: its history stays under the id, so take another, or claim it on {taken!r}"
        )
        raise DeviceExistsError(message)
