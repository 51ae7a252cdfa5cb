"""What was labelled last is found without a look at every sample."""

from __future__ import annotations

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_samples_labelled_ms", "samples", ["labelled_ms"])
