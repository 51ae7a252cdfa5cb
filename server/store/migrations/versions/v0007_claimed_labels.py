"""A sample of the lane ``correction`` has the label that the device's user gave; older samples have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add it."""
    op.add_column("samples", sa.Column("claimed", sa.String(127), nullable=False, server_default=""))
