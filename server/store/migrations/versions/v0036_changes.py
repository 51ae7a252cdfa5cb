"""Numbers by which a server sees which devices and rollouts changed, so that it need not read all of them each turn."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"


def upgrade() -> None:
    """Add the columns; 0 for what is there, which a server reads whole at its start."""
    op.add_column("devices", sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_devices_change", "devices", ["change"])
    op.add_column("rollouts", sa.Column("change", sa.BigInteger(), nullable=False, server_default="0"))
