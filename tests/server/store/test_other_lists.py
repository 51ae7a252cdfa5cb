"""The lists of drift, learning, events and releases, a page at a time, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from server.errors import CursorRefusedError
from server.store.commissions import COMMISSIONS
from server.store.database import Database, open_database
from server.store.events import EVENTS
from server.store.lists import drift, learning
from server.store.lists.events import EventFilter, event_page
from server.store.lists.paging import Page
from server.store.lists.registry import release_page
from server.store.monitoring.evidence import EVIDENCE, POOLS, VERDICTS
from server.store.places import PLACES
from server.store.registry import RELEASES
from server.store.retraining import JOBS, SAMPLES, TRIGGERS

COUNT = 5
Rows = Page[sa.RowMapping]
LISTS: dict[sa.Table, tuple[str, Callable[..., Rows]]] = {
    EVENTS: ("id", lambda connection, **place: event_page(connection, EventFilter(), **place)),
    EVIDENCE: ("id", lambda connection, **place: drift.evidence_page(connection, device="", **place)),
    POOLS: ("id", drift.pool_page),
    VERDICTS: ("id", lambda connection, **place: drift.verdict_page(
        connection, is_open=None, kind="", model="", release="", device="", **place)),
    PLACES: ("verdict", lambda connection, **place: drift.place_page(
        connection, device="", site="", state="", **place)),
    COMMISSIONS: ("id", lambda connection, **place: drift.commission_page(connection, device="", **place)),
    SAMPLES: ("id", lambda connection, **place: learning.sample_page(
        connection, unlabelled=False, device="", model="", lane="", label="", **place)),
    TRIGGERS: ("id", lambda connection, **place: learning.trigger_page(connection, model="", phase="", **place)),
    JOBS: ("id", lambda connection, **place: learning.job_page(connection, model="", state="", **place)),
    RELEASES: ("path", lambda connection, **place: release_page(
        connection, name="", search="", withdrawn=None, **place)),
}  # fmt: skip


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    """A database with five rows in each table: alike but for what must differ."""
    database = open_database(empty_url)
    with database.begin() as connection:
        for table in LISTS:
            for index in range(COUNT):
                connection.execute(table.insert(), row(table, index))
    yield database
    database.close()


def row(table: sa.Table, index: int, **changes: object) -> dict[str, Any]:
    """Return a row: texts "", numbers 0, and a key of its own; two rows each share a device and a time."""
    values: dict[str, Any] = {}
    for column in table.c:
        kind = column.type
        if column.primary_key and isinstance(kind, sa.Integer) and column.autoincrement is not False:
            continue
        if isinstance(kind, sa.JSON):
            values[column.name] = []
        elif isinstance(kind, sa.Boolean):
            values[column.name] = False
        elif not isinstance(kind, sa.String):
            values[column.name] = None if column.nullable else 0
        else:
            values[column.name] = None if column.nullable else ""
    own = {"device": f"d{index // 2}", "start_ms": index // 2, "created_ms": index // 2, "registered_ms": index // 2,
           "verdict": index, "path": f"p{index}", "seq": index, "sha256": f"{index}", "name": f"m-{index}"}  # fmt: skip
    own |= {"id": f"j{index}"} if table is JOBS else {}
    return values | {name: value for name, value in own.items() if name in table.c} | changes


def read(database: Database, ask: Callable[..., Rows], key: str) -> list[object]:
    """Return the keys of all rows of a list, two at a time, forth and the same back."""
    with database.begin() as connection:
        pages = [ask(connection, limit=2, cursor=None)]
        while pages[-1].next is not None:
            pages.append(ask(connection, limit=2, cursor=pages[-1].next))
        back = pages[-1]
        for page in pages[-2::-1]:
            back = ask(connection, limit=2, cursor=back.previous)
            assert back.rows == page.rows
        assert back.previous is None
    return [one[key] for page in pages for one in page.rows]


def test_every_list_has_each_row_once(database: Database) -> None:
    """Forth and back, in an order that is the same each time."""
    for table, (key, ask) in LISTS.items():
        with database.begin() as connection:
            every = set(connection.execute(sa.select(table.c[key])).scalars())
        found = read(database, ask, key)
        assert (len(found), set(found)) == (COUNT, every), table.name
        assert read(database, ask, key) == found, table.name


def test_a_cursor_is_of_its_list(database: Database) -> None:
    """That of another one is refused, and so is a hand-made one."""
    with database.begin() as connection:
        cursors = {table: ask(connection, limit=2, cursor=None).next for table, (_, ask) in LISTS.items()}
        for table, (_, ask) in LISTS.items():
            for other, cursor in cursors.items():
                if other is not table:
                    with pytest.raises(CursorRefusedError):
                        ask(connection, limit=2, cursor=cursor)


def test_events_are_found_by_what_they_are(database: Database) -> None:
    """Each filter alone and together; every word of a search."""
    with database.begin() as connection:
        for kind, code, text in (("update", "committed", "Done on cam-1"), ("update", "refused", "100 % done")):
            event = row(EVENTS, 9, kind=kind, code=code, text=text, device="x", severity="error", record="act")
            connection.execute(EVENTS.insert(), event)

        def found(**filters: str) -> list[str]:
            rows = event_page(connection, EventFilter(**filters), limit=9, cursor=None).rows
            return [one["code"] for one in rows]

        assert found(kind="update") == ["refused", "committed"]
        assert found(device="x", code="refused", record="act", severity="error") == ["refused"]
        assert found(search="DONE cam") == ["committed"]
        assert found(search="100 %") == ["refused"]
        assert found(search="1%n") == found(search="do\0") == found(kind="up\0date") == []


def test_verdicts_are_found_by_device_and_whether_they_are_open(database: Database) -> None:
    """A device's id is not found in a longer one."""
    with database.begin() as connection:
        for number, devices in enumerate((["cam-1", "cam-22"], ["cam-2"], ['we"ird'])):
            verdict = row(VERDICTS, 9, devices=devices, closed_ms=number, kind="site", model="m", key=f"{number}")
            connection.execute(VERDICTS.insert(), verdict)

        def found(**filters: object) -> list[str]:
            wanted: dict[str, Any] = {
                "is_open": None,
                "kind": "site",
                "model": "",
                "release": "",
                "device": "",
            } | filters
            return [one["key"] for one in drift.verdict_page(connection, **wanted, limit=9, cursor=None).rows]

        assert found() == ["2", "1", "0"]
        assert found(device="cam-2") == ["1"]
        assert found(device='we"ird') == ["2"]
        assert (found(is_open=True), found(is_open=False), found(model="n")) == (["0"], ["2", "1"], [])


