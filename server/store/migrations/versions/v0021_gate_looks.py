"""On which gate split a training job is judged, and at which look: the looks at one split share the gates' risk."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Add the columns; older jobs were not counted."""
    op.add_column("jobs", sa.Column("gate_split", sa.String(64), nullable=False, server_default=""))
    op.add_column("jobs", sa.Column("look", sa.Integer(), nullable=False, server_default="0"))
