"""Tables and queries of drift detection: completed baselines, and checkpoints of its state after a slot, in blocks.

There is one baseline for each device, release, context and commission of the device (``since_ms``, 0 for its
installation; also one for each return to the model); a provisional one is replaced by the next estimate, a complete one
never. How a pool moved is written again with every baseline of its bank. Of a checkpoint, block 0 is the header and is
written last: blocks without it belong to a checkpoint that was never finished.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from server.store.commissions import COMMISSIONS
from server.store.database import METADATA, delete_some, upsert

BASELINES = sa.Table(
    "baselines",
    METADATA,
    sa.Column("ref_id", sa.String(32), primary_key=True),
    sa.Column("artifact", sa.String(32), primary_key=True),
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("context", sa.Integer, primary_key=True),
    sa.Column("since_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("completed_ms", sa.BigInteger, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("counts", sa.LargeBinary, nullable=False),
    sa.Column("squares", sa.LargeBinary, nullable=False),
    sa.Column("movement", sa.LargeBinary),
    sa.Column("provisional", sa.Boolean, nullable=False, server_default=sa.false()),
)

_ESTIMATED = ("completed_ms", "windows", "counts", "squares", "movement", "provisional")


def add_baselines(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add baselines, or replace provisional ones; complete ones are not changed."""
    if rows:
        insert = upsert(connection, BASELINES)
        fresh = {name: insert.excluded[name] for name in _ESTIMATED}
        statement = insert.on_conflict_do_update(
            index_elements=[*BASELINES.primary_key.columns.keys()], set_=fresh, where=BASELINES.c.provisional
        )
        connection.execute(statement, [dict(row) for row in rows])


def baselines_of(connection: sa.Connection, ref_id: str, artifact: str) -> list[sa.RowMapping]:
    """Return every device's baselines under one reference."""
    query = BASELINES.select().where(BASELINES.c.ref_id == ref_id, BASELINES.c.artifact == artifact)
    return list(connection.execute(query.order_by(BASELINES.c.device, BASELINES.c.context)).mappings())


def baselines_of_device(
    connection: sa.Connection, device: str, ref_id: str, artifact: str, at_ms: int
) -> list[sa.RowMapping]:  # fmt: skip
    """Return the baselines of one device under one reference that apply to a window of ``at_ms``, one a context."""
    mine = (BASELINES.c.device == device, BASELINES.c.ref_id == ref_id, BASELINES.c.artifact == artifact)
    newest = sa.select(sa.func.max(BASELINES.c.since_ms)).where(*mine, BASELINES.c.since_ms <= at_ms)
    query = BASELINES.select().where(*mine, BASELINES.c.since_ms == newest.scalar_subquery())
    return list(connection.execute(query.order_by(BASELINES.c.context)).mappings())


def delete_baselines_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete baselines whose device was commissioned again later, and before ``before_ms``; return how many.

    By a person, or because it returned to the model. Windows from before that are gone, so nothing is compared with
    them any more.
    """
    later = BASELINES.alias()
    replaced = sa.exists().where(
        COMMISSIONS.c.device == BASELINES.c.device, COMMISSIONS.c.from_ms > BASELINES.c.since_ms,
        COMMISSIONS.c.from_ms < before_ms,
    )  # fmt: skip
    returned = sa.exists().where(
        later.c.ref_id == BASELINES.c.ref_id, later.c.artifact == BASELINES.c.artifact,
        later.c.device == BASELINES.c.device, later.c.since_ms > BASELINES.c.since_ms, later.c.since_ms < before_ms,
    )  # fmt: skip
    return delete_some(connection, BASELINES, limit, replaced | returned)


POOL_MOVEMENTS = sa.Table(
    "pool_movements",
    METADATA,
    sa.Column("ref_id", sa.String(32), primary_key=True),
    sa.Column("artifact", sa.String(32), primary_key=True),
    sa.Column("attribute", sa.String(127), primary_key=True),
    sa.Column("value", sa.String(127), primary_key=True),
    sa.Column("slot_ms", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)


def put_pool_movements(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add or replace how pools moved."""
    if rows:
        insert = upsert(connection, POOL_MOVEMENTS)
        fresh = {name: insert.excluded[name] for name in ("slot_ms", "data")}
        key = ["ref_id", "artifact", "attribute", "value"]
        connection.execute(insert.on_conflict_do_update(index_elements=key, set_=fresh), [dict(row) for row in rows])


def pool_movements_of(connection: sa.Connection, ref_id: str, artifact: str) -> list[sa.RowMapping]:
    """Return how each pool moved under one reference."""
    table = POOL_MOVEMENTS
    query = table.select().where(table.c.ref_id == ref_id, table.c.artifact == artifact)
    return list(connection.execute(query.order_by(table.c.attribute, table.c.value)).mappings())


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


def one_block(connection: sa.Connection, slot: int, block: int) -> bytes | None:
    """Return one block of a checkpoint, None if there is none."""
    query = sa.select(CHECKPOINTS.c.data).where(CHECKPOINTS.c.slot == slot, CHECKPOINTS.c.block == block)
    found = connection.execute(query).scalar()
    return None if found is None else bytes(found)


def delete_checkpoints(connection: sa.Connection, slots: list[int]) -> None:
    """Delete the checkpoints of ``slots``, finished or not."""
    if slots:
        connection.execute(CHECKPOINTS.delete().where(CHECKPOINTS.c.slot.in_(slots)))


def unfinished_slots(connection: sa.Connection) -> list[int]:
    """Return the slots that have blocks but no header."""
    finished = sa.select(CHECKPOINTS.c.slot).where(CHECKPOINTS.c.block == 0)
    query = sa.select(CHECKPOINTS.c.slot).where(CHECKPOINTS.c.slot.not_in(finished)).distinct()
    return list(connection.execute(query).scalars())
