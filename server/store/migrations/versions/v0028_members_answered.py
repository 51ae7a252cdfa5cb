"""How many inputs a release had answered on a device when it was committed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    """Add the column; of older members it is not known."""
    op.add_column("rollout_members", sa.Column("answered", sa.BigInteger(), nullable=True))
