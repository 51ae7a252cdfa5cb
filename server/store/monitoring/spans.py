"""Tables and queries of windows that are no longer judged: merged into days and months, or pinned by a verdict.

They are not in the table of windows, so a reader with a cursor, and drift detection, never meet them. A pinned window
is the whole window, with the id it had; a pin says of which device and time, and for which verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, insert_many
from server.store.monitoring.evidence import VERDICTS
from server.store.monitoring.windows import WINDOWS

_DAY_MS = 86_400_000

SPANS = sa.Table(
    "window_spans",
    METADATA,
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("resolution", sa.String(8), primary_key=True),
    sa.Column("start_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("ref_id", sa.String(32), primary_key=True),
    sa.Column("artifact", sa.String(32), primary_key=True),
    sa.Column("context", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("streams", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("classes", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("confidence_bins", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("site", sa.String(63), nullable=False),
    sa.Column("len_ms", sa.BigInteger, nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("windows", sa.Integer, nullable=False),
    sa.Column("reports", sa.BigInteger, nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False),
    sa.Column("received_ms", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
_KEY = tuple(column.name for column in SPANS.primary_key.columns)

PINS = sa.Table(
    "pins",
    METADATA,
    sa.Column("verdict", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("device", sa.String(63), primary_key=True),
    sa.Column("from_ms", sa.BigInteger, nullable=False),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
    sa.Index("pins_by_device", "device"),
)

PINNED = sa.Table(
    "pinned_windows",
    METADATA,
    *(sa.Column(column.name, column.type, primary_key=column.primary_key, nullable=False, autoincrement=False)
      for column in WINDOWS.c),
    sa.Index("pinned_windows_by_device", "device", "start_ms"),
)  # fmt: skip


def devices_after(connection: sa.Connection, after: str, limit: int) -> list[str]:
    """Return the next ``limit`` devices after ``after`` that have windows or days, in the order of names."""
    found: set[str] = set()
    for table in (WINDOWS, SPANS):  # one index lookup a device: DISTINCT would read every row of each
        first = sa.select(sa.func.min(table.c.device).label("device"), sa.literal(1).label("place"))
        names = first.where(table.c.device > after).cte(recursive=True)
        following = sa.select(sa.func.min(table.c.device)).where(table.c.device > names.c.device).scalar_subquery()
        more = sa.select(following, names.c.place + 1).where(names.c.device.is_not(None), names.c.place < limit)
        query = names.union_all(more)
        found.update(connection.execute(sa.select(query.c.device).where(query.c.device.is_not(None))).scalars())
    return sorted(found)[:limit]


def old_windows(
    connection: sa.Connection, devices: Sequence[str], before_ms: int, limit: int
) -> list[sa.RowMapping]:  # fmt: skip
    """Return up to ``limit`` windows of ``devices`` that started before ``before_ms``, by device and start.

    One that arrived more than a day after that waited on its device, and is taken as long after its arrival as others.
    """
    arrived = WINDOWS.c.received_ms < before_ms + _DAY_MS
    old = (WINDOWS.c.device.in_(devices), WINDOWS.c.start_ms < before_ms, arrived)
    query = WINDOWS.select().where(*old).order_by(WINDOWS.c.device, WINDOWS.c.start_ms).limit(limit)
    return list(connection.execute(query).mappings())


def old_spans(
    connection: sa.Connection, devices: Sequence[str], resolution: str, before_ms: int, limit: int
) -> list[sa.RowMapping]:  # fmt: skip
    """Return up to ``limit`` spans of one resolution of ``devices`` that start before ``before_ms``, by key."""
    old = (SPANS.c.device.in_(devices), SPANS.c.resolution == resolution, SPANS.c.start_ms < before_ms)
    query = SPANS.select().where(*old).order_by(SPANS.c.device, SPANS.c.start_ms).limit(limit)
    return list(connection.execute(query).mappings())


def spans_at(
    connection: sa.Connection, keys: Collection[tuple[object, ...]]
) -> dict[tuple[object, ...], sa.RowMapping]:
    """Return the spans of ``keys`` (the columns of the primary key), by key."""
    if not keys:
        return {}
    devices, starts, resolutions = (
        {key[_KEY.index(name)] for key in keys} for name in ("device", "start_ms", "resolution")
    )
    where = (SPANS.c.device.in_(devices), SPANS.c.start_ms.in_(starts), SPANS.c.resolution.in_(resolutions))
    found = {key_of(row): row for row in connection.execute(SPANS.select().where(*where)).mappings()}
    return {key: row for key, row in found.items() if key in keys}


def key_of(row: Mapping[str, object] | sa.RowMapping) -> tuple[object, ...]:
    """Return the primary key of a span."""
    return tuple(row[name] for name in _KEY)


def delete_spans(connection: sa.Connection, keys: Collection[tuple[object, ...]]) -> None:
    """Delete the spans of ``keys``."""
    if keys:
        mine = sa.and_(*(SPANS.c[name] == sa.bindparam(f"key_{name}") for name in _KEY))
        rows = [dict(zip((f"key_{name}" for name in _KEY), key, strict=True)) for key in keys]
        connection.execute(SPANS.delete().where(mine), rows)


def insert_spans(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add spans (all columns)."""
    if rows:
        insert_many(connection, SPANS, rows)


