"""By which name a device whose new release answers otherwise was asked for samples last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Add the column."""
    op.add_column("suspects", sa.Column("request", sa.String(64), nullable=False, server_default=""))
