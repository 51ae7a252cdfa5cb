"""What devices fetched in earlier attempts; and how much of the bundle those had whose agent does not count.

Before this revision ``air_bytes`` was that figure for all, whatever really came over the network.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_MEMBERS = sa.table("rollout_members", sa.column("air_bytes"), sa.column("bundle_bytes"))


def upgrade() -> None:
    """Add the columns; what was called bytes on air so far becomes what it is."""
    for name in ("earlier_bytes", "bundle_bytes"):
        op.add_column("rollout_members", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.execute(_MEMBERS.update().values(bundle_bytes=_MEMBERS.c.air_bytes, air_bytes=0))
