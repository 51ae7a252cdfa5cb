"""Alerts of a whole server: what opens one, what people do about it, and what stays over a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from server.alerts.model import Alert, AlertKind, AlertSeverity, AlertState
from server.alerts.watch import LOOK_EVERY_MS, AlertWatch
from server.app.overall import Level
from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.errors import AlertRefusedError, UnknownAlertError
from server.fleet.liveness import BACK_MS
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from tests.server.alerts.conftest import CAUSE
from wire.messages import DeviceState, State

if TYPE_CHECKING:
    from tests.server.conftest import MemoryFleet

HOUR_MS, BOOT = 3_600_000, "ab" * 8


def look(fleet: MemoryFleet, later_ms: int = LOOK_EVERY_MS) -> tuple[Alert, ...]:
    """Let ``later_ms`` pass, and return the alerts that are not resolved, oldest first."""
    fleet.clock.now_ms += later_ms
    watch = next(one for one in fleet.app.parts.services if isinstance(one, AlertWatch))
    watch.turn(fleet.clock())  # alone: drift detection would close verdicts of devices that sent no window
    return tuple(one for one in reversed(fleet.app.parts.alerts.list()) if one.kind is not AlertKind.METADATA)


def settled(fleet: MemoryFleet) -> None:
    """Let the time after the start pass in which silent devices are no news."""
    look(fleet)
    look(fleet, BACK_MS)


def say(fleet: MemoryFleet, *devices: object, state: DeviceState = DeviceState.READY) -> None:
    """Let ``devices`` say their state."""
    for device in devices:
        device.say("state", State(state=state, at_ms=fleet.clock(), boot=BOOT), retain=True)  # type: ignore[attr-defined]
    fleet.turn()


def note(fleet: MemoryFleet, *findings: Finding, window: int = 1, quiet_ms: int = 3 * HOUR_MS) -> None:
    """Let one window of drift detection find these."""
    fleet.app.parts.drift.verdicts.note(findings, window * HOUR_MS, fleet.clock(), quiet_ms=quiet_ms, judged=True)


def finding(kind: VerdictKind, *devices: str, **more: object) -> Finding:
    """Return a finding about ``devices`` in the stream luma."""
    attributes = (("site", "berlin"),) if kind is VerdictKind.SITE else ()
    verdict = DriftVerdict(kind=kind, devices=devices, attributes=attributes, model="digits")
    values = {"cause": "luma higher", "model": "digits", "streams": ("luma",), **more}
    return Finding(verdict=verdict, **values)  # type: ignore[arg-type]


def test_a_site_of_200_devices_that_goes_silent_is_one_alert(fleet: MemoryFleet) -> None:
    """With all of them counted, the first fifty named; and one notice of its end."""
    cams = [fleet.enrol(f"cam-{number:03}", "north") for number in range(200)]
    say(fleet, *cams)
    settled(fleet)
    look(fleet, 2 * HOUR_MS + 1)
    (alert,) = look(fleet, 60_000)
    assert (alert.key, alert.device_count, len(alert.devices)) == ("away:site:north", 200, 50)
    assert (alert.title, alert.severity) == ("Site north: 200 of its devices are away", AlertSeverity.ATTENTION)
    say(fleet, *cams)
    look(fleet)
    assert look(fleet, 60_000) == ()
    assert [one.act for one in fleet.app.parts.alerts.history(alert.id)] == ["opened", "resolved"]


def test_one_lost_device_is_its_own_alert_and_a_blink_is_none(fleet: MemoryFleet) -> None:
    """Lost for less than the time: nothing; at the time: an alarm of the device."""
    cam = fleet.enrol("cam-1")
    say(fleet, cam)
    look(fleet)
    say(fleet, cam, state=DeviceState.LOST)
    assert look(fleet) == ()
    assert look(fleet, 59_999) == ()
    say(fleet, cam)
    assert look(fleet) == ()
    say(fleet, cam, state=DeviceState.LOST)
    look(fleet)
    (alert,) = look(fleet, 60_000)
    assert (alert.key, alert.severity, alert.page) == ("away:device:cam-1", AlertSeverity.ALARM, "/device/cam-1")


def test_after_a_start_silent_devices_have_time_to_come_back(fleet: MemoryFleet) -> None:
    """The server was down for a day: that is no fault of the devices."""
    say(fleet, *(fleet.enrol(f"cam-{number}", "north") for number in range(4)))
    fleet.clock.now_ms += 24 * HOUR_MS
    fleet.restart()
    assert look(fleet) == ()
    assert look(fleet, BACK_MS - LOOK_EVERY_MS) == ()
    assert [one.key for one in look(fleet)] == ["away:site:north"]


def test_one_drift_is_one_alert_however_it_is_grouped(fleet: MemoryFleet) -> None:
    """Two devices, then their site, which is one verdict: the alert of the first goes on, that of the other ends."""
    for number in (1, 2):
        fleet.enrol(f"cam-{number}")
    note(fleet, *(finding(VerdictKind.DEVICE_LOCAL, f"cam-{number}") for number in (1, 2)))
    assert len(look(fleet)) == 2
    note(fleet, finding(VerdictKind.SITE, "cam-1", "cam-2"), window=2)
    (alert,) = look(fleet)
    assert (alert.id, alert.title, alert.device_count) == (1, "Site berlin sees something new", 2)
    assert fleet.app.parts.alerts.get(2).state is AlertState.RESOLVED
    note(fleet, finding(VerdictKind.FLEET, "cam-1", "cam-2"), window=3)
    (again,) = look(fleet)
    assert (again.id, again.title) == (1, "The whole fleet sees something new")
    note(fleet, window=9)
    assert look(fleet) == ()


def test_a_fleet_of_one_device_gets_an_alert_of_its_drift(fleet: MemoryFleet) -> None:
    """With what to do, the verdict's own words."""
    fleet.enrol("cam-1")
    note(fleet, finding(VerdictKind.DEVICE_LOCAL, "cam-1"))
    (alert,) = look(fleet)
    assert (alert.key, alert.title) == ("verdict:1", "cam-1 sees something new")
    assert (alert.cause, alert.action) == ("luma higher", "look at what stands before the device")
    assert (alert.sites, alert.severity) == (("berlin",), AlertSeverity.ALARM)


