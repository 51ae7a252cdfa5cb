"""The problems of a real server and its fleet, read from where they are recorded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compressor.release.keys import init_keys
from server.app.overall import Signals
from server.app.server import ServerApp
from server.cli.listings import device_row
from server.clock import system_now_ms
from server.dashboard.views import clock_off, state_status
from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.fleet.liveness import Presence
from server.retraining.config import AuditConfig
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from server.store.monitoring.evidence import replace_slot
from server.trust.roots import install_root
from tests.server.conftest import publish_bytes
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import DeviceState, InstalledRelease, Reported, State, UnreadInputs, UpdatePhase, UpdateStatus

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet

    from server.app.state_directory import StateDirectory

THRESHOLD = math.log(1000)
GROUPS = (
    Group(name="canary", success_ratio=1.0, error_ratio=0.0),
    Group(name="rest", success_ratio=0.9, error_ratio=0.2),
)


@pytest.fixture
def cam(fleet: MemoryFleet, tmp_path: Path) -> FakeDevice:
    """One device of which nothing is the matter, on a server with a real root."""
    (fleet.state.tuf / "1.root.json").unlink()
    install_root(fleet.state.path, init_keys(tmp_path / "keys", fleet.state.path / "online.pub.json"))
    device = fleet.enrol("cam-1")
    fleet.clock.now_ms = system_now_ms()
    device.say("state", State(state=DeviceState.READY, at_ms=fleet.clock(), boot="ab" * 8))
    fleet.turn()
    judge(fleet, 0.1)
    return device


def judge(
    fleet: MemoryFleet, ratio: float, *, age_ms: int = 0, pool: float = 0.0, collecting: bool = False, **changes: object
) -> None:
    """Store the newest evidence of the device, as a share of its threshold."""
    start_ms, row = fleet.clock() - age_ms, {
        "device": "cam-1", "ref_id": "ab" * 16, "n": 60, "phase": "judged", "log_value": ratio * THRESHOLD,
        "training_log_value": ratio * THRESHOLD, "log_threshold": THRESHOLD, "flagged": False, "fault": "",
        "cause": "", "streams": [], "summaries": {}, **changes,
    }  # fmt: skip
    pooled = {
        "ref_id": "ab" * 16, "attribute": "", "value": "", "members": 1, "log_value": pool * THRESHOLD,
        "log_threshold": THRESHOLD, "alarm": False, "collecting": collecting,
    }  # fmt: skip
    with fleet.app.parts.database.begin() as connection:
        everything = (0, fleet.clock() + 1)
        replace_slot(connection, *everything, [{**row, "start_ms": start_ms}], [{**pooled, "start_ms": start_ms}])


def matter(fleet: MemoryFleet) -> dict[str, tuple[str, ...]]:
    """Return the signals that report a problem; the API returns the same."""
    signals = fleet.app.parts.situation.signals()
    said = fleet.client().get("/api/overall").json()
    found = {name: getattr(signals, name) for name in Signals.__dataclass_fields__ if name != "devices"}
    found = {name: names for name, names in found.items() if names}
    assert {concern["signal"]: tuple(concern["names"]) for concern in said["concerns"]} == found
    assert said["well"] is not bool(found)
    return found


def test_a_heard_and_judged_device_on_a_well_server_is_well(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The one quiet case, from which every other differs by one thing."""
    del cam
    assert matter(fleet) == {}


@pytest.mark.parametrize(
    ("said", "signal"),
    [(DeviceState.LOST, "lost"), (DeviceState.DISCONNECTED, "disconnected"), (DeviceState.DEGRADED, "degraded")],
)
def test_a_device_that_is_not_ready_is_the_matter(
    fleet: MemoryFleet, cam: FakeDevice, said: DeviceState, signal: str
) -> None:
    """Its last evidence was good and is no longer valid."""
    cam.say("state", State(state=said, at_ms=fleet.clock(), boot="ab" * 8))
    fleet.turn()
    assert matter(fleet) == {signal: ("cam-1",)}


