"""The number of the last change of a rollout's member, so that only those are read that changed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"


def upgrade() -> None:
    """Add the column; the members of before are older than any number."""
    op.add_column("rollout_members", sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("members_by_change", "rollout_members", ["rollout", "change"])
