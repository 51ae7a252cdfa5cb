"""Which devices get a release last or not at all, because it is not shown to be harmless at their site."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add the column; nobody was held back by older rollouts."""
    op.add_column("rollouts", sa.Column("cautions", sa.Text(), nullable=False, server_default=""))
