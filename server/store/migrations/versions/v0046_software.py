"""What software devices run: lists, their components, and when each device ran which."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0045"


def upgrade() -> None:
    """Add the tables; devices report the digests of their lists with their next start."""
    op.create_table(
        "software_lists",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("packed", sa.LargeBinary()),
        sa.Column("left_out", sa.BigInteger(), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("stored_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_software_lists_stored_ms", "software_lists", ["stored_ms"])
    op.create_table(
        "software_components",
        sa.Column("list", sa.String(64), nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("version", sa.String(100), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("list", "place"),
    )
    op.create_index("ix_software_components_key", "software_components", ["key"])
    op.create_table(
        "software_runs",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("list", sa.String(64), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("software_runs_by_device", "software_runs", ["device", "until_ms"])
    op.create_index("software_runs_by_list", "software_runs", ["list", "until_ms"])
