"""What each person labelled an image as, who is about to label it, and which images can't be labelled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"


def upgrade() -> None:
    """Add the tables; labels of before stand with the samples alone, with the name of who gave them."""
    op.create_table(
        "label_answers",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(127), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("person", sa.String(127), nullable=False),
        sa.Column("label", sa.String(127), nullable=False),
        sa.Column("first_label", sa.String(127), nullable=False),
        sa.Column("seen", sa.Boolean(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("model", "sha256", "person"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "label_leases",
        sa.Column("model", sa.String(127), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("place", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("person", sa.String(127), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "label_marks",
        sa.Column("model", sa.String(127), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("mark", sa.String(16), nullable=False),
        sa.Column("person", sa.String(127), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
    )
