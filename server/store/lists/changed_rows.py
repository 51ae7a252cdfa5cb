"""Reads of a table only what changed since the last look, whoever changed it.

Each row of such a table carries ``change``, a number that every statement sets above all others of the table
(``change_column``). An index holds nothing but these numbers, so whether anything changed is known from their count and
sum without reading a row. Rows of such a table are never deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa

_PART = 500


def change_column(table: str) -> sa.Column[int]:
    """Return the column ``change`` for ``table``; its values come from SQL, so that no statement can forget them."""
    above = sa.text(f"(SELECT coalesce(max(change), 0) + 1 FROM {table})")  # noqa: S608 - a name of our own
    return sa.Column(
        "change", sa.BigInteger, nullable=False, index=True, default=above, onupdate=above, server_default="0"
    )


@dataclass(slots=True, kw_only=True)
class ChangedRows:
    """What is known of one table: the ``change`` of each row by the row's primary key, one column."""

    table: sa.Table
    _known: dict[str, int] = field(default_factory=dict)
    _newest: int = -1
    _total: int = 0

    def rows(self, connection: sa.Connection) -> list[sa.RowMapping]:
        """Return the rows that came or changed since the last call: all at the first.

        A number drawn by a transaction that is open while a later one ends is passed over at first (PostgreSQL); the
        sum shows that. It differs then unless other numbers grew meanwhile by the very same: the next call finds it.
        """
        change = self.table.c.change
        stamp = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(change), 0)).select_from(self.table)
        count, total = connection.execute(stamp).one()
        if (count, total) == (len(self._known), self._total):
            return []
        found = self._noted(connection.execute(self.table.select().where(change > self._newest)).mappings())
        if (count, total) != (len(self._known), self._total):
            found += [row for part in self._passed_over(connection) for row in part]
        return found

    def _passed_over(self, connection: sa.Connection) -> Iterator[list[sa.RowMapping]]:
        (key,) = self.table.primary_key
        pairs = connection.execute(sa.select(key, self.table.c.change))
        names = [name for name, change in pairs if self._known.get(name) != change]
        for start in range(0, len(names), _PART):
            wanted = self.table.select().where(key.in_(names[start : start + _PART]))
            yield self._noted(connection.execute(wanted).mappings())

    def _noted(self, rows: sa.MappingResult) -> list[sa.RowMapping]:
        (key,), found = self.table.primary_key, list(rows)
        for row in found:
            self._total += row["change"] - self._known.get(row[key.name], 0)
            self._known[row[key.name]] = row["change"]
            self._newest = max(self._newest, row["change"])
        return found
