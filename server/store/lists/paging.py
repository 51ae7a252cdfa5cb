"""Pages of a list: a stable order, and cursors beside whose rows the next page begins and the previous one ends.

A cursor holds the values of the last row by which the list is sorted, not a number of rows to skip: rows that come or
go between two pages neither repeat nor hide another one. A row whose own place in the order changes meanwhile may. It
also holds a digest of what was asked for: with other filters it would name a page of another list.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from server.errors import CursorRefusedError

Row = TypeVar("Row")
Made = TypeVar("Made")
_MAX_CURSOR = 2_000
_DIGEST = 12  # hexadecimal digits: filters that are not the same by mistake, not by intent
_MAX_INT = 2**63
_AFTER, _BEFORE = "after", "before"


@dataclass(frozen=True, slots=True)
class SortKey:
    """One value by which rows are sorted: never NULL, of the Python type ``kind`` (str, int or float)."""

    value: sa.ColumnElement[Any]
    kind: type
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a list; its last key is different in every row. ``name`` stands in its cursors."""

    name: str
    keys: tuple[SortKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """Some rows of a list. ``next`` and ``previous``: the cursors of the pages beside it, None at the ends.

    ``total``: the rows of all pages, None where they are not counted: on a page that a cursor names.
    """

    rows: tuple[Row, ...]
    next: str | None
    previous: str | None = None
    total: int | None = None

    def of(self, made: Callable[[Row], Made]) -> Page[Made]:
        """Return the page with what is made of each row."""
        return Page(
            rows=tuple(made(row) for row in self.rows), next=self.next, previous=self.previous, total=self.total
        )  # fmt: skip


def equal(table: sa.Table, **values: object) -> list[sa.ColumnElement[bool]]:
    """Return the conditions that columns have ``values``; "" and None are not set."""
    if any(isinstance(value, str) and "\0" in value for value in values.values()):
        return [sa.false()]  # no stored text has it, and PostgreSQL takes none
    return [table.c[name] == value for name, value in values.items() if value not in ("", None)]


def has_word(column: sa.ColumnElement[str], word: str) -> sa.ColumnElement[bool]:
    """Return whether ``column``, of a table, contains ``word``; letters of ASCII are alike in any case, as in SQLite.

    Folded here: PostgreSQL would fold a parameter by the language of the database, and the column by code points.
    """
    return sa.func.lower(column).contains(word.translate(_ASCII_LOWER), autoescape=True)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def read_page(  # noqa: PLR0913 - a query and a place in its list
    connection: sa.Connection, query: sa.Select[Any], order: Order, limit: int, cursor: str | None, *,
    counted: bool = True, asked: object = None,
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return at most ``limit`` rows of ``query`` beside ``cursor``; if ``counted``, the first page has the total.

    ``asked``: the filters, to which cursors are bound, with a stable ``repr``; None: the query with its parameters, for
    queries that do not depend on the time.

    Raises:
        CursorRefusedError: If ``cursor`` is not one of this list in this order with these filters.
    """
    digest = _digest(_parts(query) if asked is None else asked)
    names, made = [], []
    for index, key in enumerate(order.keys):
        known = isinstance(key.value, sa.Column)  # the rows have it
        names.append(key.value.name if isinstance(key.value, sa.Column) else f"key_{index}")
        made += [] if known else [key.value.label(names[-1])]
    wanted = query.add_columns(*made)
    back, place = _read(order, cursor, digest) if cursor is not None else (False, None)
    keys = [replace(key, descending=key.descending is not back) for key in order.keys]
    wanted = wanted.order_by(*(key.value.desc() if key.descending else key.value.asc() for key in keys))
    if place is not None:
        wanted = wanted.where(_after(keys, place))
    found = connection.execute(wanted.limit(limit + 1)).mappings().all()
    rows, more = found[:limit], len(found) > limit
    if back:
        rows = rows[::-1]

    def beside(row: sa.RowMapping, *, back: bool) -> str:
        return _written(order.name, [digest, _BEFORE if back else _AFTER, *(row[name] for name in names)])

    return Page(
        rows=tuple(rows),
        next=beside(rows[-1], back=False) if rows and (more or back) else None,
        previous=beside(rows[0], back=True) if rows and (more if back else cursor is not None) else None,
        total=_count(connection, query) if counted and cursor is None else None,
    )


def names_page(name: str, names: Iterable[str], limit: int, cursor: str | None) -> Page[str]:
    """Return at most ``limit`` of ``names`` beside ``cursor``, each once and sorted; ``name`` stands in the cursors.

    Raises:
        CursorRefusedError: If ``cursor`` is not one of this list.
    """
    every = sorted(set(names))
    order = Order(name, (SortKey(sa.literal(""), str),))
    back, place = _read(order, cursor, "") if cursor is not None else (False, [])
    first, end = 0, limit
    if back:
        end = bisect_left(every, str(place[0]))
        first = max(end - limit, 0)
    elif place:
        first = bisect_right(every, str(place[0]))
        end = first + limit
    rows = every[first:end]
    return Page(
        rows=tuple(rows),
        next=_written(name, ["", _AFTER, rows[-1]]) if rows and end < len(every) else None,
        previous=_written(name, ["", _BEFORE, rows[0]]) if rows and first > 0 else None,
        total=len(every) if cursor is None else None,
    )


def _count(connection: sa.Connection, query: sa.Select[Any]) -> int:
    counted = sa.select(sa.func.count()).select_from(query.order_by(None).subquery())
    return int(connection.execute(counted).scalar_one())


def _after(keys: Sequence[SortKey], values: Sequence[str | int | float]) -> sa.ColumnElement[bool]:
    """Return the condition that a row comes after the one with ``values``."""
    first, value = keys[0], sa.literal(values[0])
    beyond = first.value < value if first.descending else first.value > value
    if len(keys) == 1:
        return beyond
    return sa.or_(beyond, sa.and_(first.value == value, _after(keys[1:], values[1:])))


def _parts(query: sa.Select[Any]) -> object:
    """Return a query as it is on any database, and its parameters."""
    compiled = query.compile()
    return str(compiled), sorted(compiled.params.items())


def _digest(asked: object) -> str:
    return hashlib.sha256(repr(asked).encode()).hexdigest()[:_DIGEST]


def _written(name: str, values: Sequence[object]) -> str:
    data = json.dumps([name, *values], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _read(order: Order, cursor: str, digest: str) -> tuple[bool, list[str | int | float]]:
    """Return whether ``cursor`` leads back, and the values of the row beside its page; ``digest``: of the filters."""
    shown = f"{cursor[:40]!r}"
    message = f"Expected the next of a page of this list in this order, got {shown}: leave cursor out to begin again"
    padded = cursor[:_MAX_CURSOR] + "=" * (-len(cursor) % 4)
    try:
        document = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise CursorRefusedError(message) from error
    if not isinstance(document, list) or len(document) != len(order.keys) + 3:
        raise CursorRefusedError(message)
    name, of_filters, way, *values = document
    if name != order.name or way not in (_AFTER, _BEFORE):
        raise CursorRefusedError(message)
    if of_filters != digest:
        message = f"Expected the next of a page with these filters, got {shown}, of others: leave cursor out, or give "
        message += "the same"
        raise CursorRefusedError(message)
    for key, value in zip(order.keys, values, strict=True):
        fits = type(value) is key.kind or (key.kind is float and type(value) is int)
        if not fits or (isinstance(value, int) and not -_MAX_INT <= value < _MAX_INT):
            raise CursorRefusedError(message)
    return way == _BEFORE, values
