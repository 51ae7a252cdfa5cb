"""Lists on pages: their addresses, what visitors share, and what a page shows of a list that is odd, empty or gone."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.app.server import ServerApp
from server.app.state_directory import init_state
from server.dashboard.listing import FilterField, SharedLook, address, values_of
from server.dashboard.pages import overview
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from server.store.lists.devices import DeviceFilter
from server.trust.online_keys import init_online_keys
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Severity

FIELDS = (FilterField(name="search", label="Search"), FilterField(name="state", label="State", choices={"a": "A"}))


def test_an_address_has_the_filters_that_are_set() -> None:
    """So a link leads to the list, whatever characters a filter has."""
    assert address("/", {}) == "/"
    assert address("/", {"search": "a&b=ü", "site": ""}, cursor="x") == "/?search=a%26b%3D%C3%BC&cursor=x"
    assert address("/", {"search": "a", "cursor": "x"}, cursor="") == "/?search=a"


def test_a_filter_that_is_none_is_refused_and_not_left_out() -> None:
    """The list would look like another one."""
    assert values_of({"search": "x", "state": "a", "cursor": "c"}, FIELDS) == (
        {"search": "x", "state": "a", "cursor": "c"}, "",
    )  # fmt: skip
    assert values_of({"search": ""}, FIELDS) == ({}, "")
    for query, said in (
        ({"colour": "red"}, "'colour'"), ({"state": "b"}, "one of a, got 'b'"), ({"search": "x" * 201}, "got 201"),
    ):  # fmt: skip
        values, wrong = values_of(query, FIELDS)
        assert (values, said in wrong) == ({}, True)


def test_visitors_of_the_same_address_look_once() -> None:
    """Those of another one look for themselves, and who wants news gets them."""
    seen: list[str] = []
    look: SharedLook[str, int] = SharedLook(lambda asked: seen.append(asked) or len(seen))
    assert [look.get("a", 60), look.get("a", 60), look.get("b", 60), look.get("a", 60)] == [1, 1, 2, 1]
    assert look.get("a", -1) == 3
    assert seen == ["a", "b", "a"]


def test_visitors_who_come_together_look_once() -> None:
    """The second waits for what the first finds."""
    seen: list[str] = []
    inside, go = threading.Event(), threading.Event()

    def slow(asked: str) -> int:
        seen.append(asked)
        inside.set()
        go.wait(30)
        return len(seen)

    look: SharedLook[str, int] = SharedLook(slow)
    found: list[int] = []
    visitors = [threading.Thread(target=lambda: found.append(look.get("a", 60))) for _ in range(3)]
    visitors[0].start()
    inside.wait(30)
    for one in visitors[1:]:
        one.start()
    go.set()
    for one in visitors:
        one.join(30)
    assert (found, seen) == ([1, 1, 1], ["a"])


def test_who_has_seen_a_list_waits_for_nobody_who_looks_again() -> None:
    """The list is young enough to show; one that is too old is waited for."""
    inside, go, count = threading.Event(), threading.Event(), itertools.count(1)

    def look(_: str) -> int:
        number = next(count)
        if number == 2:
            inside.set()
            go.wait(30)
        return number

    shared: SharedLook[str, int] = SharedLook(look)
    assert shared.get("a", 60) == 1
    slow = threading.Thread(target=lambda: shared.get("a", -1))
    slow.start()
    inside.wait(30)
    assert shared.get("a", -1) == 1
    at_s, old = shared._kept["a"]
    shared._kept["a"] = (at_s - 60, old)
    late: list[int] = []
    waits = threading.Thread(target=lambda: late.append(shared.get("a", 30)))
    waits.start()
    go.set()
    for one in (slow, waits):
        one.join(30)
    assert late == [2]


def test_a_look_that_failed_is_not_kept() -> None:
    """The next visitor looks again."""
    answers = iter([OSError("gone"), 7])

    def look(_: str) -> int:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    shared: SharedLook[str, int] = SharedLook(look)
    with pytest.raises(OSError, match="gone"):
        shared.get("a", 60)
    assert shared.get("a", 60) == 7


def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    """An address may have anything in it: a visitor can't fill the memory with lists."""
    look: SharedLook[str, str] = SharedLook(lambda asked: asked)
    for index in range(500):
        look.get(str(index), 60)
    assert len(look._kept) == 64


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ServerApp, httpx.Client]]:
    """A server of five devices with two a page, and the client of who logged in."""
    monkeypatch.setattr(overview, "_ROWS", 2)
    state = init_state(tmp_path / "state")
    init_online_keys(state.path)
    app = ServerApp.open(state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"))
    for index in range(5):
        claim = app.parts.enrolment.claim("north" if index < 3 else "south", f"cam-{index}", {})
        app.parts.enrolment.enrol(claim)
    app.start()
    with httpx.Client(base_url=app.http_url, timeout=60) as client:
        client.post("/login", data={"token": app.state.token("operator")})
        yield app, client
    app.stop()


def shown(text: str) -> set[str]:
    """Return the devices in the table of a page."""
    return {f"cam-{index}" for index in range(5) if f"&quot;device&quot;:&quot;cam-{index}&quot;" in text
            or f'"device":"cam-{index}"' in text}  # fmt: skip


def test_the_overview_shows_a_page_of_devices_by_its_address(pages: tuple[ServerApp, httpx.Client]) -> None:
    """Filters, odd values, a device that leaves and a list that empties; no visitor is sent the whole fleet."""
    app, client = pages
    first = client.get("/").text
    assert shown(first) == {"cam-0", "cam-1"}
    assert "2 of 5 devices" in first
    assert shown(client.get("/?site=south").text) == {"cam-3", "cam-4"}
    assert shown(client.get("/?search=cam-2").text) == {"cam-2"}
    assert shown(client.get("/?sort=device&order=down").text) == {"cam-3", "cam-4"}
    assert "No device here" in client.get("/?condition=lost").text
    for odd in ("?colour=red", "?condition=sad", "?cursor=x", "?search=" + "x" * 300, "?sort=%00"):
        answer = client.get(f"/{odd}")
        assert (answer.status_code, shown(answer.text), "No such list" in answer.text) == (200, set(), True), odd
    evil = client.get("/?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").text
    assert "<script>alert(1)" not in evil
    cursor = app.parts.situation.listing.page(limit=2).next
    assert shown(client.get(f"/?cursor={cursor}").text) == {"cam-2", "cam-3"}
    south = app.parts.situation.listing.page(DeviceFilter(site="south"), limit=1).next
    app.parts.revocations.remove("cam-4", "gone")
    last = app.parts.situation.listing.page(limit=2, cursor=cursor)
    assert "No device here" in client.get(f"/?site=south&cursor={south}").text
    assert "No such list" in client.get(f"/?site=north&cursor={south}").text
    assert last.next is None


def test_a_rollout_has_a_page_of_its_devices(pages: tuple[ServerApp, httpx.Client]) -> None:
    """Those that failed, by the address; an unknown rollout is 404 in words."""
    app, client = pages
    standings = (MemberStanding.FAILED, MemberStanding.COMMITTED, MemberStanding.STUCK)
    app.parts.rollouts.ledger.add(
        Rollout(
            id="r1", release="m-1", phase=RolloutPhase.SUCCEEDED, opened=1, created_ms=1, updated_ms=1,
            groups=(Group(name="canary", success_ratio=1.0, error_ratio=0.1),),
            members=tuple(Member(device=f"cam-{index}", group=0, standing=one) for index, one in enumerate(standings)),
        )
    )  # fmt: skip
    assert "all 3 devices" in client.get("/rollouts").text
    assert shown(client.get("/rollouts/r1").text) == {"cam-0", "cam-1", "cam-2"}
    assert shown(client.get("/rollouts/r1?standing=failed").text) == {"cam-0"}
    assert shown(client.get("/rollouts/r1?search=2").text) == {"cam-2"}
    assert "No device here" in client.get("/rollouts/r1?standing=waiting").text
    assert "No such list" in client.get("/rollouts/r1?standing=well").text
    unknown = client.get("/rollouts/none")
    assert (unknown.status_code, "No such rollout" in unknown.text) == (404, True)
    assert "No rollout here" in client.get("/rollouts?phase=failed").text


def test_events_are_shown_by_the_address(pages: tuple[ServerApp, httpx.Client]) -> None:
    """A filter finds them, and one that finds none says so."""
    app, client = pages
    app.parts.events.add(1, "update", "committed", Severity.INFO, "all is well", device="cam-1")
    app.parts.events.add(2, "alarm", "degraded", Severity.ERROR, "all is lost", device="cam-2")
    assert shown(client.get("/events?kind=update").text) == {"cam-1"}
    assert shown(client.get("/events?severity=error&device=cam-2&search=LOST").text) == {"cam-2"}
    assert "No event here" in client.get("/events?search=nothing").text
    for odd in ("?severity=sad", "?cursor=x", "?limit=5"):
        assert "No such list" in client.get(f"/events{odd}").text, odd
