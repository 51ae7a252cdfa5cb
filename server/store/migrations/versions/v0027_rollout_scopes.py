"""Which devices a rollout is for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"


def upgrade() -> None:
    """Add the column; older rollouts were for every device of their model."""
    op.add_column("rollouts", sa.Column("scope", sa.Text(), nullable=False, server_default=""))