def test_a_provisional_verdict_asks_for_attention_only(fleet: MemoryFleet) -> None:
    """Its alarms are not as rare as promised yet; when it is final, that is news."""
    fleet.enrol("cam-1")
    note(fleet, finding(VerdictKind.DEVICE_LOCAL, "cam-1", provisional=True))
    assert look(fleet)[0].severity is AlertSeverity.ATTENTION
    note(fleet, finding(VerdictKind.DEVICE_LOCAL, "cam-1"), window=2)
    assert look(fleet)[0].severity is AlertSeverity.ALARM


def _rollout(fleet: MemoryFleet, **changes: object) -> None:
    group = Group(name="canary", success_ratio=1.0, error_ratio=0.0)
    member = Member(device="cam-1", group=0, standing=MemberStanding.FAILED)
    values = {"id": "r1", "release": "digits-2", "groups": (group,), "members": (member,), "opened": 1, **changes}
    fleet.app.parts.rollouts.ledger.add(Rollout(**values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"phase": RolloutPhase.PAUSED, "code": "error_threshold", "text": "1 of 1 failed"}, "paused"),
        ({"phase": RolloutPhase.FAILED, "code": "failed"}, "failed"),
    ],
)
def test_a_rollout_that_stopped_by_itself_is_an_alert(
    fleet: MemoryFleet, changes: dict[str, object], title: str
) -> None:
    """With the devices that failed."""
    fleet.enrol("cam-1")
    _rollout(fleet, **changes)
    (alert,) = look(fleet)
    assert (alert.key, alert.title) == ("rollout:r1", f"Rollout of digits-2 {title}")
    assert (alert.devices, alert.sites) == (("cam-1",), ("berlin",))


def test_a_rollout_that_a_person_paused_is_no_alert(fleet: MemoryFleet) -> None:
    """That person knows."""
    fleet.enrol("cam-1")
    _rollout(fleet, phase=RolloutPhase.PAUSED, code="operator", text="Paused by ada")
    assert look(fleet) == ()


def test_what_people_do_is_kept_with_their_names(fleet: MemoryFleet) -> None:
    """Acknowledge, take, note, resolve: over the REST interface, in the order of the acts."""
    fleet.app.parts.alerts.settle([CAUSE], fleet.clock())
    client = fleet.client()
    assert client.post("/api/alerts/1/acknowledge", json={"by": "ada"}).json()["state"] == "acknowledged"
    assert client.post("/api/alerts/1/take", json={"by": "bo"}).json()["owner"] == "bo"
    client.post("/api/alerts/1/note", json={"by": "bo", "note": "the fuse"})
    found = client.post("/api/alerts/1/resolve", json={"by": "bo", "note": "changed the fuse"}).json()
    assert (found["state"], found["resolved_by"]) == ("resolved", "bo")
    assert [(one["act"], one["by"], one["text"]) for one in found["history"]] == [
        ("opened", "", "Device cam-1 is lost"), ("acknowledged", "ada", ""), ("taken", "bo", ""),
        ("note", "bo", "the fuse"), ("resolved", "bo", "changed the fuse"),
    ]  # fmt: skip
    assert "at least once" in found["promise"]