def spans_between(
    connection: sa.Connection, device: str, start_ms: int, end_ms: int, limit: int
) -> list[sa.RowMapping]:
    """Return up to ``limit`` spans of ``device`` that overlap [start_ms, end_ms), by start."""
    here = (SPANS.c.device == device, SPANS.c.start_ms < end_ms, SPANS.c.start_ms + SPANS.c.len_ms > start_ms)
    query = SPANS.select().where(*here).order_by(SPANS.c.start_ms, SPANS.c.resolution).limit(limit)
    return list(connection.execute(query).mappings())


def delete_old_spans(
    connection: sa.Connection, devices: Sequence[str], resolution: str, before_ms: int
) -> int:  # fmt: skip
    """Delete the spans of one resolution of ``devices`` that start before ``before_ms``; return how many."""
    old = (SPANS.c.device.in_(devices), SPANS.c.resolution == resolution, SPANS.c.start_ms < before_ms)
    return connection.execute(SPANS.delete().where(*old)).rowcount


def insert_pins(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add pins (all columns)."""
    if rows:
        connection.execute(PINS.insert(), [dict(row) for row in rows])


def pins_of(connection: sa.Connection, devices: Sequence[str]) -> dict[str, list[tuple[int, int]]]:
    """Return the pinned times (from, until) of ``devices``, in UTC ms, by device."""
    found: dict[str, list[tuple[int, int]]] = {}
    query = sa.select(PINS.c.device, PINS.c.from_ms, PINS.c.until_ms).where(PINS.c.device.in_(devices))
    for device, from_ms, until_ms in connection.execute(query):
        found.setdefault(device, []).append((int(from_ms), int(until_ms)))
    return found


def insert_pinned(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add pinned windows (all columns of a window, its id too)."""
    if rows:
        insert_many(connection, PINNED, rows)


def pinned_between(connection: sa.Connection, device: str, start_ms: int, end_ms: int) -> list[sa.RowMapping]:
    """Return the windows of ``device`` that start in [start_ms, end_ms), pinned or not merged yet, by start and id."""
    found: list[sa.RowMapping] = []
    for table in (WINDOWS, PINNED):
        here = (table.c.device == device, table.c.start_ms >= start_ms, table.c.start_ms < end_ms)
        found += connection.execute(table.select().where(*here)).mappings().all()
    return sorted(found, key=lambda row: (row["start_ms"], row["id"]))


def counted_at(connection: sa.Connection, device: str, at_ms: int) -> list[str]:
    """Return the artifacts (the first 32 hex digits) that ``device`` counted in the newest windows around a time.

    [] where no window or merged span of that time is kept.
    """
    found: list[str] = []
    for table in (WINDOWS, PINNED, SPANS):
        here = (table.c.device == device, table.c.start_ms <= at_ms, table.c.start_ms + table.c.len_ms > at_ms)
        query = sa.select(table.c.artifact, table.c.start_ms).where(*here).distinct()
        found += [str(row[0]) for row in connection.execute(query.order_by(table.c.start_ms.desc()).limit(4))]
        if found:
            break
    return list(dict.fromkeys(found))


_PINS_A_PORTION = 4  # each has up to 840 windows


def delete_pins_before(connection: sa.Connection, _before_ms: int, limit: int) -> int:
    """Delete some pins whose verdict is gone, with their windows that no other pin needs; return how many rows.

    At least ``limit`` if there may be more.
    """
    gone = sa.select(PINS).where(~sa.exists().where(VERDICTS.c.id == PINS.c.verdict)).limit(_PINS_A_PORTION)
    found = connection.execute(gone).mappings().all()
    deleted = 0
    for pin in found:
        mine = (PINS.c.verdict == pin["verdict"], PINS.c.device == pin["device"])
        connection.execute(PINS.delete().where(*mine))
        needed = sa.exists().where(
            PINS.c.device == PINNED.c.device, PINS.c.from_ms <= PINNED.c.start_ms, PINS.c.until_ms > PINNED.c.start_ms
        )
        here = (PINNED.c.device == pin["device"], PINNED.c.start_ms >= pin["from_ms"],
                PINNED.c.start_ms < pin["until_ms"])  # fmt: skip
        deleted += 1 + connection.execute(PINNED.delete().where(*here, ~needed)).rowcount
    return deleted if len(found) < _PINS_A_PORTION else max(deleted, limit)
