"""Lists over HTTP: a page at a time, with filters, and never a part that looks like the whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from server.api import devices
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
