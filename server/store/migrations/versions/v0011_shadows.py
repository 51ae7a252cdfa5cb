"""The shadow that a rollout orders and what its devices counted, as JSON of ``wire.shadow``; empty: none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the columns; older rollouts have no shadow."""
    op.add_column("rollouts", sa.Column("shadow", sa.Text(), nullable=False, server_default=""))
    op.add_column("rollout_members", sa.Column("shadow", sa.Text(), nullable=False, server_default=""))
