"""What a sample's label was before somebody changed it, who had given it, and who changed it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Add the table; of earlier changes nothing is known."""
    op.create_table(
        "label_changes",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("label", sa.String(127), nullable=False),
        sa.Column("label_by", sa.String(127), nullable=False),
        sa.Column("labelled_ms", sa.BigInteger(), nullable=False),
        sa.Column("new_label", sa.String(127), nullable=False),
        sa.Column("changed_by", sa.String(127), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_label_changes_sha256", "label_changes", ["sha256"])
