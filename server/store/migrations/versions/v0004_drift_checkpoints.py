"""Checkpoints of drift detection, so that a restart does not fold 30 days of windows again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"


def upgrade() -> None:
    """Make the table; the first checkpoints follow by themselves."""
    op.create_table(
        "drift_checkpoints",
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("slot", "block"),
    )
