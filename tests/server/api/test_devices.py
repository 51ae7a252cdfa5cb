"""The registry over HTTP, from claim to history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wire.messages import DeviceState, InstalledRelease, Reported, Severity, State

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet


def test_from_claim_to_identity(fleet: MemoryFleet) -> None:
    """The device gets all it needs, once."""
    claim = fleet.client().post("/api/claims", json={"site": "berlin", "device": "cam-1"}).json()
    identity = fleet.client(None).post("/api/enrol", json=claim).json()
    root = (fleet.state.tuf / "1.root.json").read_text()
    assert (identity["site"], identity["device"], identity["root"]) == ("berlin", "cam-1", root)
    assert fleet.app.parts.enrolment.authenticate("cam-1", identity["password"])
    again = fleet.client(None).post("/api/enrol", json=claim)
    assert (again.status_code, again.json()["code"]) == (403, "claim_refused")


def test_without_a_root_nobody_enrols_and_no_claim_is_lost(fleet: MemoryFleet) -> None:
    """A device without a root of trust could never be updated."""
    root = fleet.state.tuf / "1.root.json"
    text = root.read_text()
    root.unlink()
    claim = fleet.client().post("/api/claims", json={"site": "berlin", "device": "cam-1"}).json()
    assert fleet.client(None).post("/api/enrol", json=claim).json()["code"] == "root_missing"
    root.write_text(text)
    assert fleet.client(None).post("/api/enrol", json=claim).status_code == 200


def test_what_ran_at_a_time(fleet: MemoryFleet) -> None:
    """From the transitions that the device reported."""
    device, start_ms = fleet.enrol(), fleet.clock()
    for hours, release in ((0, "m-1"), (2, "m-2"), (3, "m-1")):
        fleet.clock.now_ms = start_ms + hours * 3_600_000
        device.say("reported", Reported(at_ms=fleet.clock(), current=InstalledRelease(release, "0" * 64)))
        fleet.turn()
    ran = [
        fleet.client().get("/api/devices/cam-1/ran", params={"at_ms": start_ms + hours * 3_600_000}).json()
        for hours in (0, 1, 2, 9, -1)
    ]
    assert [answer.get("release") for answer in ran] == ["m-1", "m-1", "m-2", "m-1", None]
    assert ran[-1]["code"] == "unknown_device"


def test_a_device_as_operators_see_it(fleet: MemoryFleet) -> None:
    """Registry, state, report and pointer in one."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock()))
    fleet.turn()
    fleet.app.parts.fleet.set_config("cam-1", {"x": 1})
    (seen,) = fleet.client().get("/api/devices").json()["devices"]
    assert (seen["state"], seen["attributes"], seen["desired_gen"]) == ("ready", {"lens": "a"}, 1)
    assert seen["desired"]["config"] == {"x": 1}


def test_a_command_and_its_answer(fleet: MemoryFleet) -> None:
    """Sent at once, answered later."""
    device = fleet.enrol()
    sent = fleet.client().post("/api/devices/cam-1/commands", json={"verb": "selftest"}).json()
    assert device.heard[-1].topic == "tf/1/berlin/cam-1/cmd/selftest"
    answer = fleet.client().get(f"/api/devices/cam-1/commands/{sent['id']}").json()
    assert (answer["verb"], answer["answered_ms"]) == ("selftest", 0)


def test_events_follow_a_cursor(fleet: MemoryFleet) -> None:
    """Without a cursor the newest come first."""
    for code in ("a", "b", "c"):
        fleet.app.parts.events.add(1, "test", code, Severity.INFO, "text", device="cam-1")
    client = fleet.client()
    latest = client.get("/api/events?limit=2").json()["events"]
    assert [event["code"] for event in latest] == ["b", "c"]
    assert client.get(f"/api/events?after={latest[0]['id']}").json()["events"][0]["code"] == "c"
    assert client.get("/api/events?device=other").json()["events"] == []
