"""Tags of devices, by which rollouts and lists name them, and the names that people give them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0041"
down_revision = "0040"


def upgrade() -> None:
    """Add the columns; no device has any."""
    op.add_column("devices", sa.Column("tags", sa.Text(), nullable=False, server_default=""))
    op.add_column("devices", sa.Column("title", sa.String(100), nullable=False, server_default=""))
