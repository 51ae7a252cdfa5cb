"""Who created a rollout, and who has approved it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    """Add the columns; of rollouts of before, the event log alone knows who approved them."""
    op.add_column("rollouts", sa.Column("created_by", sa.String(100), nullable=False, server_default=""))
    op.add_column("rollouts", sa.Column("approvals", sa.Text(), nullable=False, server_default=""))
