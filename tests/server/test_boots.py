"""A device's events in the order in which they happened, whatever the order in which they arrived."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from server.ingest.write_batch import Mention, places
from wire.messages import DeviceState, Event, State

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet

PHASES = ("offered", "downloading", "verifying", "staged", "probation", "committed")
OLD, NEW = "11" * 8, "00" * 8


def order(*mentions: Mention) -> list[str]:
    """Return the boots that were mentioned, oldest first."""
    found: dict[str, int] = {}
    for mention in mentions:
        found |= places(found, [mention])
    return sorted(found, key=lambda boot: found[boot])


def test_boots_that_say_that_they_run_follow_one_another() -> None:
    """Names have no order, and a repeated one changes nothing."""
    assert order(Mention("b", True), Mention("a", True), Mention("b", True), Mention("c", True)) == ["b", "a", "c"]


def test_boots_first_heard_of_late_go_before_the_one_that_runs_in_the_order_they_come() -> None:
    """Stored events of a device arrive oldest first, after the running boot has reported."""
    assert order(Mention("a", True), Mention("d", True), Mention("b", False), Mention("c", False)) == list("abcd")


def test_the_next_boot_comes_after_many_late_ones() -> None:
    """There is room between two boots, and a place is never given twice."""
    late = [Mention(f"late-{number:03}", False) for number in range(500)]
    found = order(Mention("a", True), Mention("b", True), *late, Mention("c", True))
    assert found == ["a", *(mention.boot for mention in late), "b", "c"]


def test_places_of_one_batch_are_given_once_and_a_known_boot_keeps_its_own() -> None:
    """Also after a boot that is known already; far from the newest there is nothing to fill."""
    known = {"a": 7, "b": 5 * 2**20}
    found = places(known, [Mention("b", True), Mention("x", False), Mention("y", False), Mention("c", True)])
    assert found == {"x": 4 * 2**20 + 1, "y": 4 * 2**20 + 2, "c": 6 * 2**20}


@pytest.fixture
def cam(fleet: MemoryFleet) -> FakeDevice:
    """An enrolled device."""
    return fleet.enrol("cam-1")


def say(device: FakeDevice, seq: int, code: str, boot: str = OLD) -> None:
    """Let a device send an event whose time is of no use."""
    device.say("event", Event(boot=boot, seq=seq, oldest_seq=1, at_ms=1_000_000_000 - seq, kind="update", code=code))


def codes(fleet: MemoryFleet) -> list[str]:
    """Return the codes of the update events, oldest first, the same by every way of asking."""
    client, log = fleet.client(), fleet.app.parts.events
    ways = [
        [one["code"] for one in client.get(f"/api/events?device=cam-1{more}").json()["events"] if one["seq"]]
        for more in ("", "&after=0")
    ]
    ways.append([one.code for one in reversed(log.latest(100)) if one.seq])
    assert ways[0] == ways[1] == ways[2]
    return ways[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_events_in_any_order_of_arrival_are_shown_as_they_happened(
    fleet: MemoryFleet, cam: FakeDevice, seed: int
) -> None:
    """Redelivered rows arrive late; their numbers give the order."""
    every_order = list(itertools.permutations(enumerate(PHASES, 1)))
    for seq, code in every_order[37 * seed]:
        say(cam, seq, code)
        if seq % 2:
            fleet.turn()
    fleet.turn()
    assert codes(fleet) == list(PHASES)


def test_what_an_earlier_boot_kept_is_shown_before_what_this_one_says(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The server was down during the restart: it learns of the new boot first, whose numbers start at 1 again."""
    cam.say("state", State(state=DeviceState.READY, at_ms=1, boot=NEW))
    say(cam, 1, "committed", NEW)
    fleet.turn()
    for seq, code in enumerate(PHASES[:-1], 1):
        say(cam, seq, code, OLD)
    fleet.turn()
    assert codes(fleet) == list(PHASES)


def test_the_server_s_own_entries_stay_where_they_were_noted(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """They have no number of the device; only the device's own change places with each other."""
    say(cam, 2, "second")
    fleet.turn()
    fleet.app.parts.events.add(fleet.clock(), "rollout", "noted", fleet.app.parts.events.latest(1)[0].severity, "")
    say(cam, 1, "first")
    fleet.turn()
    found = [one.code for one in fleet.app.parts.events.after(0) if one.kind in {"update", "rollout"}]
    assert found == ["first", "noted", "second"]


@pytest.mark.stores
def test_who_follows_the_log_misses_and_repeats_nothing(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """``last_id`` is the highest id, which is not always the last one's."""
    say(cam, 2, "second")
    fleet.turn()
    say(cam, 1, "first")
    fleet.turn()
    answer = fleet.client().get("/api/events?after=0").json()
    assert answer["last_id"] == max(one["id"] for one in answer["events"]) != answer["events"][-1]["id"]
    say(cam, 3, "third")
    fleet.turn()
    more = fleet.client().get(f"/api/events?after={answer['last_id']}").json()
    assert [one["code"] for one in more["events"]] == ["third"]


@pytest.mark.parametrize(("boot", "said"), [(OLD, DeviceState.READY), (NEW, DeviceState.LOST)])
def test_the_will_of_a_boot_that_is_over_says_nothing_about_the_device(
    fleet: MemoryFleet, cam: FakeDevice, boot: str, said: DeviceState
) -> None:
    """It is published when the broker drops the old connection, maybe long after the device is back."""
    for running in (OLD, NEW):
        cam.say("state", State(state=DeviceState.READY, at_ms=1, boot=running))
    fleet.turn()
    cam.say("state", State(state=DeviceState.LOST, at_ms=1, boot=boot))
    fleet.turn()
    assert fleet.app.parts.fleet.device("cam-1").state is said
