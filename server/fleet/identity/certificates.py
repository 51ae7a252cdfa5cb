"""Certificates of devices: issued at enrolment, renewed by the device itself, revoked with it.

A renewal is for the same key as before, so that a build host which knows a device's key needs no new one; it is
authenticated by the old certificate. If a device did not receive the answer, it gets the same certificate again.
HTTP reads the database for each request; the broker reads the revocation list when it is told to.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import sqlalchemy as sa
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from server.clock import Clock
from server.errors import CertificateRefusedError
from server.registry.events import event_row
from server.store import certificates as store
from server.store.database import Database
from server.store.events import insert_events
from server.trust.authority import Authority, IssuedCertificate, requested_key
from wire.canonical import sha256_hex
from wire.enrolment import IdentityProof
from wire.measurement import SignedStatement, signed_bytes
from wire.messages import Severity

_AGAIN_RATIO = 0.25  # of its life: for so long a renewal that was repeated gets the same certificate


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Certificates:
    """The certificates of one fleet. ``authority``: None if devices have passwords alone. Safe to share."""

    database: Database
    clock: Clock
    authority: Authority | None = None
    life_s: float = 90 * 86_400.0
    required: bool = False

    @property
    def proof(self) -> IdentityProof:
        """How a device proves its identity here."""
        if self.authority is None:
            return IdentityProof.PASSWORD
        return IdentityProof.CERTIFICATE if self.required else IdentityProof.EITHER

    def check(self, request: str) -> None:
        """Check that a device may enrol with this certificate ``request``, or with a password if it is "".

        Raises:
            CertificateRefusedError: If this server expects the other.
        """
        if request:
            self._signer()
        elif self.proof is IdentityProof.CERTIFICATE:
            message = "Expected a request for a certificate, got none: passwords are switched off here"
            raise CertificateRefusedError(f"{message}; enrol with a newer agent and without --password")

    def issue(self, connection: sa.Connection, site: str, device: str, request: str) -> IssuedCertificate:
        """Return a new certificate of ``device`` for the key in ``request``, and note it in this transaction.

        Raises:
            CertificateRefusedError: If ``request`` is not a valid one, or this server has no authority.
        """
        now_ms = self.clock()
        made = self._signer().sign(request, (site, device), now_ms, self.life_s)
        row = {
            "sha256": made.sha256, "device": device, "serial": f"{made.serial:x}", "issued_ms": now_ms,
            "expires_ms": made.expires_ms, "revoked_ms": 0, "pem": made.pem,
        }  # fmt: skip
        store.insert_certificate(connection, row)
        return made

    def _signer(self) -> Authority:
        if self.authority is None:
            message = "Expected an enrolment by password, got a request for a certificate: this server has no authority"
            raise CertificateRefusedError(f"{message}; set [certificates] in server.toml, or enrol with --password")
        return self.authority

    def renew(self, site: str, device: str, request: str) -> str:
        """Return a new certificate of ``device`` in PEM; the same as before if it just got one.

        Raises:
            CertificateRefusedError: If ``request`` is invalid or for another key than the device's.
        """
        now_ms, key = self.clock(), requested_key(request)
        with self.database.begin() as connection:
            known = store.newest_certificate(connection, device, now_ms)
            if known is None or x509.load_pem_x509_certificate(known["pem"].encode()).public_key() != key:
                message = f"Expected a request for the key that {device} enrolled with, got one for another"
                raise CertificateRefusedError(f"{message}: enrol it again with a new claim")
            if now_ms - known["issued_ms"] < 1000 * _AGAIN_RATIO * self.life_s:
                return str(known["pem"])
            made = self.issue(connection, site, device, request)
            until = dt.datetime.fromtimestamp(made.expires_ms / 1000, dt.UTC)
            text = f"The certificate of {device} was renewed until {until:%Y-%m-%d %H:%M} UTC"
            insert_events(
                connection,
                [event_row(now_ms, "device", "certificate_renewed", Severity.INFO, text, device=device)],
            )
        return made.pem

    def holder(self, certificate: bytes) -> str:
        """Return the device of the fleet with this certificate (DER, as TLS verified it), "" if it is not valid."""
        with self.database.begin() as connection:
            return store.holder_of(connection, sha256_hex(certificate), self.clock())

    def revocation_list(self) -> bytes:
        """Return the list of revoked certificates in PEM, empty without an authority."""
        if self.authority is None:
            return b""
        with self.database.begin() as connection:
            rows = store.revoked_certificates(connection)
        revoked = {int(row["serial"], 16): row["revoked_ms"] for row in rows}
        return self.authority.revocation_list(revoked, self.clock())

    def expires_ms(self, device: str) -> int | None:
        """Return when the newest certificate of ``device`` expires or has expired, None if it has none."""
        with self.database.begin() as connection:
            known = store.newest_certificate(connection, device, 0)
        return int(known["expires_ms"]) if known is not None else None

    def certified(self, device: str) -> bool:
        """Return whether ``device`` has a valid certificate."""
        with self.database.begin() as connection:
            return store.newest_certificate(connection, device, self.clock()) is not None

    def signed_by(self, device: str, signed: SignedStatement) -> bool:
        """Return whether the key that ``device`` enrolled with signed the statement; its certificate is ignored."""
        with self.database.begin() as connection:
            known = store.newest_certificate(connection, device, self.clock())
        key = x509.load_pem_x509_certificate(known["pem"].encode()).public_key() if known is not None else None
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        try:
            key.verify(signed.signature, signed_bytes(signed.statement), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True
