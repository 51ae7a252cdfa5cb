"""Muted devices raise no alert and no concern of their own, are named as muted, and are heard again afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from server.access.audit_log import AuditLog
from server.alerts.model import AlertKind, AlertState
from server.app.overall import Level
from server.cli import main
from server.drift.verdicts import VerdictKind
from server.errors import DeviceEndedError, MuteRefusedError
from server.people import Actor, ActorKind
from tests.server.alerts.test_alerts import HOUR_MS, finding, look, note, say, settled
from wire.messages import DeviceState

if TYPE_CHECKING:
    from tests.server.conftest import FakeDevice, MemoryFleet

ANN = Actor(account="ann", kind=ActorKind.USER)


@pytest.fixture
def cam(fleet: MemoryFleet) -> FakeDevice:
    """A device whose connection is going to break, on a server that has settled."""
    found = fleet.enrol("cam-1")
    say(fleet, found)
    settled(fleet)
    return found


def break_off(fleet: MemoryFleet, *cams: FakeDevice) -> None:
    """Let the connections of ``cams`` break, long enough ago for an alert."""
    say(fleet, *cams, state=DeviceState.LOST)
    look(fleet)
    look(fleet, 60_000)


def concerns(fleet: MemoryFleet) -> dict[str, tuple[str, ...]]:
    """Return the names in the concerns of devices alone, by signal."""
    found = fleet.app.parts.situation.overall().concerns
    return {one.signal: one.names for one in found if one.signal in {"lost", "muted", "unjudged", "verdicts"}}


def test_an_alert_ends_with_the_mute_and_opens_again_after_it(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The history says that a mute ended it, not that its cause is over; the same alert opens again by itself."""
    mutes, alerts = fleet.app.parts.mutes, fleet.app.parts.alerts
    break_off(fleet, cam)
    (before,) = look(fleet)
    mutes.mute("cam-1", fleet.clock() + HOUR_MS, "power works", by=ANN)
    assert look(fleet) == ()
    ended = alerts.get(before.id)
    assert (ended.state, ended.resolved_by) == (AlertState.RESOLVED, "a mute")
    assert alerts.history(before.id)[-1].text == "Its devices are muted; its cause may be there"
    assert look(fleet, HOUR_MS - 20_000) == ()
    look(fleet, 20_000)
    (again,) = look(fleet, 60_000)
    assert (again.id, again.state, again.reopened) == (before.id, AlertState.OPEN, 1)


