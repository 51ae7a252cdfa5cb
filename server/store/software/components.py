"""Pages of components with their number of devices, of devices that run a component, and of the runs of a device."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from server.store.fleet import DEVICES
from server.store.lists.paging import Order, Page, SortKey, equal, has_word, read_page
from server.store.software.runs import SOFTWARE_COMPONENTS, SOFTWARE_LISTS, SOFTWARE_RUNS

_ONE = SOFTWARE_COMPONENTS.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFilter:
    """Which components: ``words`` in their names, or the ``key`` of one, its ``kind`` and ``version``; "" for any.

    ``version``: ``1.2.3`` is that one, ``1.2.*`` those that are or begin with 1.2 and a dot.
    """

    words: str = ""
    key: str = ""
    kind: str = ""
    version: str = ""

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on components."""
        found = equal(SOFTWARE_COMPONENTS, key=self.key, kind=self.kind)
        found += [has_word(_ONE.name, word) for word in self.words.split()]
        start = self.version.removesuffix("*").removesuffix(".")
        if self.version and start == self.version:
            found += equal(SOFTWARE_COMPONENTS, version=start)
        elif start:
            found += [
                sa.or_(_ONE.version == start, sa.func.substr(_ONE.version, 1, len(start) + 1) == f"{start}.")
                if "\0" not in start else sa.false()
            ]  # fmt: skip
        return found


def component_page(
    connection: sa.Connection, wanted: ComponentFilter, *, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the components that devices run now, with the number of ``devices``, by key, kind and version.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    running = sa.select(SOFTWARE_RUNS.c.list, sa.func.count().label("devices"))
    running = running.join(DEVICES, DEVICES.c.device == SOFTWARE_RUNS.c.device)
    counted = running.where(SOFTWARE_RUNS.c.until_ms == 0, DEVICES.c.ended == "").group_by(SOFTWARE_RUNS.c.list)
    lists = counted.subquery()
    group = (_ONE.key, _ONE.kind, _ONE.version)
    query = sa.select(*group, sa.func.min(_ONE.name).label("name"), sa.func.sum(lists.c.devices).label("devices"))
    query = query.join(lists, lists.c.list == _ONE.list).where(*wanted.conditions()).group_by(*group)
    found = query.subquery()
    order = Order(
        "components", (SortKey(found.c.key, str), SortKey(found.c.kind, str), SortKey(found.c.version, str))
    )  # fmt: skip
    return read_page(connection, sa.select(found), order, limit, cursor)


def runner_page(
    connection: sa.Connection, wanted: ComponentFilter, *, limit: int, cursor: str | None
) -> Page[sa.RowMapping]:  # fmt: skip
    """Return a page of the devices that run a component now, a row for each component found, by device.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = sa.select(
        DEVICES.c.device, DEVICES.c.site, DEVICES.c.state, DEVICES.c.last_seen_ms, SOFTWARE_RUNS.c.from_ms, _ONE.kind,
        _ONE.name, _ONE.version, _ONE.sha256, _ONE.place, _ONE.list,
    )  # fmt: skip
    query = query.join(SOFTWARE_RUNS, SOFTWARE_RUNS.c.device == DEVICES.c.device)
    query = query.join(SOFTWARE_COMPONENTS, _ONE.list == SOFTWARE_RUNS.c.list)
    query = query.where(SOFTWARE_RUNS.c.until_ms == 0, DEVICES.c.ended == "", *wanted.conditions())
    order = Order("devices of components", (SortKey(DEVICES.c.device, str), SortKey(_ONE.place, int)))
    return read_page(connection, query, order, limit, cursor)


def run_page(connection: sa.Connection, device: str, *, limit: int, cursor: str | None) -> Page[sa.RowMapping]:
    """Return a page of what ``device`` ran when, the newest first.

    Raises:
        CursorRefusedError: If ``cursor`` is of another list.
    """
    query = sa.select(SOFTWARE_RUNS).where(SOFTWARE_RUNS.c.device == device)
    order = Order("software of a device", (SortKey(SOFTWARE_RUNS.c.id, int, descending=True),))
    return read_page(connection, query, order, limit, cursor)


def unknown_devices(connection: sa.Connection) -> tuple[int, int]:
    """Return how many devices report no list of software, and how many one that is not stored yet."""
    open_ = sa.select(SOFTWARE_RUNS.c.device).where(SOFTWARE_RUNS.c.until_ms == 0)
    none = sa.select(sa.func.count()).select_from(DEVICES).where(DEVICES.c.ended == "", DEVICES.c.device.not_in(open_))
    missing = sa.select(sa.func.count()).select_from(SOFTWARE_RUNS)
    missing = missing.join(SOFTWARE_LISTS, SOFTWARE_LISTS.c.sha256 == SOFTWARE_RUNS.c.list)
    missing = missing.join(DEVICES, DEVICES.c.device == SOFTWARE_RUNS.c.device)
    missing = missing.where(SOFTWARE_RUNS.c.until_ms == 0, SOFTWARE_LISTS.c.stored_ms == 0, DEVICES.c.ended == "")
    return int(connection.execute(none).scalar_one()), int(connection.execute(missing).scalar_one())
