"""Devices that are muted: since when, until when, why and by whom."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    """Add the columns; no device is muted."""
    op.add_column("devices", sa.Column("muted_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("muted_until_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("devices", sa.Column("muted_why", sa.Text(), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("muted_by", sa.Text(), nullable=False, server_default=""))
