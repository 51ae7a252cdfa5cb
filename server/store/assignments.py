"""The query for the bundles ever assigned to a device, over the tables of rollouts and releases."""

from __future__ import annotations

import sqlalchemy as sa

from server.store.registry import RELEASES
from server.store.rollouts import MEMBERS, ROLLOUTS


def was_assigned(connection: sa.Connection, device: str, sha256: str) -> bool:
    """Return whether a rollout assigned the bundle ``sha256`` to ``device``, or set the device back to it."""
    told = (MEMBERS.c.device == device, MEMBERS.c.assigned_ms > 0)
    by_rollout = (
        sa.select(MEMBERS.c.rollout)
        .join(ROLLOUTS, ROLLOUTS.c.id == MEMBERS.c.rollout)
        .join(RELEASES, RELEASES.c.name == ROLLOUTS.c.release)
        .where(*told, RELEASES.c.sha256 == sha256)
    )
    before = sa.select(MEMBERS.c.rollout).where(*told, MEMBERS.c.before.contains(sha256, autoescape=True))
    return connection.execute(sa.union_all(by_rollout, before).limit(1)).first() is not None
