"""Baselines come in stages: whether one is provisional, with the evidence, pools and verdicts that rest on it.

What is there already was complete.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add the columns."""
    for table, name in (
        ("baselines", "provisional"), ("evidence", "provisional"), ("pool_evidence", "collecting"),
        ("verdicts", "provisional"),
    ):  # fmt: skip
        op.add_column(table, sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false()))
    for name in ("baseline_windows", "wanted_windows"):
        op.add_column("evidence", sa.Column(name, sa.Integer(), nullable=False, server_default="0"))
