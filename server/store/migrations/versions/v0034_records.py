"""What an event is: an act, which stays, or telemetry, which is deleted after the retention."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"

_ACTS = ("commission", "device", "drift", "place", "release", "retraining", "rollout", "verdict")


def upgrade() -> None:
    """Add the column; the server's own events of these kinds become acts."""
    op.add_column("events", sa.Column("record", sa.String(16), nullable=False, server_default="telemetry"))
    events = sa.table("events", sa.column("kind"), sa.column("code"), sa.column("boot"), sa.column("record"))
    own = (events.c.boot == "", events.c.kind.in_(_ACTS), events.c.code.not_in(["certificate_renewed", "device_fault"]))
    op.execute(events.update().where(*own).values(record="act"))
    op.create_index("events_by_age", "events", ["record", "at_ms"])
