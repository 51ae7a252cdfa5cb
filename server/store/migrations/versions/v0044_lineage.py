"""Which samples each training job was given, with their labels then; indexes by which lineage is asked.

Jobs of before have theirs in their archives: the server lists them when it starts (``Jobs.settle``).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0044"
down_revision = "0043"


def upgrade() -> None:
    """Add the table and the indexes."""
    op.create_table(
        "job_samples",
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("sample", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("device", sa.String(63), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("lane", sa.String(16), nullable=False),
        sa.Column("label", sa.String(127), nullable=False),
        sa.Column("label_by", sa.String(127), nullable=False),
        sa.Column("labelled_ms", sa.BigInteger(), nullable=False),
        sa.Column("watched", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job", "sample"),
    )
    op.create_index("ix_job_samples_sha256", "job_samples", ["sha256"])
    op.create_index("ix_ran_release", "ran", ["release"])
    op.create_index("ix_audit_log_subject", "audit_log", ["subject"])
