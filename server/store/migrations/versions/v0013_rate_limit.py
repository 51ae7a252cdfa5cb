"""How fast the devices of a rollout may download, in bytes a second; 0: no limit but their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column; older rollouts have no limit."""
    op.add_column("rollouts", sa.Column("max_bytes_per_s", sa.BigInteger(), nullable=False, server_default="0"))