def _unread(answered: int | None, **unread: object) -> Reported:
    return Reported(
        gen=1, boot="ab" * 8, current=InstalledRelease("m-1", "ab" * 32), reason="answers_nothing",
        update=UpdateStatus(phase=UpdatePhase.COMMITTED, gen=1, answered=answered),
        unread=UnreadInputs(text="they hold rows", **unread),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answered", "never", "said"),
    [
        (0, False, "has answered nothing"),
        (None, True, "has answered nothing"),
        (None, False, "answers nothing any more"),
        (9, False, "answers nothing any more"),
    ],
)
def test_a_device_that_answers_nothing_is_the_matter_until_it_does(
    fleet: MemoryFleet, cam: FakeDevice, answered: int | None, said: str, *, never: bool
) -> None:
    """Its release runs and its evidence was good: only that it reads nothing says so. It is no degraded device."""
    cam.say("state", State(state=DeviceState.DEGRADED, at_ms=fleet.clock(), boot="ab" * 8, reason="answers_nothing"))
    cam.say("reported", _unread(answered, ignored=2, names=("a.csv", "b.csv"), never=never))
    fleet.turn()
    words = f"serves m-1, {said}, ignores 2 files (a.csv, b.csv)"
    assert matter(fleet) == {"answers_nothing": (f"cam-1 ({words})",)}
    document = fleet.client().get("/api/devices/cam-1").json()
    assert (document["concern"], document["reported"]["unread"]["ignored"]) == (words, 2)
    device = fleet.app.parts.fleet.device("cam-1")
    assert state_status(device, fleet.clock(), 60.0).text == "answers nothing"
    assert device_row(device, Presence.THERE)["concern"] == words
    cam.say("state", State(state=DeviceState.READY, at_ms=fleet.clock(), boot="ab" * 8))
    cam.say("reported", Reported(gen=1, boot="ab" * 8, current=InstalledRelease("m-1", "ab" * 32)))
    fleet.turn()
    assert matter(fleet) == {}


