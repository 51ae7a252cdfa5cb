"""Tables and queries of alerts: what they are about, what was done about them, and what is to be delivered."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from server.store.database import METADATA, delete_some
from server.store.lists.paging import Order, Page, SortKey, has_word, read_page

ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.String(400), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("severity", sa.String(16), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("devices", sa.JSON, nullable=False),
    sa.Column("device_count", sa.Integer, nullable=False),
    sa.Column("sites", sa.JSON, nullable=False),
    sa.Column("page", sa.Text, nullable=False),
    sa.Column("verdict", sa.Integer, nullable=False),
    sa.Column("flickers", sa.Boolean, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("opened_ms", sa.BigInteger, nullable=False),
    sa.Column("seen_ms", sa.BigInteger, nullable=False),
    sa.Column("gone_ms", sa.BigInteger, nullable=False),
    sa.Column("snoozed_until_ms", sa.BigInteger, nullable=False),
    sa.Column("resolved_ms", sa.BigInteger, nullable=False),
    sa.Column("resolved_by", sa.String(100), nullable=False),
    sa.Column("owner", sa.String(100), nullable=False),
    sa.Column("reopened", sa.Integer, nullable=False),
    sa.Column("told_devices", sa.Integer, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Index("alerts_by_end", "resolved_ms", "id"),
    sqlite_autoincrement=True,
)

ALERT_ACTS = sa.Table(
    "alert_acts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("alert", sa.Integer, nullable=False, index=True),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sa.Column("act", sa.String(32), nullable=False),
    sa.Column("by", sa.String(100), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

NOTICES = sa.Table(
    "alert_outbox",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("alert", sa.Integer, nullable=False, index=True),
    sa.Column("route", sa.String(63), nullable=False),
    sa.Column("event", sa.String(16), nullable=False),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failed_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.Column("delivered_ms", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("answer", sa.Text, nullable=False, server_default=""),
    sa.Index("alert_outbox_waiting", "delivered_ms", "route", "id"),
    sqlite_autoincrement=True,
)
_NEWEST = Order("alerts", (SortKey(ALERTS.c.id, int, descending=True),))


def alerts_to_settle(connection: sa.Connection, since_ms: int) -> list[sa.RowMapping]:
    """Return the alerts that are not resolved, those resolved since ``since_ms``, and those whose cause is there."""
    where = sa.or_(ALERTS.c.resolved_ms == 0, ALERTS.c.resolved_ms >= since_ms, ALERTS.c.gone_ms == 0)
    return list(connection.execute(ALERTS.select().where(where).order_by(ALERTS.c.id)).mappings())


def unresolved_keys(connection: sa.Connection) -> frozenset[str]:
    """Return the keys of the alerts that are not resolved."""
    return frozenset(connection.execute(sa.select(ALERTS.c.key).where(ALERTS.c.resolved_ms == 0)).scalars())


def insert_alert(connection: sa.Connection, row: Mapping[str, object]) -> int:
    """Add an alert; return its id."""
    return int(connection.execute(ALERTS.insert().returning(ALERTS.c.id), dict(row)).scalar_one())


def update_alert(connection: sa.Connection, alert: int, revision: int, changes: Mapping[str, object]) -> bool:
    """Change columns of an alert and its revision; return False if another writer was first."""
    wanted = (ALERTS.c.id == alert, ALERTS.c.revision == revision)
    values = {**changes, "revision": revision + 1}
    return connection.execute(ALERTS.update().where(*wanted).values(values)).rowcount == 1


def one_alert(connection: sa.Connection, alert: int) -> sa.RowMapping | None:
    """Return one alert."""
    return connection.execute(ALERTS.select().where(ALERTS.c.id == alert)).mappings().first()


def alert_page(
    connection: sa.Connection, states: Collection[str], *, kind: str = "", search: str = "", limit: int,
    cursor: str | None = None,
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the alerts in one of ``states``, newest first; ``search``: words of title and cause, any case.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = ALERTS.select().where(ALERTS.c.state.in_(sorted(states)))
    query = query.where(ALERTS.c.kind == kind) if kind else query
    for word in search.split():
        words = (ALERTS.c.title, ALERTS.c.cause)
        query = query.where(sa.or_(*(has_word(column, word) for column in words)))
    return read_page(connection, query, _NEWEST, limit, cursor)


def counted_alerts(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """Return the number of alerts that are not resolved, by severity and state."""
    query = sa.select(ALERTS.c.severity, ALERTS.c.state, sa.func.count()).where(ALERTS.c.resolved_ms == 0)
    rows = connection.execute(query.group_by(ALERTS.c.severity, ALERTS.c.state))
    return {(severity, state): int(count) for severity, state, count in rows}


def insert_act(connection: sa.Connection, row: Mapping[str, object]) -> None:
    """Append an act to the history of an alert."""
    connection.execute(ALERT_ACTS.insert(), dict(row))


def acts_of(connection: sa.Connection, alert: int, limit: int = 1_000) -> list[sa.RowMapping]:
    """Return the newest ``limit`` acts of an alert, oldest first."""
    query = ALERT_ACTS.select().where(ALERT_ACTS.c.alert == alert).order_by(ALERT_ACTS.c.id.desc()).limit(limit)
    return list(connection.execute(query).mappings())[::-1]


def insert_notices(connection: sa.Connection, rows: Sequence[Mapping[str, object]]) -> None:
    """Add what is to be delivered."""
    if rows:
        connection.execute(NOTICES.insert(), [dict(row) for row in rows])


def next_notice(connection: sa.Connection, route: str, now_ms: int, longest_ms: int) -> sa.RowMapping | None:
    """Return what is delivered next by ``route``: due, and the first of its alert that was not delivered yet.

    One that is due later than in ``longest_ms`` was put off by a clock that was ahead: it is due.
    """
    older = NOTICES.alias()
    first = ~sa.exists().where(
        older.c.delivered_ms == 0, older.c.route == route, older.c.alert == NOTICES.c.alert, older.c.id < NOTICES.c.id
    )  # fmt: skip
    due = sa.or_(NOTICES.c.next_ms <= now_ms, NOTICES.c.next_ms > now_ms + longest_ms)
    query = NOTICES.select().where(NOTICES.c.delivered_ms == 0, NOTICES.c.route == route, due, first)
    return connection.execute(query.order_by(NOTICES.c.next_ms, NOTICES.c.id).limit(1)).mappings().first()


def update_notice(connection: sa.Connection, notice: int, changes: Mapping[str, object]) -> None:
    """Change columns of what is to be delivered."""
    connection.execute(NOTICES.update().where(NOTICES.c.id == notice).values(dict(changes)))


def waiting_notices(connection: sa.Connection) -> list[dict[str, object]]:
    """Return for each route with something that is not delivered: how much, since when, and why the first is not."""
    mine = NOTICES.c.delivered_ms == 0
    query = sa.select(
        NOTICES.c.route, sa.func.count().label("waiting"), sa.func.min(NOTICES.c.created_ms).label("since_ms"),
        sa.func.max(NOTICES.c.attempts).label("attempts"), sa.func.min(NOTICES.c.id).label("first"),
    )  # fmt: skip
    found = [dict(row) for row in connection.execute(query.where(mine).group_by(NOTICES.c.route)).mappings()]
    errors = sa.select(NOTICES.c.id, NOTICES.c.error).where(NOTICES.c.id.in_([row["first"] for row in found]))
    texts = {row.id: row.error for row in connection.execute(errors)} if found else {}
    return sorted(({**row, "error": texts.get(row["first"], "")} for row in found), key=lambda row: str(row["route"]))


def forsaken_notices(connection: sa.Connection, routes: Collection[str], now_ms: int, why: str) -> dict[str, int]:
    """Give up what is to be delivered by other ``routes``, for the reason ``why``; return how much by which."""
    where = (NOTICES.c.delivered_ms == 0, NOTICES.c.route.not_in(sorted(routes)))
    query = sa.select(NOTICES.c.route, sa.func.count()).where(*where).group_by(NOTICES.c.route)
    found = {route: int(count) for route, count in connection.execute(query)}
    if found:
        connection.execute(NOTICES.update().where(*where).values(delivered_ms=now_ms, answer=why, error=why))
    return found


def notices_of(connection: sa.Connection, alert: int, limit: int = 1_000) -> list[sa.RowMapping]:
    """Return what was and is to be delivered about an alert, oldest first, without the bodies."""
    columns = [column for column in NOTICES.c if column.name != "body"]
    query = sa.select(*columns).where(NOTICES.c.alert == alert).order_by(NOTICES.c.id).limit(limit)
    return list(connection.execute(query).mappings())


def delete_alerts_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete alerts that were resolved before ``before_ms``; return how many.

    One whose cause is still there stays, and one of which something is not delivered yet.
    """
    return _delete_alerts(connection, sa.true(), before_ms, limit)


