"""Devices that leave the fleet: refused everywhere within seconds, in no count, with their history kept."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from server.app.server import ServerApp
from server.app.state_directory import StateDirectory
from server.broker.mqtt import BrokerTransport
from server.cli import main
from server.drift.departures import Departures
from server.drift.verdicts import VerdictKind
from server.errors import ClaimRefusedError, DeviceEndedError
from server.fleet.enrolment import EnrolledIdentity
from server.fleet.naming import DeviceNaming
from tests.server.alerts.test_alerts import finding, note
from wire.messages import DeviceState, InstalledRelease, Reported, State
from wire.transport import Link, LinkChange, Notice

if TYPE_CHECKING:
    from tests.server.conftest import FakeDevice, MemoryFleet

EACH = pytest.mark.parametrize("action", ["revoke", "retire", "remove"])


def _basic(identity: EnrolledIdentity) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{identity.device}:{identity.password}".encode()).decode()}


def _heard(fleet: MemoryFleet) -> FakeDevice:
    """Return a device that is there, runs a release and shall run one."""
    device = fleet.enrol()
    device.say("state", State(state=DeviceState.READY), retain=True)
    device.say("reported", Reported(gen=3, current=InstalledRelease("m-1", "ab" * 32)), retain=True)
    fleet.app.parts.fleet.set_desired("cam-1", release="m-1", target="t", sha256="ab" * 32, length_bytes=9)
    fleet.turn()
    return device


@EACH
def test_http_refuses_the_device_at_once(fleet: MemoryFleet, action: str) -> None:
    """Also where its password was remembered as right."""
    device = _heard(fleet)
    url, ask = "/blobs/" + "0" * 64, fleet.client(None).get
    assert ask(url, headers=_basic(device.identity)).status_code != 401
    answer = fleet.client().post(f"/api/devices/cam-1/{action}", json={"why": "stolen"})
    assert (answer.status_code, answer.json()["ended_why"]) == (200, "stolen")
    assert ask(url, headers=_basic(device.identity)).status_code == 401
    assert "cam-1" not in fleet.app.admission.hashes()


@EACH
def test_it_leaves_every_list_and_keeps_its_history(fleet: MemoryFleet, action: str) -> None:
    """Its events and releases are there for the audit; counts are of the fleet."""
    _heard(fleet)
    client = fleet.client()
    client.post(f"/api/devices/cam-1/{action}", json={"why": "stolen", "by": "ada"})
    assert client.get("/api/devices").json()["devices"] == []
    ended = {"revoke": "revoked", "retire": "retired", "remove": "removed"}[action]
    assert [one["ended"] for one in client.get("/api/devices?ended=true").json()["devices"]] == [ended]
    event = client.get("/api/events?device=cam-1").json()["events"][-1]
    assert (event["code"], event["text"]) == (ended, f"cam-1 was {ended} by ada: stolen")
    assert client.get(f"/api/devices/cam-1/ran?at_ms={fleet.clock()}").json()["release"] == "m-1"


@EACH
def test_what_the_broker_retained_is_cleared(fleet: MemoryFleet, action: str) -> None:
    """Also a will published after the session was ended; other devices' messages stay."""
    device, other = _heard(fleet), fleet.enrol("cam-2")
    other.say("state", State(state=DeviceState.READY), retain=True)
    fleet.turn()
    fleet.client().post(f"/api/devices/cam-1/{action}")
    fleet.turn()
    device.say("state", State(state=DeviceState.LOST), retain=True)
    fleet.clock.now_ms += 2_000
    fleet.turn()
    assert {topic for topic in fleet.broker._retained if "/cam-1/" in topic} == set()
    assert {topic for topic in fleet.broker._retained if "/cam-2/" in topic} == {"tf/1/berlin/cam-2/state"}


@pytest.mark.stores
def test_what_it_says_afterwards_is_not_believed(fleet: MemoryFleet) -> None:
    """Ingest caches who is registered; that entry ends, too."""
    device = _heard(fleet)
    fleet.client().post("/api/devices/cam-1/revoke")
    fleet.turn()
    refused = fleet.app.parts.ingest.figures.refused
    device.report(1)
    fleet.turn()
    assert (device.watermark(), fleet.app.parts.ingest.figures.refused) == (None, refused + 1)


@pytest.mark.stores
def test_only_a_claim_made_afterwards_lets_it_in_again(fleet: MemoryFleet) -> None:
    """The thief may have an earlier one; both the refusal and the new claim state it."""
    _heard(fleet)
    enrolment = fleet.app.parts.enrolment
    before = enrolment.claim("berlin", "cam-1", {})
    fleet.client().post("/api/devices/cam-1/revoke")
    with pytest.raises(ClaimRefusedError, match="a claim made after cam-1 was revoked, got an older one"):
        enrolment.enrol(before)
    made = fleet.client().post("/api/claims", json={"site": "berlin", "device": "cam-1"}).json()
    assert made["note"] == "cam-1 was revoked: with this claim it is of the fleet again"
    identity = enrolment.enrol(made["claim"])
    assert enrolment.authenticate("cam-1", identity.password)
    assert [device.device for device in fleet.app.parts.fleet.devices()] == ["cam-1"]


