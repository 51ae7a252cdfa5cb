"""How many bytes a device was to fetch when it was assigned a release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    """Add the columns; for older members nobody made a forecast."""
    op.add_column("rollout_members", sa.Column("forecast_bytes", sa.BigInteger(), nullable=True))
    op.add_column(
        "rollout_members", sa.Column("forecast_upper", sa.Boolean(), nullable=False, server_default=sa.false())
    )
