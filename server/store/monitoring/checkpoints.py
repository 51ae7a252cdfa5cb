"""Table and queries of checkpoints: the state of drift detection after a slot, in blocks.

Block 0 is the header and is written last: blocks without it belong to a checkpoint that was never finished.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from server.store.database import METADATA

CHECKPOINTS = sa.Table(
    "drift_checkpoints",
    METADATA,
    sa.Column("slot", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("block", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


def put_block(connection: sa.Connection, slot: int, block: int, data: bytes) -> None:
    """Add one block."""
    connection.execute(CHECKPOINTS.insert(), {"slot": slot, "block": block, "data": data})


def checkpoint_slots(connection: sa.Connection) -> list[int]:
    """Return the slots of all finished checkpoints, newest first."""
    query = sa.select(CHECKPOINTS.c.slot).where(CHECKPOINTS.c.block == 0).order_by(CHECKPOINTS.c.slot.desc())
    return list(connection.execute(query).scalars())


def checkpoint_blocks(connection: sa.Connection, slot: int) -> Iterator[bytes]:
    """Yield the blocks of one checkpoint in their order, the header first; one is in memory at a time."""
    numbers = sa.select(CHECKPOINTS.c.block).where(CHECKPOINTS.c.slot == slot).order_by(CHECKPOINTS.c.block)
    for number in connection.execute(numbers).scalars().all():
        one = sa.select(CHECKPOINTS.c.data).where(CHECKPOINTS.c.slot == slot, CHECKPOINTS.c.block == number)
        yield bytes(connection.execute(one).scalar_one())


def delete_checkpoints(connection: sa.Connection, slots: list[int]) -> None:
    """Delete the checkpoints of ``slots``, finished or not."""
    if slots:
        connection.execute(CHECKPOINTS.delete().where(CHECKPOINTS.c.slot.in_(slots)))


def unfinished_slots(connection: sa.Connection) -> list[int]:
    """Return the slots that have blocks but no header."""
    finished = sa.select(CHECKPOINTS.c.slot).where(CHECKPOINTS.c.block == 0)
    query = sa.select(CHECKPOINTS.c.slot).where(CHECKPOINTS.c.slot.not_in(finished)).distinct()
    return list(connection.execute(query).scalars())
