"""Table and queries of the certificates that were signed for devices."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.fleet import DEVICES

CERTIFICATES = sa.Table(
    "certificates",
    METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("device", sa.String(63), nullable=False, index=True),
    sa.Column("serial", sa.String(40), nullable=False),
    sa.Column("issued_ms", sa.BigInteger, nullable=False),
    sa.Column("expires_ms", sa.BigInteger, nullable=False),
    sa.Column("revoked_ms", sa.BigInteger, nullable=False, default=0),
    sa.Column("pem", sa.Text, nullable=False),
)


def insert_certificate(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Add a certificate."""
    connection.execute(CERTIFICATES.insert(), dict(row))


def holder_of(connection: sa.Connection, sha256: str, now_ms: int) -> str:
    """Return the device of the fleet whose valid certificate has this digest, "" if there is none."""
    query = (
        sa.select(CERTIFICATES.c.device)
        .join(DEVICES, DEVICES.c.device == CERTIFICATES.c.device)
        .where(
            CERTIFICATES.c.sha256 == sha256,
            CERTIFICATES.c.revoked_ms == 0,
            CERTIFICATES.c.expires_ms > now_ms,
            DEVICES.c.ended == "",
        )
    )
    return str(connection.execute(query).scalar() or "")


def newest_certificate(connection: sa.Connection, device: str, now_ms: int) -> sa.RowMapping | None:
    """Return the certificate of ``device``, not revoked and valid after ``now_ms``, that expires last."""
    where = (CERTIFICATES.c.device == device, CERTIFICATES.c.revoked_ms == 0, CERTIFICATES.c.expires_ms > now_ms)
    query = CERTIFICATES.select().where(*where).order_by(CERTIFICATES.c.expires_ms.desc())
    return connection.execute(query).mappings().first()


def revoke_certificates(connection: sa.Connection, device: str, now_ms: int) -> None:
    """Mark every certificate of ``device`` that is not revoked yet."""
    where = (CERTIFICATES.c.device == device, CERTIFICATES.c.revoked_ms == 0)
    connection.execute(CERTIFICATES.update().where(*where).values(revoked_ms=now_ms))


def revoked_certificates(connection: sa.Connection) -> list[sa.RowMapping]:
    """Return device, serial and ``revoked_ms`` of every revoked certificate, oldest first."""
    columns = (CERTIFICATES.c.device, CERTIFICATES.c.serial, CERTIFICATES.c.revoked_ms)
    query = sa.select(*columns).where(CERTIFICATES.c.revoked_ms != 0)
    return list(connection.execute(query.order_by(CERTIFICATES.c.revoked_ms, CERTIFICATES.c.serial)).mappings())


def delete_certificates_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete certificates that were valid until ``before_ms``, but the newest of each device; return how many.

    Nobody accepts one that has expired, so the list of revoked ones needs it no more.
    """
    later = CERTIFICATES.alias()
    newer = sa.exists().where(later.c.device == CERTIFICATES.c.device, later.c.expires_ms > CERTIFICATES.c.expires_ms)
    return delete_some(connection, CERTIFICATES, limit, CERTIFICATES.c.expires_ms < before_ms, newer)
