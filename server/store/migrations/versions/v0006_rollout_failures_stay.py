"""Members of rollouts that failed stay counted; who replaced them, and who withdrew a release, is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add all; whether a device failed that was replaced before, and who did either, is not known any more."""
    op.add_column("rollout_members", sa.Column("replaced_by", sa.String(100), nullable=False, server_default=""))
    op.add_column("rollout_members", sa.Column("retried_from", sa.String(32), nullable=False, server_default=""))
    op.add_column("releases", sa.Column("withdrawn_by", sa.String(100), nullable=False, server_default=""))
