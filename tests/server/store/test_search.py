"""The search over all: what each kind is found by, what comes first, and odd words; on every database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from server.search.find import Search
from server.store.database import Database, open_database
from server.store.fleet import DEVICES
from server.store.monitoring.evidence import VERDICTS
from server.store.people.accounts import USERS
from server.store.registry import RELEASES
from server.store.retraining import JOBS, SAMPLES
from server.store.rollouts import ROLLOUTS
from tests.server.store.test_other_lists import row

HOSTILE = "50%_\\'\""


@pytest.fixture
def search(empty_url: str) -> Iterator[Search]:
    """A few things of each kind."""
    database = open_database(empty_url)
    _fill(database)
    yield Search(database)
    database.close()


def _fill(database: Database) -> None:
    rows: tuple[tuple[sa.Table, dict[str, object]], ...] = (
        (DEVICES, {"device": "cam-1", "site": "north", "title": "Gate by the quay", "tags": " dock "}),
        (DEVICES, {"device": "cam-10", "site": "north"}),
        (DEVICES, {"device": "a-cam-1", "site": "cam"}),
        (DEVICES, {"device": "old-cam", "site": "south", "ended": "revoked"}),
        (DEVICES, {"device": "odd", "site": "x", "title": HOSTILE}),
        (RELEASES, {"name": "digits-1", "path": "a"}), (RELEASES, {"name": "digits-1", "path": "b"}),
        (RELEASES, {"name": "digits-10", "path": "c", "withdrawn_ms": 5}),
        (ROLLOUTS, {"id": "3f2a", "release": "digits-10", "phase": "awaiting_approval"}),
        (VERDICTS, {"kind": "cohort", "cause": "darker", "model": "digits", "release": "digits-1"}),
        (SAMPLES, {"device": "cam-1", "seq": 1, "label": "seven", "model": "digits"}),
        (SAMPLES, {"device": "zed", "seq": 2, "model": "digits"}),
        (JOBS, {"id": "job9", "model": "digits", "state": "failed", "worker": "gpu-host"}),
        (USERS, {"name": "ada", "role": "admin"}),
    )  # fmt: skip
    with database.begin() as connection:
        for index, (table, changes) in enumerate(rows):
            connection.execute(table.insert(), row(table, index, **changes))


def found(search: Search, text: str, *, each: int = 9, admin: bool = False) -> dict[str, list[str]]:
    """Return the texts of what is found, by kind."""
    return {one.kind: [thing.text for thing in one.things] for one in search.find(text, each=each, admin=admin)}


def test_each_kind_is_found_by_what_people_call_it(search: Search) -> None:
    """Id, name, tag and site of a device; id, model or release of the others; cause of a verdict; host of a job."""
    for text, kind, wanted in (
        ("QUAY", "device", ["Gate by the quay"]), ("dock", "device", ["Gate by the quay"]),
        ("south", "device", ["old-cam"]), ("gate north", "device", ["Gate by the quay"]),
        ("digits-1", "release", ["digits-1", "digits-10"]), ("3f", "rollout", ["digits-10"]),
        ("darker", "verdict", ["1: cohort"]), ("seven", "sample", ["1 of cam-1"]), ("2", "sample", ["2 of zed"]),
        ("gpu", "job", ["digits"]),
    ):  # fmt: skip
        assert found(search, text)[kind] == wanted, text


def test_what_is_closest_comes_first_and_what_left_the_fleet_last(search: Search) -> None:
    """The thing itself, then what begins so, then what has it somewhere."""
    assert found(search, "cam-1")["device"] == ["Gate by the quay", "cam-10", "a-cam-1"]
    assert found(search, "cam")["device"] == ["Gate by the quay", "cam-10", "a-cam-1", "old-cam"]


def test_only_admins_find_people(search: Search) -> None:
    """Others do not learn who there is."""
    assert found(search, "ada") == {}
    assert found(search, "ada", admin=True) == {"user": ["ada"]}


def test_more_is_said(search: Search) -> None:
    """A part never looks like the whole."""
    (devices,) = (one for one in search.find("cam", each=3, admin=False) if one.kind == "device")
    assert (len(devices.things), devices.more) == (3, True)
    (devices,) = (one for one in search.find("cam", each=4, admin=False) if one.kind == "device")
    assert devices.more is False


def test_odd_words_find_nothing_that_lacks_them(search: Search) -> None:
    """Nothing is a wildcard, a number of another script or an error."""
    for text in ("", "   ", "a\0b", "\0", "9" * 30, "\u0661", "'; DROP TABLE users", "x" * 999, "a%m"):
        assert found(search, text, admin=True) == {}, text
    for text in ("%", "\\"):
        assert found(search, text, admin=True) == {"device": [HOSTILE]}, text


def test_hostile_names_are_found_as_they_are(search: Search) -> None:
    """Each of their letters stands for itself."""
    assert found(search, HOSTILE) == {"device": [HOSTILE]}


def test_ten_thousand_devices_are_asked_for_a_few(search: Search) -> None:
    """The database returns what is shown and one more, however many there are."""
    read: list[bool] = []
    with search.database.begin() as connection:
        rows = [row(DEVICES, 0, device=f"dev-{index:05}", site="big") for index in range(10_000)]
        connection.execute(DEVICES.insert(), rows)

    def count(*called: object) -> None:
        read.append(" LIMIT " in str(called[2]))

    sa.event.listen(search.database.engine, "after_cursor_execute", count)
    assert found(search, "dev-0", each=4)["device"] == [f"dev-{index:05}" for index in range(4)]
    assert (len(read), all(read)) == (6, True)
