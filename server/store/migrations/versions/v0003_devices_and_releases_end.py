"""Devices can be revoked and removed, releases withdrawn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add how, when and why each ended; those that are there have not."""
    op.add_column("devices", sa.Column("ended", sa.String(16), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("ended_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("ended_why", sa.Text(), nullable=False, server_default=""))
    op.add_column("releases", sa.Column("withdrawn_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("releases", sa.Column("withdrawn_why", sa.Text(), nullable=False, server_default=""))
