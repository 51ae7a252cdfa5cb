"""What alarms rest on: what devices shared in each slot, and the start of each device's path of evidence."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    """Add the tables; verdicts of before have no record."""
    op.create_table(
        "slot_shares",
        sa.Column("start_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("ref_id", sa.String(32), primary_key=True),
        sa.Column("artifact", sa.String(32), primary_key=True),
        sa.Column("context", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("log_cap", sa.Double(), nullable=False),
        sa.Column("common", sa.LargeBinary(), nullable=False),
        sa.Column("held", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "alarms",
        sa.Column("verdict", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("slot_ms", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("log_threshold", sa.Double(), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("decided", sa.Text(), nullable=False),
    )
    op.create_table(
        "alarm_paths",
        sa.Column("verdict", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("device", sa.String(63), primary_key=True),
        sa.Column("ref_id", sa.String(32), nullable=False),
        sa.Column("artifact", sa.String(32), nullable=False),
        sa.Column("streams", sa.Integer(), nullable=False),
        sa.Column("classes", sa.Text(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("since_baseline", sa.Boolean(), nullable=False),
        sa.Column("start", sa.LargeBinary(), nullable=False),
        sa.Column("baseline", sa.LargeBinary(), nullable=False),
        sa.Column("skipped", sa.Text(), nullable=False),
        sa.Column("windows", sa.Integer(), nullable=False),
        sa.Column("inputs_sha256", sa.String(64), nullable=False),
        sa.Column("log_value", sa.Double(), nullable=False),
    )
