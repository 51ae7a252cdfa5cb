"""Tags and names that people give devices, and the rollouts and lists that choose by them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from server.cli import main
from server.errors import DeviceEndedError, TagsRefusedError
from server.fleet.naming import MAX_TAGS, DeviceNaming
from server.people import Actor, ActorKind
from server.rollout.scope import Scope
from server.store.lists.devices import DeviceFilter, DeviceSort, device_page
from wire.errors import NameRefusedError

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

ANN = Actor(account="ann", kind=ActorKind.USER)


def naming_of(fleet: MemoryFleet) -> DeviceNaming:
    """Return the tags and names of the fleet."""
    return DeviceNaming(fleet=fleet.app.parts.fleet, clock=fleet.clock)


def listed(fleet: MemoryFleet, **wanted: str) -> list[str]:
    """Return the ids of the devices that a list has."""
    with fleet.app.parts.database.begin() as connection:
        found = device_page(
            connection, DeviceFilter(**wanted), sort=DeviceSort.DEVICE, descending=False, limit=9, cursor=None,  # type: ignore[arg-type]
            now_ms=0, silent_ms=1,
        )  # fmt: skip
    return [str(row["device"]) for row in found.rows]


def test_tags_come_and_go_with_an_event_that_names_who_did_it(fleet: MemoryFleet) -> None:
    """What changes nothing is no event."""
    fleet.enrol("cam-1")
    naming = naming_of(fleet)
    assert naming.tag("cam-1", ["night", "indoor"], by=ANN).tags == ("indoor", "night")
    assert naming.tag("cam-1", ["outdoor"], ["indoor", "never"], by=ANN).tags == ("night", "outdoor")
    naming.tag("cam-1", ["night"], by=ANN)
    events = [event for event in fleet.app.parts.events.after(0) if event.code == "tagged"]
    assert [event.text for event in events] == [
        "cam-1 was tagged by ann: +indoor +night", "cam-1 was tagged by ann: +outdoor -indoor",
    ]  # fmt: skip
    assert events[1].data == {"added": ["outdoor"], "removed": ["indoor"], "by": "ann"}
    assert {event.record for event in events} == {"act"}


@pytest.mark.parametrize("title", ["Gate\t1", "Gate\n", "Gate\x1b[31m", "Gate\x1f1", "\ud800", "x" * 101])
def test_a_name_that_does_not_print_is_refused_by_the_character(fleet: MemoryFleet, title: str) -> None:
    """A tab or a line end is not made a blank unseen: the person learns where it stands."""
    fleet.enrol("cam-1")
    with pytest.raises(TagsRefusedError, match=r"U\+[0-9A-F]{4} as character \d|at most 100 characters, got 101"):
        naming_of(fleet).rename("cam-1", title)
    assert fleet.app.parts.fleet.device("cam-1").title == ""


@pytest.mark.parametrize("act", ["revoke", "retire", "remove", "commission"])
def test_a_reason_that_does_not_print_is_refused_and_nothing_happens(fleet: MemoryFleet, act: str) -> None:
    """An escape in a reason would reach the terminals of those who read it; line ends may be in it."""
    fleet.enrol("cam-1")
    client = fleet.client()
    answer = client.post(f"/api/devices/cam-1/{act}", json={"why": "lens\x1b[2J", "by": "ada"})
    assert (answer.status_code, answer.json()["code"]) == (422, "text_refused")
    assert "U+001B as character 5" in answer.json()["text"]
    assert fleet.app.parts.fleet.device("cam-1").ended == ""
    assert client.post(f"/api/devices/cam-1/{act}", json={"why": "lens\nbroken", "by": "ada"}).status_code < 300


def test_a_name_is_shown_beside_the_id_until_it_is_taken_off(fleet: MemoryFleet) -> None:
    """Blanks are one; the same name again is no event."""
    fleet.enrol("cam-1")
    naming = naming_of(fleet)
    assert naming.rename("cam-1", " Gate,  north ", by=ANN).title == "Gate, north"
    naming.rename("cam-1", "Gate, north", by=ANN)
    assert naming.rename("cam-1", "", by=ANN).title == ""
    texts = [event.text for event in fleet.app.parts.events.after(0) if event.code == "renamed"]
    assert texts == ["cam-1 was named 'Gate, north' by ann", "The name of cam-1 was taken off by ann"]


def test_refuses_what_is_no_tag_or_name_and_changes_nothing(fleet: MemoryFleet) -> None:
    """Other characters, too many, both to get and to lose, too long, control characters, a device that left."""
    fleet.enrol("cam-1")
    naming = naming_of(fleet)
    many = [f"t{number}" for number in range(MAX_TAGS)]
    assert len(naming.tag("cam-1", many).tags) == MAX_TAGS
    for add, remove, error in (
        (["Night!"], [], NameRefusedError), (["one-more"], [], TagsRefusedError), (["a"], ["a"], TagsRefusedError),
    ):  # fmt: skip
        with pytest.raises(error):
            naming.tag("cam-1", add, remove)
    for title in ("x" * 101, "a\x07b"):
        with pytest.raises(TagsRefusedError):
            naming.rename("cam-1", title)
    assert set(fleet.app.parts.fleet.device("cam-1").tags) == set(many)
    fleet.app.parts.revocations.revoke("cam-1")
    with pytest.raises(DeviceEndedError):
        naming.tag("cam-1", ["night"])


def test_a_removed_device_loses_its_tags_and_a_revoked_one_keeps_them(fleet: MemoryFleet) -> None:
    """Under the id of a removed one other hardware may enrol, which nobody tagged."""
    parts = fleet.app.parts
    for name in ("cam-1", "cam-2"):
        fleet.enrol(name)
        naming_of(fleet).tag(name, ["night"])
        naming_of(fleet).rename(name, "Gate")
    parts.revocations.revoke("cam-1")
    parts.revocations.remove("cam-2")
    for name in ("cam-1", "cam-2"):
        fleet.enrol(name)
    assert [(device.tags, device.title) for device in parts.fleet.devices()] == [(("night",), "Gate"), ((), "")]


@pytest.mark.stores
def test_lists_choose_by_a_whole_tag_and_search_finds_parts_of_tags_and_names(fleet: MemoryFleet) -> None:
    """``night`` is not ``nightly``, and what has a meaning in a pattern has none here."""
    for name, tag in (("cam-1", "night"), ("cam-2", "nightly"), ("cam-3", "n_ght")):
        fleet.enrol(name)
        naming_of(fleet).tag(name, [tag, "other"])
    naming_of(fleet).rename("cam-3", "Gate")
    assert listed(fleet, tag="night") == ["cam-1"]
    assert listed(fleet, tag="n_ght") == ["cam-3"]
    assert listed(fleet, tag="igh") == []
    assert listed(fleet, search="night") == ["cam-1", "cam-2"]
    assert listed(fleet, search="gate") == ["cam-3"]


def test_a_scope_of_tags_holds_for_devices_with_one_of_them(fleet: MemoryFleet) -> None:
    """The others are told what they have."""
    for name, tags in (("cam-1", ["night", "a"]), ("cam-2", ["day"]), ("cam-3", [])):
        fleet.enrol(name)
        naming_of(fleet).tag(name, tags)
    scope, devices = Scope(tags=("night", "dusk")), fleet.app.parts.fleet.devices()
    assert [scope.mismatch(device, "m") for device in devices] == [
        "", "its tags are day, and the scope is night, dusk", "its tags are none, and the scope is night, dusk",
    ]  # fmt: skip
    assert scope.text == "tagged night, dusk"
    assert scope.names_devices
    assert Scope.of({"tags": ["night"]}) == Scope(tags=("night",))


def test_rest_and_commands_tag_and_name(fleet: MemoryFleet) -> None:
    """What one writes the other reads; REST refuses with a code."""
    fleet.enrol("cam-1")
    client = fleet.client()
    said = client.post("/api/devices/cam-1/tags", json={"add": ["night"], "by": "ann"})
    assert said.json() == {"device": "cam-1", "tags": ["night"], "title": ""}
    assert client.post("/api/devices/cam-1/title", json={"title": "Gate"}).json()["title"] == "Gate"
    both = client.post("/api/devices/cam-1/tags", json={"add": ["a"], "remove": ["a"]})
    assert (both.status_code, both.json()["code"]) == (422, "tags_refused")
    assert client.get("/api/devices?tag=night").json()["devices"][0]["title"] == "Gate"
    assert client.get("/api/devices?tag=day").json()["devices"] == []
    path = str(fleet.state.path)
    done = CliRunner().invoke(main, ["devices", "tag", path, "cam-1", "day", "--remove", "night"])
    assert (done.exit_code, done.stdout) == (0, "day\n")
    assert CliRunner().invoke(main, ["devices", "rename", path, "cam-1", ""]).stdout == "cam-1\t\n"
    assert "cam-1" in CliRunner().invoke(main, ["devices", "list", path, "--tag", "day"]).stdout
    assert [device.tags for device in fleet.app.parts.fleet.devices()] == [("day",)]
