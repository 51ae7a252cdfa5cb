"""Windows that are no longer judged: merged into days and months, or kept whole for a verdict."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"

_KEY = (
    ("device", sa.String(63)), ("resolution", sa.String(8)), ("start_ms", sa.BigInteger()), ("ref_id", sa.String(32)),
    ("artifact", sa.String(32)), ("context", sa.Integer()), ("streams", sa.Integer()), ("classes", sa.Integer()),
    ("confidence_bins", sa.Integer()),
)  # fmt: skip
_SUMS = (
    ("site", sa.String(63)), ("len_ms", sa.BigInteger()), ("n", sa.BigInteger()), ("windows", sa.Integer()),
    ("reports", sa.BigInteger()), ("values", sa.LargeBinary()), ("received_ms", sa.BigInteger()),
)  # fmt: skip
_WINDOW = (
    ("device", sa.String(63)), ("site", sa.String(63)), ("start_ms", sa.BigInteger()), ("len_ms", sa.BigInteger()),
    ("context", sa.Integer()), ("artifact", sa.String(32)), ("ref_id", sa.String(32)), ("streams", sa.Integer()),
    ("classes", sa.Integer()), ("confidence_bins", sa.Integer()), ("n", sa.BigInteger()), ("reports", sa.Integer()),
    ("values", sa.LargeBinary()), ("received_ms", sa.BigInteger()),
)  # fmt: skip


def upgrade() -> None:
    """Add the tables; the server merges what it has, in portions, while it runs."""
    op.create_table(
        "window_spans",
        *(sa.Column(name, kind, primary_key=True, autoincrement=False) for name, kind in _KEY),
        *(sa.Column(name, kind, nullable=False) for name, kind in _SUMS),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "pins",
        sa.Column("verdict", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("device", sa.String(63), primary_key=True),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("pins_by_device", "pins", ["device"])
    op.create_table(
        "pinned_windows",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        *(sa.Column(name, kind, nullable=False) for name, kind in _WINDOW),
    )
    op.create_index("pinned_windows_by_device", "pinned_windows", ["device", "start_ms"])
