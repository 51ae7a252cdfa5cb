"""Lists over HTTP: a page at a time, with filters, and never a part that looks like the whole."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from server.api import devices, health, rollouts
from server.errors import CursorRefusedError
from server.rollout.figures.members import FIRST
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from server.store.lists.paging import names_page
from wire.messages import DeviceState, InstalledRelease, Reported, State

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


@pytest.fixture
def five(fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> MemoryFleet:
    """A fleet of five devices, one of them degraded; an answer has two by default."""
    monkeypatch.setattr(devices, "_SHOWN", 2)
    for index in range(5):
        device = fleet.enrol(f"cam-{index}", "north" if index < 3 else "south")
        state = DeviceState.DEGRADED if index == 1 else DeviceState.READY
        device.say("state", State(state=state, at_ms=fleet.clock()))
        device.say("reported", Reported(at_ms=fleet.clock(), current=InstalledRelease(f"m-{index % 2}", "0" * 64)))
    fleet.turn()
    return fleet


def test_the_pages_of_a_list_are_all_of_it(five: MemoryFleet) -> None:
    """``next`` leads on until it is null; the first page says how many there are."""
    client, found, query = five.client(), [], {"limit": "2"}
    while True:
        answer = client.get("/api/devices", params=query).json()
        assert answer["total"] == (None if "cursor" in query else 5)
        found += [one["device"] for one in answer["devices"]]
        if answer["next"] is None:
            break
        query["cursor"] = answer["next"]
    assert found == [f"cam-{index}" for index in range(5)]


def test_a_script_that_asks_for_no_page_gets_everything_or_an_error(five: MemoryFleet) -> None:
    """A first page without a word would look like the whole fleet."""
    client = five.client()
    answer = client.get("/api/devices")
    assert (answer.status_code, answer.json()["code"]) == (422, "page_needed")
    assert "list of 5 entries" in answer.json()["text"]
    assert [one["device"] for one in client.get("/api/devices?site=south").json()["devices"]] == ["cam-3", "cam-4"]


def test_filters_are_of_the_server(five: MemoryFleet) -> None:
    """Each alone, and together."""
    client = five.client()

    def listed(query: str) -> list[str]:
        return [one["device"] for one in client.get(f"/api/devices?limit=9&{query}").json()["devices"]]

    assert listed("condition=failing") == ["cam-1"]
    assert listed("state=degraded") == ["cam-1"]
    assert listed("release=m-1&site=south") == ["cam-3"]
    assert listed("search=SOUTH") == ["cam-3", "cam-4"]
    assert listed("sort=site&descending=true")[0] == "cam-3"
    assert listed("search=nothing") == []


def test_refuses_what_no_list_has(five: MemoryFleet) -> None:
    """With a code, and without a stack."""
    for query in (
        "limit=0", "limit=1001", "limit=x", "cursor=", "cursor=x", "cursor=%00", "condition=sad", "sort=colour",
        "colour=red", "descending=perhaps", "search=" + "x" * 201,
    ):  # fmt: skip
        answer = five.client().get(f"/api/devices?{query}")
        assert (answer.status_code, answer.json()["code"]) in {(422, "request_invalid"), (422, "cursor_refused")}, query


def test_odd_words_find_nothing(five: MemoryFleet) -> None:
    """And break nothing."""
    for query in ("search=%00", "search=cam%00", "site=%F0%9F%A6%8A", "search=%25", "search=%22%5C", "release=%FF"):
        answer = five.client().get(f"/api/devices?{query}")
        assert (answer.status_code, answer.json().get("devices")) == (200, []), query


def test_rollouts_and_their_devices_come_in_pages(five: MemoryFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list has no devices of a large rollout, and says so by null; they have a list of their own, with filters."""
    monkeypatch.setattr(rollouts, "_SHOWN", 2)
    monkeypatch.setattr(rollouts, "_MEMBERS_SHOWN", 2)
    monkeypatch.setattr(rollouts, "_MEMBERS_IN_A_LIST", 1)
    for number, count in (("r1", 1), ("r2", 2), ("r3", 3)):
        add_rollout(five, number, count)
    client = five.client()
    assert client.get("/api/rollouts").json()["code"] == "page_needed"
    first = client.get("/api/rollouts?limit=2").json()
    assert [(one["id"], one["devices"], one["members"]) for one in first["rollouts"]] == [
        ("r3", 3, None), ("r2", 2, None),
    ]  # fmt: skip
    (last,) = client.get("/api/rollouts", params={"limit": 2, "cursor": first["next"]}).json()["rollouts"]
    assert (last["id"], last["committed"], len(last["members"])) == ("r1", 1, 1)
    assert [one["id"] for one in client.get("/api/rollouts?release=m-r2").json()["rollouts"]] == ["r2"]
    whole = [client.get(f"/api/rollouts/{one}").json()["members"] for one in ("r2", "r3")]
    assert (len(whole[0]), whole[1]) == (
        2, None,
    )  # fmt: skip
    assert client.get("/api/rollouts/r3/members").json()["code"] == "page_needed"
    page = client.get("/api/rollouts/r3/members?limit=2").json()
    rest = client.get("/api/rollouts/r3/members", params={"limit": 2, "cursor": page["next"]}).json()
    assert ([one["device"] for one in page["members"] + rest["members"]], page["total"], rest["next"]) == (
        ["cam-0", "cam-1", "cam-2"], 3, None,
    )  # fmt: skip
    assert client.get("/api/rollouts/r3/members?standing=failed").json()["members"] == []
    assert len(client.get("/api/rollouts/r3/members?search=AM-1&standing=committed&group=0").json()["members"]) == 1
    assert client.get("/api/rollouts/none/members").status_code == 404
    assert client.get("/api/rollouts/r3/members?standing=well").status_code == 422


