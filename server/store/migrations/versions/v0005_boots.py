"""Events carry the boot and number that the device gave them; boots have an order."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the boots, and to events what orders them; of those that are there it is not known."""
    op.create_table(
        "boots",
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("boot", sa.String(64), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("heard_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device", "boot"),
    )
    op.add_column("events", sa.Column("boot", sa.String(64), nullable=False, server_default=""))
    op.add_column("events", sa.Column("place", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("events", sa.Column("seq", sa.BigInteger(), nullable=False, server_default="0"))
