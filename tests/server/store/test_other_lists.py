"""The lists of drift, learning, events, releases and people, a page at a time, on every database."""

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
from server.store.lists.people import ActFilter, act_page, token_page, user_page
from server.store.lists.registry import release_page
from server.store.monitoring.evidence import EVIDENCE, POOLS, VERDICTS
from server.store.people.accounts import TOKENS, USERS
from server.store.people.audit_log import AUDIT_LOG
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
    USERS: ("name", lambda connection, **place: user_page(connection, search="", role="", disabled=None, **place)),
    TOKENS: ("id", lambda connection, **place: token_page(
        connection, search="", owner="", valid=None, now_ms=5, **place)),
    AUDIT_LOG: ("seq", lambda connection, **place: act_page(connection, ActFilter(), **place)),
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
           "verdict": index, "path": f"p{index}", "seq": index, "sha256": f"{index}", "name": f"m-{index}",
           "token_sha256": f"{index}"}  # fmt: skip
    own |= {"id": f"j{index}"} if table in (JOBS, TOKENS) else {}
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


def test_a_cursor_is_of_its_filters(database: Database) -> None:
    """Those of another filter are refused with a reason, forth and back; the same filters and another limit go on."""

    def ask(connection: sa.Connection, device: str = "", cursor: str | None = None, limit: int = 1) -> Rows:
        return drift.evidence_page(connection, device=device, limit=limit, cursor=cursor)

    with database.begin() as connection:
        everybody, one = ask(connection), ask(connection, "d0")
        assert len(ask(connection, "d0", one.next, 9).rows) == 1
        assert len(ask(connection, "", everybody.next, 9).rows) == COUNT - 1
        back = ask(connection, "d0", one.next).previous
        for device, cursor in (("d0", everybody.next), ("d1", one.next), ("", one.next), ("d1", back)):
            with pytest.raises(CursorRefusedError, match="of others: leave cursor out, or give the same"):
                ask(connection, device, cursor)


def test_a_cursor_of_valid_tokens_holds_later(database: Database) -> None:
    """Whether a token is valid depends on the time, the cursor does not."""

    def ask(now_ms: int, cursor: str | None = None) -> Rows:
        return token_page(connection, search="", owner="", valid=True, now_ms=now_ms, limit=2, cursor=cursor)

    with database.begin() as connection:
        first = ask(5)
        assert len(ask(6, first.next).rows) == 2


def test_retrainings_that_go_on_come_first_on_a_page(database: Database) -> None:
    """Then the others, each newest first; a cursor is of one of both orders."""
    with database.begin() as connection:
        connection.execute(TRIGGERS.update().where(TRIGGERS.c.id == 2).values(phase="training"))

        def ask(cursor: str | None = None, first: tuple[str, ...] = ("training",)) -> Rows:
            return learning.trigger_page(connection, model="", phase="", limit=2, cursor=cursor, first=first)

        page = ask()
        assert [one["id"] for one in page.rows + ask(page.next).rows] == [2, 5, 4, 3]
        with pytest.raises(CursorRefusedError):
            ask(page.next, ())


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


def test_people_and_tokens_are_found_by_what_they_are(database: Database) -> None:
    """By words in the name or the owner, by role, and by whether they can still be used."""
    with database.begin() as connection:
        connection.execute(USERS.insert(), row(USERS, 9, name="ada", role="admin"))
        connection.execute(USERS.insert(), row(USERS, 9, name="bob", role="viewer", disabled_ms=4))
        for index, changes in enumerate((
            {"name": "notebook", "owner": "ada"}, {"name": "grafana", "expires_ms": 5},
            {"name": "old", "revoked_ms": 3}, {"name": "100%", "expires_ms": 6},
        ), start=10):  # fmt: skip
            connection.execute(TOKENS.insert(), row(TOKENS, index, **changes))

        def users(search: str = "", role: str = "", disabled: bool | None = None) -> list[str]:  # noqa: FBT001
            page = user_page(connection, search=search, role=role, disabled=disabled, limit=99, cursor=None)
            return [one["name"] for one in page.rows if not one["name"].startswith("m-")]

        def tokens(search: str = "", owner: str = "", valid: bool | None = None) -> list[str]:  # noqa: FBT001
            page = token_page(
                connection, search=search, owner=owner, valid=valid, now_ms=5, limit=99, cursor=None
            )  # fmt: skip
            return [one["name"] for one in page.rows if not one["name"].startswith("m-")]

        assert [users(), users("AD"), users(role="viewer"), users(disabled=True), users(disabled=False)] == [
            ["ada", "bob"], ["ada"], ["bob"], ["bob"], ["ada"],
        ]  # fmt: skip
        assert [tokens("ad"), tokens("gra"), tokens("%"), tokens(owner="ada")] == [
            ["notebook"], ["grafana"], ["100%"], ["notebook"],
        ]  # fmt: skip
        assert [tokens(valid=True), tokens(valid=False)] == [["100%", "notebook"], ["old", "grafana"]]
        assert [users("\0"), tokens("a\0"), users(role="\0")] == [[], [], []]


def test_acts_are_found_by_person_act_subject_and_time(database: Database) -> None:
    """A program's act also by whom it names; the first part of a code stands for all of them."""
    with database.begin() as connection:
        for seq, changes in enumerate((
            {"account": "ada", "act": "rollout.approve", "subject": "r1", "at_ms": 10},
            {"account": "robot", "said": "ada", "act": "rollout.abort", "subject": "r1", "at_ms": 20},
            {"account": "bob", "act": "login", "subject": "bob", "at_ms": 30},
            {"account": "bob", "act": "rollouts", "subject": "R10", "at_ms": 40},
        ), start=100):  # fmt: skip
            connection.execute(AUDIT_LOG.insert(), row(AUDIT_LOG, seq, **changes))

        def acts(**wanted: object) -> list[int]:
            page = act_page(connection, ActFilter(**wanted), limit=99, cursor=None)  # type: ignore[arg-type]
            return [one["seq"] for one in page.rows if one["seq"] >= 100]

        assert [acts(), acts(person="ada"), acts(person="ad")] == [[103, 102, 101, 100], [101, 100], []]
        assert [acts(act="rollout"), acts(act="rollout.abort"), acts(act="login")] == [[101, 100], [101], [102]]
        assert [acts(subject="r1"), acts(search="r1"), acts(search="r 0")] == [[101, 100], [103, 101, 100], [103]]
        assert [acts(since_ms=20, until_ms=30), acts(until_ms=20), acts(since_ms=40)] == [[101], [100], [103]]
        assert [acts(person="\0"), acts(act="\0"), acts(act="a\0.b"), acts(search="\0"), acts(subject="\0")] == [[]] * 5
