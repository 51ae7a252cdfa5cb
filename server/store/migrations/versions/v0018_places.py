"""Devices at places that training does not know: what they were asked for, what labels show, who accepted one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("evidence", sa.Column("new_place", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "places",
        sa.Column("verdict", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("model", sa.String(127), nullable=False),
        sa.Column("release", sa.String(127), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("audited", sa.Integer(), nullable=False),
        sa.Column("wrong", sa.Float(), nullable=False),
        sa.Column("lower_risk", sa.Float(), nullable=False),
        sa.Column("upper_risk", sa.Float(), nullable=False),
        sa.Column("source_risk", sa.Float(), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("decided_by", sa.String(100), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
    )
    op.create_index("ix_places_device", "places", ["device"])
