"""Which bundles a device may fetch: those assigned to it, and no others.

1. The bundle of its ``desired`` may be fetched, and the patches that its signed target names.
2. The bundle that it reports as ``current`` or ``previous`` may be fetched, so that it can be repaired, where this
   server has assigned it to the device before. A report alone proves nothing: any device can read every digest in the
   published metadata and report it as its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.errors import NotAssignedError
from server.fleet.fleet import as_device
from server.store import fleet as fleet_store
from server.store import registry as registry_store
from server.store import rollouts as store
from server.store.database import Database
from wire.codec import decode
from wire.tuf_target import TargetCustom


def patches_of(connection: sa.Connection, sha256: str) -> tuple[str, ...]:
    """Return the digests of the patches that make the bundle ``sha256``."""
    releases = registry_store.releases_of(connection, sha256)
    customs = [decode(TargetCustom, str(row["custom"]).encode()) for row in releases]
    return tuple(delta.sha256 for custom in customs for delta in custom.deltas)


@dataclass(frozen=True, slots=True)
class Assignments:
    """The bundles assigned to each device. Safe to share between threads."""

    database: Database

    def check(self, device: str, sha256: str) -> None:
        """Check that a bundle is assigned to ``device``.

        Raises:
            NotAssignedError: If it is not.
        """
        with self.database.begin() as connection:
            row = fleet_store.one_device(connection, device)
            known = as_device(row) if row else None
            wanted = known.desired.sha256 if known is not None and known.desired is not None else ""
            if wanted and (sha256 == wanted or sha256 in patches_of(connection, wanted)):
                return
            reported = known.reported if known is not None else None
            installed = [one.sha256 for one in (reported.current, reported.previous) if one] if reported else []
            if sha256 in installed and store.was_assigned(connection, device, sha256):
                return
        message = (
            f"Expected a bundle that {device} is to run, runs or ran before, got {sha256[:80]!r}: "
            "assign its release in a rollout"
        )
        raise NotAssignedError(message)