def delete_untouched_alerts_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete the same, but only those about which no person did anything; return how many."""
    touched = sa.exists().where(ALERT_ACTS.c.alert == ALERTS.c.id, ALERT_ACTS.c.by != "")
    return _delete_alerts(connection, ~touched, before_ms, limit)


def _delete_alerts(connection: sa.Connection, which: sa.ColumnElement[bool], before_ms: int, limit: int) -> int:
    waiting = sa.exists().where(NOTICES.c.alert == ALERTS.c.id, NOTICES.c.delivered_ms == 0)
    old = (ALERTS.c.resolved_ms > 0, ALERTS.c.resolved_ms < before_ms, ALERTS.c.gone_ms > 0, which, ~waiting)
    return delete_some(connection, ALERTS, limit, *old)


def delete_alert_acts_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete acts of before ``before_ms`` on alerts that are gone; return how many."""
    known = sa.exists().where(ALERTS.c.id == ALERT_ACTS.c.alert)
    return delete_some(connection, ALERT_ACTS, limit, ALERT_ACTS.c.at_ms < before_ms, ~known)


def delete_notices_before(connection: sa.Connection, before_ms: int, limit: int) -> int:
    """Delete what was delivered before ``before_ms``; return how many."""
    done = (NOTICES.c.delivered_ms > 0, NOTICES.c.delivered_ms < before_ms)
    return delete_some(connection, NOTICES, limit, *done)
