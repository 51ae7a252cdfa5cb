"""Which release ran on a device at a given time, from the transitions that devices reported."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.store import fleet as store
from server.store.database import Database
from wire.messages import Reported


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """``release`` (its bundle: ``sha256``) runs on ``device`` from ``from_ms`` on; "" means nothing ran."""

    device: str
    from_ms: int
    release: str
    sha256: str
    gen: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """The history of every device. Safe to share between threads."""

    database: Database

    def ran_at(self, device: str, at_ms: int) -> Ran | None:
        """Return what ran on ``device`` at ``at_ms``; None before its first report."""
        with self.database.begin() as connection:
            row = store.ran_at(connection, device, at_ms)
        return None if row is None else _ran(row)

    def history(self, device: str) -> tuple[Ran, ...]:
        """Return every transition of ``device``, oldest first."""
        with self.database.begin() as connection:
            return tuple(_ran(row) for row in store.ran_history(connection, device))


def note_transition(
    connection: sa.Connection, device: str, older: Reported | None, newer: Reported, now_ms: int
) -> bool:
    """Record that the release on ``device`` changed, if it did; return whether it did.

    ``newer.at_ms`` is used unless it is in the future or before the previous transition: reports may arrive hours
    late, but in the order in which the transitions happened.
    """
    before = older.current if older else None
    if older is not None and before == newer.current:
        return False
    row = {
        "device": device,
        "from_ms": max(min(newer.at_ms or now_ms, now_ms), store.latest_from_ms(connection, device)),
        "release": newer.current.release if newer.current else "",
        "sha256": newer.current.sha256 if newer.current else "",
        "gen": newer.gen,
        "received_ms": now_ms,
    }
    store.insert_ran(connection, row)
    return True


def _ran(row: sa.RowMapping) -> Ran:
    return Ran(
        device=row["device"], from_ms=row["from_ms"], release=row["release"], sha256=row["sha256"], gen=row["gen"]
    )