def test_a_short_mute_hides_no_alert_for_good(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """Shorter than the time after which a cause counts as gone, the alert comes back all the same."""
    break_off(fleet, cam)
    (before,) = look(fleet)
    fleet.app.parts.mutes.mute("cam-1", by=ANN)
    assert look(fleet) == ()
    fleet.app.parts.mutes.unmute("cam-1", by=ANN)
    look(fleet)
    (again,) = look(fleet, 60_000)
    assert again.id == before.id


def test_what_a_person_resolved_stays_resolved_over_a_mute(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """A mute is no end of the cause: it does not make the alert news."""
    break_off(fleet, cam)
    (alert,) = look(fleet)
    fleet.app.parts.alerts.resolve(alert.id, "known", by="ann")
    fleet.app.parts.mutes.mute("cam-1", fleet.clock() + HOUR_MS, by=ANN)
    look(fleet, HOUR_MS)
    look(fleet)
    assert look(fleet, 120_000) == ()


def test_the_status_names_who_is_muted_and_until_when_instead(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """It is never well while anybody is muted, and /metrics counts it beside the fleet."""
    break_off(fleet, cam)
    assert concerns(fleet)["lost"] == ("cam-1",)
    fleet.clock.now_ms = 1_796_000_000_000 - HOUR_MS
    fleet.app.parts.mutes.mute("cam-1", 1_796_000_000_000, by=ANN)
    assert concerns(fleet) == {"muted": ("cam-1 until 2026-11-30 00:53 UTC",)}
    assert fleet.app.parts.situation.overall().level is not Level.WELL
    figures = fleet.client().get("/metrics").text
    assert 'tinyfleet_concern_names{level="unknown",signal="muted"} 1.0' in figures
    assert 'tinyfleet_concern_names{level="alarm",signal="lost"} 0.0' in figures
    found = fleet.client().get("/api/devices", params={"condition": "muted"}).json()["devices"]
    assert [(one["device"], one["muted_by"]) for one in found] == [("cam-1", "ann")]
    fleet.clock.now_ms += HOUR_MS
    assert concerns(fleet)["lost"] == ("cam-1",)
    assert fleet.client().get("/api/devices", params={"condition": "muted"}).json()["devices"] == []


def test_a_mute_that_is_over_is_taken_off_with_an_event(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """By itself, once; what a person did is an event and an act with the name."""
    mutes = fleet.app.parts.mutes
    mutes.mute("cam-1", fleet.clock() + HOUR_MS, "works", by=ANN)
    fleet.clock.now_ms += HOUR_MS
    mutes.turn(fleet.clock())
    mutes.turn(fleet.clock() + HOUR_MS)
    assert fleet.app.parts.fleet.device(cam.identity.device).muted_ms == 0
    events = [event for event in fleet.app.parts.events.after(0) if event.code in {"muted", "mute_over"}]
    assert [event.code for event in events] == ["muted", "mute_over"]
    assert events[0].text.startswith("cam-1 was muted by ann until ")
    newest = AuditLog(fleet.app.parts.database).last_of("device.mute")
    assert newest is not None
    assert (newest.act, newest.account, newest.data["why"]) == ("device.mute", "ann", "works")


def test_a_site_keeps_its_alert_for_those_that_are_not_muted(fleet: MemoryFleet) -> None:
    """Of a site that is away only the devices that are not muted are told; with all of them muted it ends."""
    cams = [fleet.enrol(f"cam-{number}", "north") for number in range(4)]
    say(fleet, *cams)
    settled(fleet)
    break_off(fleet, *cams)
    (alert,) = look(fleet)
    fleet.app.parts.mutes.mute("cam-0", by=ANN)
    (left,) = look(fleet)
    assert (left.id, left.devices) == (alert.id, ("cam-1", "cam-2", "cam-3"))
    for one in cams[1:]:
        fleet.app.parts.mutes.mute(one.identity.device, by=ANN)
    assert look(fleet) == ()
    assert fleet.app.parts.alerts.get(alert.id).resolved_by == "a mute"


@pytest.mark.parametrize(
    ("kind", "told"), [(VerdictKind.DEVICE_LOCAL, 0), (VerdictKind.SITE, 0), (VerdictKind.RELEASE_REGRESSION, 1)]
)
def test_a_verdict_on_muted_devices_alone_is_held_back(
    fleet: MemoryFleet, cam: FakeDevice, kind: VerdictKind, told: int
) -> None:
    """One on a release tells of more than its devices; the verdict itself is there in any case."""
    fleet.app.parts.mutes.mute(cam.identity.device, by=ANN)
    note(fleet, finding(kind, cam.identity.device))
    assert len(look(fleet)) == told
    assert len(concerns(fleet).get("verdicts", ())) == told
    assert len(fleet.app.parts.drift.verdicts.open()) == 1
    fleet.app.parts.mutes.unmute(cam.identity.device, by=ANN)
    (alert,) = look(fleet)
    assert alert.kind is AlertKind.VERDICT


def test_a_verdict_with_a_device_that_is_not_muted_is_told(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """A group's evidence is the group's: it names all of its devices."""
    fleet.enrol("cam-2")
    fleet.app.parts.mutes.mute(cam.identity.device, by=ANN)
    note(fleet, finding(VerdictKind.SITE, "cam-1", "cam-2"))
    (alert,) = look(fleet)
    assert alert.devices == ("cam-1", "cam-2")


@pytest.mark.parametrize(
    ("until_ms", "why", "said"),
    [(-1, "", "lie ahead"), (1, "", "lie ahead"), (2**62, "", "lie ahead"), (0, "a\x1bb", "U+001B as character 2"),
     (0, "x" * 501, "at most 500 characters, got 501")],
)  # fmt: skip
def test_what_is_no_mute_is_refused_and_changes_nothing(
    fleet: MemoryFleet, cam: FakeDevice, until_ms: int, why: str, said: str
) -> None:
    """The end must lie ahead, the reason must be readable."""
    with pytest.raises(MuteRefusedError, match=said.replace("+", r"\+")):
        fleet.app.parts.mutes.mute(cam.identity.device, until_ms, why, by=ANN)
    assert fleet.app.parts.fleet.device(cam.identity.device).muted_ms == 0


def test_a_device_that_leaves_is_muted_no_more(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """It can't be muted either."""
    fleet.app.parts.mutes.mute(cam.identity.device, by=ANN)
    fleet.app.parts.revocations.revoke(cam.identity.device)
    assert fleet.app.parts.fleet.device(cam.identity.device).muted_ms == 0
    with pytest.raises(DeviceEndedError):
        fleet.app.parts.mutes.mute(cam.identity.device, by=ANN)


def test_commands_mute_a_list_a_site_or_a_tag(fleet: MemoryFleet) -> None:
    """All that are named or none: an unknown one changes nothing."""
    for name, site in (("cam-1", "north"), ("cam-2", "north"), ("cam-3", "south")):
        fleet.enrol(name, site)

    def said(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["devices", words[0], str(fleet.state.path), *words[1:]])
        return done.exit_code, done.stdout

    assert said("mute", "cam-1", "cam-9") == (1, "")
    assert said("mute", "--site", "north", "--why", "power works") == (0, "cam-1\t0\ncam-2\t0\n")
    assert said("unmute", "--site", "north") == (0, "cam-1\t0\ncam-2\t0\n")
    assert said("unmute", "--site", "north") == (0, "")
    assert said("mute", "--site", "nroth") == (1, "")
    assert said("mute", "cam-1", "--for", "91d") == (2, "")
    assert said("mute", "cam-3", "--until", "9999-01-01T00:00+00:00") == (0, "cam-3\t253370764800000\n")
    for wrong in (["mute"], ["mute", "cam-1", "--site", "north"], ["mute", "cam-1", "--until", "noon"],
                  ["mute", "cam-1", "--for", "4h", "--until", "2099-01-01"]):  # fmt: skip
        assert said(*wrong)[0] == 2, wrong
