"""A sample that nobody labels expires; its image is deleted and its row stays."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the column."""
    op.add_column("samples", sa.Column("expired_ms", sa.BigInteger(), nullable=False, server_default="0"))