@pytest.mark.parametrize(("action", "release"), [("revoke", "m-1"), ("retire", ""), ("remove", "")])
def test_who_comes_back_is_told_above_what_it_knows(fleet: MemoryFleet, action: str, release: str) -> None:
    """Removed hardware is forgotten, and yet its generation is not used again."""
    _heard(fleet)
    fleet.client().post(f"/api/devices/cam-1/{action}")
    enrolment, registry = fleet.app.parts.enrolment, fleet.app.parts.fleet
    enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    assert registry.device("cam-1").desired_release == release
    assert registry.set_desired("cam-1", release="m-2", target="t", sha256="cd" * 32, length_bytes=9) == 4


@EACH
def test_who_comes_back_is_not_there_before_it_was_heard(fleet: MemoryFleet, action: str) -> None:
    """Its earlier state no longer counts: no rollout assigns it before it reports."""
    _heard(fleet)
    client = fleet.client()
    client.post(f"/api/devices/cam-1/{action}")
    enrolment = fleet.app.parts.enrolment
    enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    shown = client.get("/api/devices/cam-1").json()
    assert (shown["presence"], shown["state"], shown["release"]) == ("never_heard", "init", "")
    fleet.enrol().say("state", State(state=DeviceState.READY), retain=True)
    fleet.turn()
    assert client.get("/api/devices/cam-1").json()["presence"] == "there"


@EACH
def test_nobody_tells_it_anything_any_more(fleet: MemoryFleet, action: str) -> None:
    """No release, no settings, no command; the refusal gives the reason."""
    _heard(fleet)
    fleet.client().post(f"/api/devices/cam-1/{action}")
    registry = fleet.app.parts.fleet
    with pytest.raises(DeviceEndedError, match=r"got 'cam-1', which was (revoked|retired|removed): enrol it"):
        registry.set_config("cam-1", {"a": 1})
    answer = fleet.client().post("/api/devices/cam-1/commands", json={"verb": "ping"})
    assert (answer.status_code, answer.json()["code"]) == (409, "device_ended")
    registry.publish_desired("cam-1")
    registry.forget_published()
    fleet.turn()
    assert not any("/cam-1/" in topic for topic in fleet.broker._retained)


def test_ending_twice_changes_nothing_and_a_revoked_device_may_be_removed(fleet: MemoryFleet) -> None:
    """The first reason stays; a removed device can't be revoked; an unknown one is named."""
    _heard(fleet)
    client = fleet.client()
    first = client.post("/api/devices/cam-1/revoke", json={"why": "a"}).json()
    assert client.post("/api/devices/cam-1/revoke", json={"why": "b"}).json() == first
    assert client.post("/api/devices/cam-1/remove").json()["ended"] == "removed"
    assert client.post("/api/devices/cam-1/revoke").json()["code"] == "device_ended"
    assert client.post("/api/devices/cam-9/remove").json()["code"] == "unknown_device"
    assert fleet.codes().count("revoked") == 1


@pytest.mark.stores
def test_a_retired_device_is_asked_for_and_keeps_its_name(fleet: MemoryFleet) -> None:
    """It is out of the list of the fleet and in its own; it can't be revoked, and is still there to be removed."""
    _heard(fleet)
    naming = DeviceNaming(fleet=fleet.app.parts.fleet, clock=fleet.clock)
    naming.tag("cam-1", ["night"])
    naming.rename("cam-1", "Gate")
    client = fleet.client()
    assert client.post("/api/devices/cam-1/revoke").json()["ended"] == "revoked"
    assert client.post("/api/devices/cam-1/retire", json={"why": "scrapped"}).json()["ended_why"] == "scrapped"
    assert client.post("/api/devices/cam-1/revoke").json()["code"] == "device_ended"
    (found,) = client.get("/api/devices?retired=true").json()["devices"]
    assert (found["ended"], found["tags"], found["title"], found["desired"]) == ("retired", ["night"], "Gate", None)
    assert client.post("/api/devices/cam-1/remove").json()["ended"] == "removed"
    assert client.get("/api/devices?retired=true").json()["devices"] == []
    assert client.post("/api/devices/cam-1/retire").json()["code"] == "device_ended"