def test_releases_are_found_by_name_and_whether_they_are_withdrawn(database: Database) -> None:
    """The oldest first."""
    with database.begin() as connection:
        gone = row(RELEASES, 9, name="Cam-3", withdrawn_ms=5, registered_ms=99)
        connection.execute(RELEASES.insert(), gone)

        def found(*, name: str = "", search: str = "", withdrawn: bool | None = None) -> list[str]:
            page = release_page(connection, name=name, search=search, withdrawn=withdrawn, limit=9, cursor=None)
            return [one["name"] for one in page.rows]

        assert found(search="cam") == found(withdrawn=True) == found(name="Cam-3") == ["Cam-3"]
        assert found(withdrawn=False) == [f"m-{index}" for index in range(COUNT)]
        assert found(search="\0") == []


def test_samples_that_wait_come_oldest_first_and_each_image_once(database: Database) -> None:
    """And an expired one never."""
    with database.begin() as connection:
        for seq, sha256, label, expired_ms in (
            (10, "a", None, 0),
            (11, "a", None, 0),
            (12, "b", "1", 0),
            (13, "c", None, 9),
        ):
            sample = row(
                SAMPLES, seq, sha256=sha256, label=label, expired_ms=expired_ms, model="cam", device="x", boot="b"
            )
            connection.execute(SAMPLES.insert(), sample)

        def found(**filters: object) -> list[int]:
            wanted: dict[str, Any] = {
                "unlabelled": False,
                "device": "",
                "model": "cam",
                "lane": "",
                "label": "",
            } | filters
            return [one["seq"] for one in learning.sample_page(connection, **wanted, limit=9, cursor=None).rows]

        assert found() == [12, 11, 10]
        assert found(unlabelled=True) == [10]
        assert (found(label="1"), found(device="y"), found(lane="audit")) == ([12], [], [])
