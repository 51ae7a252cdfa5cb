"""Members of rollouts that failed stay counted: who replaced them, and what they were before they were to try again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add both; whether a device failed that was replaced before is not known any more."""
    op.add_column("rollout_members", sa.Column("replaced_by", sa.String(100), nullable=False, server_default=""))
    op.add_column("rollout_members", sa.Column("retried_from", sa.String(32), nullable=False, server_default=""))
