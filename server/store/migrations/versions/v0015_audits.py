"""What the devices of each model were asked for the steady audit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "audits",
        sa.Column("model", sa.String(127), primary_key=True),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("ratio", sa.Float(), nullable=False),
        sa.Column("devices", sa.Integer(), nullable=False),
        sa.Column("images_per_day", sa.Float(), nullable=False),
    )
