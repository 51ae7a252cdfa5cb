"""How devices moved while their baselines were collected, and how pools did: what drift detection allows for.

Older baselines have none, and keep the memory of single windows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("baselines", sa.Column("movement", sa.LargeBinary(), nullable=True))
    op.create_table(
        "pool_movements",
        sa.Column("ref_id", sa.String(32), primary_key=True),
        sa.Column("artifact", sa.String(32), primary_key=True),
        sa.Column("attribute", sa.String(127), primary_key=True),
        sa.Column("value", sa.String(127), primary_key=True),
        sa.Column("slot_ms", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
