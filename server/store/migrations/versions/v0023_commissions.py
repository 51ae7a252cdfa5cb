"""Devices that are commissioned again: from when on, who said so and why; a baseline has the moment it is from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"

_KEPT = (
    "ref_id", "artifact", "device", "context", "completed_ms", "windows", "counts", "squares", "movement",
    "provisional",
)  # fmt: skip


def upgrade() -> None:
    """Add the table, and the moment to the key of the baselines: those that there are began with the installation."""
    op.create_table(
        "commissions",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("attribute", sa.String(127), nullable=False),
        sa.Column("value", sa.String(127), nullable=False),
        sa.Column("decided_ms", sa.BigInteger(), nullable=False),
        sa.Column("decided_by", sa.String(100), nullable=False),
        sa.Column("why", sa.String(500), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_commissions_device", "commissions", ["device"])
    op.create_table(
        "baselines_anew",
        sa.Column("ref_id", sa.String(32), primary_key=True),
        sa.Column("artifact", sa.String(32), primary_key=True),
        sa.Column("device", sa.String(63), primary_key=True),
        sa.Column("context", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("since_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("completed_ms", sa.BigInteger(), nullable=False),
        sa.Column("windows", sa.Integer(), nullable=False),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.Column("squares", sa.LargeBinary(), nullable=False),
        sa.Column("movement", sa.LargeBinary(), nullable=True),
        sa.Column("provisional", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    columns = ", ".join(_KEPT)
    op.execute(f"INSERT INTO baselines_anew ({columns}, since_ms) SELECT {columns}, 0 FROM baselines")  # noqa: S608
    op.drop_table("baselines")
    op.rename_table("baselines_anew", "baselines")