@pytest.mark.parametrize(("action", "anew"), [("revoke", False), ("retire", True), ("remove", True)])
def test_what_comes_back_for_good_begins_anew(fleet: MemoryFleet, action: str, *, anew: bool) -> None:
    """It may be other hardware: its baseline, its tags and its name are not those of the device before."""
    _heard(fleet)
    DeviceNaming(fleet=fleet.app.parts.fleet, clock=fleet.clock).tag("cam-1", ["night"])
    fleet.client().post(f"/api/devices/cam-1/{action}")
    enrolment = fleet.app.parts.enrolment
    enrolment.enrol(enrolment.claim("berlin", "cam-1", {}))
    commission = fleet.app.parts.drift.commissions.of("cam-1")
    assert (commission is not None) is anew
    assert commission is None or commission.from_ms == fleet.clock()
    assert fleet.app.parts.fleet.device("cam-1").tags == (() if anew else ("night",))


def test_the_verdicts_on_a_device_end_when_it_is_gone_for_good(fleet: MemoryFleet) -> None:
    """Also in a fleet of one, where no later window would show that they are over; not those on a release."""
    _heard(fleet)
    fleet.enrol("cam-2")
    kinds = (VerdictKind.DEVICE_FAULT, VerdictKind.RELEASE_REGRESSION)
    note(fleet, *(finding(kind, "cam-1") for kind in kinds), finding(VerdictKind.SITE, "cam-1", "cam-2"))
    departures = next(one for one in fleet.app.parts.services if isinstance(one, Departures))
    opened = fleet.app.parts.drift.verdicts.open

    def left() -> set[VerdictKind]:
        fleet.clock.now_ms += 15_000
        departures.turn(fleet.clock())
        return {one.kind for one in opened()}

    fleet.client().post("/api/devices/cam-1/revoke")
    assert left() == {*kinds, VerdictKind.SITE}
    fleet.client().post("/api/devices/cam-1/retire")
    assert left() == {VerdictKind.RELEASE_REGRESSION, VerdictKind.SITE}


def test_commands_beside_the_server_do_the_same(fleet: MemoryFleet) -> None:
    """They need no running server, and a running one follows."""
    _heard(fleet)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, list(arguments))
        return done.exit_code, done.stdout

    path = str(fleet.state.path)
    assert run("devices", "revoke", path, "cam-1", "--why", "stolen") == (0, "cam-1 revoked\n")
    assert run("devices", "revoke", path, "cam-1") == (0, "cam-1 revoked\n")
    assert run("devices", "revoke", path, "cam-1", "--why", "lost")[0] == 1
    assert run("devices", path)[1].count("\n") == 1
    assert run("devices", "list", path, "--ended")[1].splitlines()[1].split("\t")[::4] == ["cam-1", "stolen"]
    fleet.turn()
    assert not any("/cam-1/" in topic for topic in fleet.broker._retained)
    assert run("devices", "remove", path, "cam-9")[0] == 1


@pytest.fixture
def served(state: StateDirectory) -> Iterator[ServerApp]:
    """A server with a real mosquitto."""
    app = ServerApp.open(state.path, pages=False)
    app.start()
    yield app
    app.stop()


class Session:
    """A device's real session, and how it ended."""

    def __init__(self, app: ServerApp, device: str) -> None:
        """Enrol and connect."""
        enrolment = app.parts.enrolment
        self.identity = enrolment.enrol(enrolment.claim("berlin", device, {}))
        app.admission.admit(self.identity)
        self.up, self.ended, self.refused = threading.Event(), threading.Event(), threading.Event()
        self.transport = BrokerTransport(
            host="127.0.0.1", port=app.address.mqtt_port, client_id=device, user=device, password=self.identity.password
        )
        self.transport.start(self.hear, subscriptions=(f"tf/1/berlin/{device}/desired",))
        assert self.up.wait(10)

    def hear(self, notice: Notice) -> None:
        """Record the events of the session."""
        if isinstance(notice, LinkChange):
            {Link.UP: self.up, Link.REFUSED: self.refused}.get(notice.link, self.ended).set()


def _by_api(app: ServerApp) -> None:
    app.parts.revocations.revoke("cam-1")


def _by_command(app: ServerApp) -> None:
    assert CliRunner().invoke(main, ["devices", "revoke", str(app.state.path), "cam-1"]).exit_code == 0


@pytest.mark.broker
@pytest.mark.parametrize("revoke", [_by_api, _by_command])
def test_the_broker_cuts_its_session_and_refuses_it_within_five_seconds(
    served: ServerApp, revoke: Callable[[ServerApp], None]
) -> None:
    """The session of another device continues."""
    evil, good = Session(served, "cam-1"), Session(served, "cam-2")
    since_s = time.monotonic()
    revoke(served)
    assert evil.ended.wait(5)
    assert evil.refused.wait(5)
    assert time.monotonic() - since_s < 5
    assert served.broker is not None
    assert not served.broker.accepts("cam-1", evil.identity.password)
    assert not good.ended.is_set()
    for session in (evil, good):
        session.transport.stop()
