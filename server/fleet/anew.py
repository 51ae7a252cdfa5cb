"""Lets what is known of a device's usual begin anew, where another device or another place stands under its id.

The rows of before stay: windows, evidence, verdicts and what was decided about its place. They decide nothing any more.
"""

from __future__ import annotations

import sqlalchemy as sa

from server.people import MAX_NAME
from server.store.commissions import insert_commissions
from server.store.places import update_places_of


def begin_anew(connection: sa.Connection, device: str, why: str, by: str, now_ms: int) -> None:
    """Let only windows of ``device`` count that begin at ``now_ms`` (UTC ms) or later, as ``by`` decided."""
    row = {
        "device": device, "from_ms": now_ms, "decided_ms": now_ms, "decided_by": by[:MAX_NAME], "why": why,
        "attribute": "", "value": "",
    }  # fmt: skip
    insert_commissions(connection, [row])
    place = {"state": "commissioned", "decided_ms": now_ms, "decided_by": by[:MAX_NAME], "why": why}
    update_places_of(connection, [device], place)
