"""What devices counted when a release answered inputs of the one before, as JSON of ``wire.shadow``; empty: nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Add the column; older rollouts have no replays."""
    op.add_column("rollout_members", sa.Column("replay", sa.Text(), nullable=False, server_default=""))
