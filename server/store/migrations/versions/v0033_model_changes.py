"""Devices that keep another model: what they learned under others counts no more, also when they return to one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    """Add the table; changes of before are noted when the device leaves the model that it has now."""
    op.create_table(
        "model_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("model", sa.String(127), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_model_changes_device", "model_changes", ["device"])
