"""Devices whose new release answers otherwise: what each was asked for, and what labels show."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "suspects",
        sa.Column("verdict", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("device", sa.String(63), primary_key=True),
        sa.Column("release", sa.String(127), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("audited", sa.Integer(), nullable=False),
        sa.Column("wrong", sa.Float(), nullable=False),
        sa.Column("lower_risk", sa.Float(), nullable=False),
        sa.Column("upper_risk", sa.Float(), nullable=False),
        sa.Column("allowed_risk", sa.Float(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
    )
