"""In which streams a verdict has its evidence, and in which verdict of the same drift it went on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    """Add the columns; of older verdicts the streams are not known."""
    op.add_column("verdicts", sa.Column("streams", sa.JSON(), nullable=True))
    op.add_column("verdicts", sa.Column("part_of", sa.Integer(), nullable=False, server_default="0"))