def test_what_can_not_be_done_is_refused(fleet: MemoryFleet) -> None:
    """An unknown alert, a resolved one, no reason, a time that is over."""
    alerts, client = fleet.app.parts.alerts, fleet.client()
    with pytest.raises(UnknownAlertError, match="got 5: see fleet-server alerts list"):
        alerts.take(5)
    alerts.settle([CAUSE], fleet.clock())
    with pytest.raises(AlertRefusedError, match="within the next 90 days"):
        alerts.snooze(1, fleet.clock())
    assert client.post("/api/alerts/1/resolve", json={"note": ""}).status_code == 422
    with pytest.raises(AlertRefusedError, match="the reason why alert 1"):
        alerts.resolve(1, "  ")
    alerts.resolve(1, "done")
    assert client.post("/api/alerts/1/take", json={}).status_code == 409
    assert fleet.client("builder").get("/api/alerts").status_code == 403


def test_a_snooze_outlives_a_restart(fleet: MemoryFleet) -> None:
    """Until its time, and it is said again after that."""
    fleet.enrol("cam-1")
    note(fleet, finding(VerdictKind.DEVICE_LOCAL, "cam-1"))
    (alert,) = look(fleet)
    fleet.app.parts.alerts.snooze(alert.id, fleet.clock() + HOUR_MS, by="ada", note="seen")
    fleet.restart()
    assert look(fleet)[0].state is AlertState.SNOOZED
    assert look(fleet, HOUR_MS)[0].state is AlertState.OPEN
    texts = [(one.act, one.text) for one in fleet.app.parts.alerts.history(alert.id)]
    assert texts[1:] == [
        ("snoozed", "for 1 h: seen"), ("reopened", "The snooze is over, and its cause is still there"),
    ]  # fmt: skip


def test_lists_are_paged_and_filtered(fleet: MemoryFleet) -> None:
    """Newest first, by the cursor that the answer names, by words, kind and state; a percent sign is no wildcard."""
    causes = [replace(CAUSE, key=f"away:device:cam-{number}") for number in range(5)]
    fleet.app.parts.alerts.settle([*causes, replace(CAUSE, key="server:disk", kind=AlertKind.SERVER)], fleet.clock())
    client = fleet.client()
    first = client.get("/api/alerts", params={"limit": 4}).json()
    assert ([one["id"] for one in first["alerts"]], first["total"]) == ([6, 5, 4, 3], 6)
    rest = client.get("/api/alerts", params={"limit": 4, "cursor": first["next"]}).json()
    assert ([one["id"] for one in rest["alerts"]], rest["next"]) == ([2, 1], None)
    assert client.get("/api/alerts", params={"search": "cam-1 LOST"}).json()["total"] == 6
    assert client.get("/api/alerts", params={"search": "cam_1"}).json()["total"] == 0
    assert client.get("/api/alerts", params={"cursor": "x"}).status_code == 422
    only = client.get("/api/alerts", params={"kind": "server"}).json()["alerts"]
    assert [one["key"] for one in only] == ["server:disk"]
    assert client.get("/api/alerts", params={"state": "resolved"}).json()["alerts"] == []
    assert client.get("/api/alerts", params={"colour": "red"}).status_code == 422


def test_a_route_that_fails_is_a_concern_of_the_overall_status(fleet: MemoryFleet) -> None:
    """Alerts that reach nobody are an alarm."""
    situation = replace(fleet.app.parts.situation, undelivered=lambda: ("pager: 3 for 7 min",))
    found = {one.signal: one for one in situation.overall().concerns}["undelivered"]
    assert (found.level, found.text) == (Level.ALARM, "1 route of alerts fails: pager: 3 for 7 min")


def test_a_turn_looks_at_most_each_15_seconds(fleet: MemoryFleet) -> None:
    """The server turns twice a second; ten thousand devices are not read each time."""
    fleet.enrol("cam-1")
    look(fleet)
    note(fleet, finding(VerdictKind.DEVICE_LOCAL, "cam-1"))
    assert look(fleet, LOOK_EVERY_MS - 1) == ()
    assert len(look(fleet, 1)) == 1