def test_a_rollout_that_is_over_is_described_once_and_one_that_goes_on_each_time(five: MemoryFleet) -> None:
    """What is kept is never of before a change."""
    add_rollout(five, "r1", 2)
    add_rollout(five, "r2", 2, RolloutPhase.RUNNING)
    client, ledger = five.client(), five.app.parts.rollouts.ledger

    def committed() -> dict[str, int]:
        return {one["id"]: one["committed"] for one in client.get("/api/rollouts").json()["rollouts"]}

    assert committed() == {"r1": 2, "r2": 2}
    ledger.change_member("r2", "cam-0", {"standing": "failed"})
    assert committed() == {"r1": 2, "r2": 1}
    ledger.change("r2", {"phase": "succeeded"}, five.clock())
    assert committed() == {"r1": 2, "r2": 1}


def test_the_devices_of_a_rollout_are_read_again_only_after_a_change(five: MemoryFleet) -> None:
    """Of one that goes on as of one that is over; by whoever asks."""
    parts, asked = five.app.parts, []
    add_rollout(five, "r1", 3, RolloutPhase.RUNNING)

    def note(_c: object, _u: object, statement: str, *_rest: object) -> None:
        if "FROM rollout_members" in statement:
            asked.append(statement)

    sa.event.listen(parts.database.engine, "before_cursor_execute", note)
    client = five.client()
    for _ in range(3):
        assert client.get("/api/rollouts/r1").json()["committed"] == 3
    parts.rollouts.ledger.change_member("r1", "cam-0", {"standing": "failed"})
    for _ in range(3):
        assert client.get("/api/rollouts/r1").json()["committed"] == 2
    assert len(asked) == 2


def test_a_list_does_not_read_the_devices_of_rollouts_that_are_over(five: MemoryFleet) -> None:
    """Their figures come from the database as figures, with the few devices that it names, if it names all."""
    add_rollout(five, "r1", 1)
    add_rollout(five, "r2", 90)
    read: list[int] = []

    def note(_c: object, cursor: sqlite3.Cursor, statement: str, parameters: tuple[str, ...], *_rest: object) -> None:
        if "rollout_members.retried_from" in statement:
            read.append(len(cursor.connection.execute(statement, parameters).fetchall()))

    sa.event.listen(five.app.parts.database.engine, "before_cursor_execute", note)
    large, small = five.client().get("/api/rollouts").json()["rollouts"]
    assert (large["committed"], large["devices"], large["members"]) == (90, 90, None)
    assert (small["committed"], small["devices"], len(small["members"])) == (1, 1, 1)
    assert read == [FIRST, 1]


def add_rollout(fleet: MemoryFleet, number: str, count: int, phase: RolloutPhase = RolloutPhase.SUCCEEDED) -> None:
    """Store a rollout on which ``count`` devices committed; later ones are newer."""
    members = tuple(Member(device=f"cam-{index}", group=0, standing=MemberStanding.COMMITTED) for index in range(count))
    group = Group(name="canary", success_ratio=1.0, error_ratio=0.1)
    fleet.app.parts.rollouts.ledger.add(
        Rollout(
            id=number, release=f"m-{number}", groups=(group,), phase=phase, opened=1, created_ms=int(number[1:]),
            updated_ms=1, members=members,
        )
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 4, 5])
def test_a_list_of_names_is_read_in_both_directions(count: int) -> None:
    """Each name once, sorted; a name that goes or comes between two pages hides no other."""
    names = [f"n-{index}" for index in range(count)]
    found: list[str] = []
    pages: list[tuple[str, ...]] = []
    page = names_page("names", [*names[::-1], *names], 2, None)
    assert (page.total, page.previous) == (count, None)
    while True:
        found += page.rows
        pages.append(page.rows)
        if page.next is None:
            break
        page = names_page("names", names, 2, page.next)
    assert found == names
    back: list[tuple[str, ...]] = []
    while page.previous is not None:
        page = names_page("names", names, 2, page.previous)
        back.append(page.rows)
    assert [name for rows in back[::-1] for name in rows] == names[: len(names) - len(pages[-1])]
    if count == 5:
        second = names_page("names", names, 2, None).next
        assert names_page("names", ["n-0", "n-11", "n-2", "n-3"], 2, second).rows == ("n-11", "n-2")
        with pytest.raises(CursorRefusedError):
            names_page("other names", names, 2, second)


def test_the_status_stays_small_however_many_devices_a_concern_names(
    fleet: MemoryFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first names, how many there are, and the list of all, of which the server gives no part unasked."""
    monkeypatch.setattr(health, "_SHOWN", 60)
    for index in range(70):
        fleet.enrol(f"new-{index:02}")
    client = fleet.client()
    concerns = {one["signal"]: one for one in client.get("/api/overall").json()["concerns"]}
    never = concerns["never_seen"]
    assert (never["count"], len(never["names"]), never["text"][:10]) == (70, 50, "70 devices")
    assert client.get(never["address"]).json()["code"] == "page_needed"
    page = client.get(never["address"], params={"limit": 60}).json()
    rest = client.get(never["address"], params={"limit": 60, "cursor": page["next"]}).json()
    assert (page["names"] + rest["names"], page["total"]) == ([f"new-{index:02}" for index in range(70)], 70)
    assert client.get("/api/overall/sadness").json()["code"] == "unknown_signal"
    assert client.get("/api/overall/devices").status_code == 404
    assert client.get(never["address"], params={"cursor": "x"}).json()["code"] == "cursor_refused"
