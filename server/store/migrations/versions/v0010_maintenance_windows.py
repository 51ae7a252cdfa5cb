"""The maintenance window of a rollout, as the JSON text of ``wire.messages.MaintenanceWindow``; empty: at any time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column; older rollouts have no window."""
    op.add_column("rollouts", sa.Column("window", sa.Text(), nullable=False, server_default=""))