def test_a_fleet_whose_pool_is_collecting_is_not_well(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """What all devices do alike opens nothing yet, whatever it is, so nobody knows that nothing is the matter."""
    del cam
    judge(fleet, 0.1, provisional=True, pool=2.0, collecting=True)
    assert matter(fleet) == {"collecting": ("the whole fleet",)}


def test_an_open_verdict_says_that_it_is_provisional(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The alarm of the status has the mark, not only its card."""
    del cam
    verdict = DriftVerdict(kind=VerdictKind.DEVICE_LOCAL, devices=("cam-1",))
    findings = [Finding(verdict=verdict, cause="darker", provisional=True)]
    fleet.app.parts.drift.verdicts.note(findings, 0, fleet.clock(), quiet_ms=1, judged=True)
    assert matter(fleet) == {"verdicts": ("device_local (darker, provisional)",)}


def test_silence_and_never_heard_are_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """Both sides of the bound of silence; and a device that was enrolled and never reported."""
    del cam
    fleet.clock.now_ms += 7_200_000
    assert matter(fleet) == {}
    fleet.clock.now_ms += 1
    fleet.enrol("cam-2")
    assert matter(fleet) == {"silent": ("cam-1",), "never_seen": ("cam-2",)}


def test_a_refused_update_and_a_wrong_clock_are_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The device itself reports both."""
    update = UpdateStatus(phase=UpdatePhase.REFUSED, gen=1, release="m-2", code="digest_mismatch")
    cam.say("reported", Reported(gen=1, at_ms=fleet.clock() + 400_000, boot="ab" * 8, update=update))
    fleet.turn()
    assert set(matter(fleet)) == {"update_failed", "clock_off"}


def test_a_wrong_clock_whose_messages_are_corrected_is_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The device's own report, while the times in its messages are right; until it says that the clock is right."""
    behind_ms = -60 * 86_400_000
    for error_ms, found in ((behind_ms, {"clock_off": ("cam-1",)}), (0, {})):
        cam.say("reported", Reported(gen=1, at_ms=fleet.clock(), boot="ab" * 8, clock_error_ms=error_ms))
        fleet.turn()
        assert matter(fleet) == found
        assert fleet.client().get("/api/devices/cam-1").json()["clock_skew_ms"] == error_ms
    assert clock_off(behind_ms) == "60 d behind: set it"
    assert clock_off(400_000) == "6 min ahead: set it"


def test_a_list_that_devices_refuse_as_older_names_the_step(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """After the restore of an older copy; not a device that has refused it and has another outcome since."""
    for phase, count in ((UpdatePhase.REFUSED, 1), (UpdatePhase.COMMITTED, 0)):
        update = UpdateStatus(phase=phase, gen=1, release="m-2", code="metadata_rollback")
        cam.say("reported", Reported(gen=1, at_ms=fleet.clock(), boot="ab" * 8, update=update))
        fleet.turn()
        found = matter(fleet).get("metadata", ())
        assert [text.startswith("refused as older than seen by cam-1") for text in found] == [True] * count


@pytest.mark.parametrize(
    ("evidence", "signals"),
    [
        ({"ratio": 0.59}, set()),
        ({"ratio": 0.6}, {"near"}),
        ({"ratio": 2.99}, {"near"}),
        ({"ratio": 2.99, "phase": "commissioning"}, {"near", "unjudged"}),
        ({"ratio": 1.5, "flagged": True}, {"flagged"}),
        ({"ratio": 0.1, "fault": "stuck"}, {"faulty"}),
        ({"ratio": 0.1, "pool": 0.6}, {"pools_near"}),
        ({"ratio": 0.1, "log_value": None, "training_log_value": None, "phase": "commissioning"}, {"unjudged"}),
        ({"ratio": 0.1, "age_ms": 14_400_001}, {"unjudged"}),
    ],
)
def test_evidence_near_its_threshold_and_missing_evidence_are_the_matter(
    fleet: MemoryFleet, cam: FakeDevice, evidence: dict[str, object], signals: set[str]
) -> None:
    """Above a device at 299 % of its threshold, no text claims that all are below."""
    del cam
    judge(fleet, **evidence)  # type: ignore[arg-type]
    assert set(matter(fleet)) == signals


@pytest.mark.parametrize(
    ("phase", "signal"),
    [(RolloutPhase.PAUSED, "paused"), (RolloutPhase.AWAITING_APPROVAL, "unapproved"),
     (RolloutPhase.ABORTING, "aborting"), (RolloutPhase.FAILED, "failed"),
     (RolloutPhase.RUNNING, ""), (RolloutPhase.SUCCEEDED, ""), (RolloutPhase.ABORTED, "")],
)  # fmt: skip
def test_a_rollout_that_wants_a_person_is_the_matter(
    fleet: MemoryFleet, cam: FakeDevice, phase: RolloutPhase, signal: str
) -> None:
    """Paused, waiting, being aborted or failed; not a running one or one that ended well."""
    del cam
    fleet.app.parts.rollouts.ledger.add(
        Rollout(id="r", release="m-2", groups=GROUPS, members=(), phase=phase, created_ms=1)
    )
    assert matter(fleet) == ({signal: ("m-2",)} if signal else {})


def test_a_failure_in_a_running_rollout_and_an_open_verdict_are_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """A failure below the threshold that pauses is a failure; beside it the rollout waits for who is away alone."""
    del cam
    members = (
        Member(device="cam-1", group=0, standing=MemberStanding.STUCK, gen=1),
        Member(device="cam-2", group=0, standing=MemberStanding.PENDING),
    )
    fleet.app.parts.rollouts.ledger.add(
        Rollout(id="r", release="m-2", groups=GROUPS, members=members, phase=RolloutPhase.RUNNING, opened=1)
    )
    finding = Finding(
        verdict=DriftVerdict(kind=VerdictKind.DEVICE_LOCAL, devices=("cam-1",)),
        cause="darker",
        release="m-1",
        model="m",
    )
    fleet.app.parts.drift.verdicts.note([finding], 0, 1, quiet_ms=100, judged=True)
    expected = {"members_failed": ("cam-1",), "stalled": ("m-2 (cam-2)",), "verdicts": ("device_local (darker)",)}
    assert matter(fleet) == expected


def test_what_is_unwell_in_the_server_is_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """The signs of health are signals like others."""
    del cam
    fleet.app.parts.vitals.fault("database", "disk full")
    (server,) = matter(fleet)["server"]
    assert "disk full" in server


def test_a_setting_without_effect_is_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """It names a model that nobody has published: most likely a slip of the pen. Not before anything is published."""
    del cam
    fleet.app.parts.audit.config = AuditConfig(models={"gestrues": 2, "gestures": 1, "zebras": 1})
    assert "settings" not in matter(fleet)
    publish_bytes(fleet.app.parts.versions, "gestures")
    named = tuple(f"[audit] models {name!r} (no release)" for name in ("gestrues", "zebras"))
    assert matter(fleet)["settings"] == named
    assert "2 settings have no effect: [audit] models 'gestrues'" in fleet.app.parts.situation.overall().text


@pytest.mark.parametrize("published", [True, False])
def test_a_setting_without_effect_is_told_at_start(state: StateDirectory, *, published: bool) -> None:
    """As an event, whoever starts the server; settings that were written before the first release are no slip."""
    state.config.write_text(state.config.read_text(encoding="utf-8") + "\n[audit]\nmodels = {gestrues = 2}\n")
    transport = MemoryTransport(broker=MemoryBroker(), client_id="server")
    app = ServerApp.open(state.path, transport=transport, pages=False)
    if published:
        publish_bytes(app.parts.versions, "gestures")
    try:
        app.start()
        events = [one for one in app.parts.events.latest() if one.code == "setting_unknown"]
    finally:
        app.stop()
    assert len(events) == published
    assert all(one.text.startswith("server.toml: [audit] models names 'gestrues'") for one in events)


def test_signed_metadata_near_its_end_damaged_or_missing_is_the_matter(fleet: MemoryFleet, cam: FakeDevice) -> None:
    """Devices refuse expired metadata, and then get no update."""
    del cam
    fleet.clock.now_ms += 515 * 86_400_000
    assert "root metadata (version 1) expires" in matter(fleet)["metadata"][0]
    root = fleet.state.tuf / "1.root.json"
    root.write_text("{}")
    assert "Expected root metadata" in matter(fleet)["metadata"][0]
    root.unlink()
    assert "fleet-server trust" in matter(fleet)["metadata"][0]
