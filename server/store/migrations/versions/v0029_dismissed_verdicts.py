"""Who dismissed a verdict, when and why."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    """Add the columns; nobody could dismiss an older verdict."""
    op.add_column("verdicts", sa.Column("dismissed_ms", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("verdicts", sa.Column("dismissed_by", sa.String(100), nullable=False, server_default=""))
    op.add_column("verdicts", sa.Column("dismissed_why", sa.Text(), nullable=False, server_default=""))
