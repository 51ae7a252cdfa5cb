"""Rollouts carried out: on the in-memory transport, over restarts, through REST."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from server.cli.listings import rollout_row
from server.dashboard.progress import rollout_card
from server.errors import RolloutPhaseError, RolloutRefusedError, UnknownReleaseError
from server.rollout.create import RolloutOptions
from server.rollout.ledger import RolloutLedger
from server.rollout.model import Member, MemberStanding, Rollout, RolloutPhase
from server.rollout.resuming import How
from server.rollout.scope import Scope
from server.rollout.service import RolloutService
from server.store.database import Database
from server.store.fleet import touch_devices
from server.store.rollouts import MEMBERS, ROLLOUTS
from wire.canonical import sha256_hex
from wire.codec import to_document
from wire.messages import (
    DeviceState,
    InstalledRelease,
    MaintenanceWindow,
    Reported,
    Severity,
    State,
    UpdatePhase,
    UpdateStatus,
)
from wire.shadow import ShadowCounts, ShadowOrder, ShadowPair
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from conftest import FakeDevice, MemoryFleet

NEW = "meter-2"


@dataclass
class Scene:
    """A server with some devices and two releases."""

    fleet: MemoryFleet
    devices: dict[str, FakeDevice]

    def __post_init__(self) -> None:
        """Publish two releases."""
        for version in (1, 2):
            self.publish(version)

    def publish(self, version: int, target: str = "gateway", **custom: object) -> None:
        """Register a release whose bundle is here."""
        versions, data = self.fleet.app.parts.versions, f"bundle {version} {target}".encode()
        versions.blobs.put(sha256_hex(data), [data])
        made = TargetCustom(model="meter", version=version, target=target, **custom)  # type: ignore[arg-type]
        path = target_path("meter", version, target)
        versions.register(path, made, sha256=sha256_hex(data), length_bytes=len(data), now_ms=version)

    @property
    def service(self) -> RolloutService:
        """The server's rollouts."""
        return self.fleet.app.parts.rollouts

    def start(self, **request: object) -> Rollout:
        """Make an approved rollout of the new release with ``d0`` as its canary."""
        wanted = {"canary": ["d0"], "approved": True, "success_ratio": 1.0, "error_ratio": 0.0, **request}
        return self.service.create(RolloutOptions(release=NEW, **wanted))  # type: ignore[arg-type]

    def say(self, device: str, phase: UpdatePhase, code: str = "", release: str = NEW, **more: object) -> None:
        """Let a device report its progress on its last assignment, and ingest it."""
        gen = self.fleet.app.parts.fleet.device(device).desired_gen
        counted = {"fetched_bytes": 77, "done_bytes": 900, **more}
        update = UpdateStatus(phase=phase, gen=gen, release=release, code=code, **counted)  # type: ignore[arg-type]
        current = InstalledRelease(release, "") if phase is UpdatePhase.COMMITTED else None
        report = Reported(gen=gen, at_ms=self.fleet.clock(), boot="ab" * 8, current=current, update=update)
        self.devices[device].say("reported", report, retain=True)
        self.turn()

    def is_there(self, device: str, state: DeviceState = DeviceState.READY) -> None:
        """Let a device report that it is present or absent, a second later: the registry is read once a second."""
        self.fleet.clock.now_ms += 1_000
        self.devices[device].say("state", State(state=state, at_ms=self.fleet.clock(), boot="ab" * 8), retain=True)
        self.turn()

    def failed_canary(self, **request: object) -> Rollout:
        """Make a rollout whose canary ``d0`` rolled back."""
        rollout = self.start(**request)
        self.turn()
        self.say("d0", UpdatePhase.ROLLED_BACK, "child_crashed")
        return rollout

    def turn(self) -> None:
        """Ingest the waiting messages and run two turns."""
        self.fleet.turn()
        self.fleet.turn()

    def told(self) -> set[str]:
        """Return the devices that shall run the new release."""
        return {device.device for device in self.fleet.app.parts.fleet.devices() if device.desired_release == NEW}

    def standings(self, rollout: Rollout) -> dict[str, str]:
        """Return every member's standing."""
        return {member.device: member.standing.value for member in self.service.get(rollout.id).members}


def note_members_read(database: Database, read: list[str]) -> None:
    """Note the device of each row of members that a query of ``database`` returns from now on."""

    def note(_c: object, cursor: sqlite3.Cursor, statement: str, parameters: tuple[str, ...], *_rest: object) -> None:
        if statement.startswith("SELECT rollout_members"):
            read.extend(row[1] for row in cursor.connection.execute(statement, parameters))

    sa.event.listen(database.engine, "before_cursor_execute", note)


@pytest.fixture
def scene(fleet: MemoryFleet) -> Scene:
    """Three devices that are there."""
    made = Scene(fleet, {name: fleet.enrol(name) for name in ("d0", "d1", "d2")})
    for name in made.devices:
        made.is_there(name)
    return made


@pytest.mark.stores
def test_canary_first_then_the_rest_then_success(scene: Scene) -> None:
    """The complete sequence over MQTT: the ``desired`` that a device receives names the release."""
    rollout = scene.start()
    scene.turn()
    assert scene.told() == {"d0"}
    desired = scene.devices["d0"].desired()
    assert desired is not None
    assert (desired.release, desired.target) == (NEW, "meter-2/gateway.tfb")
    for device in ("d0", "d1", "d2"):
        scene.say(device, UpdatePhase.COMMITTED)
    scene.turn()
    done = scene.service.get(rollout.id)
    assert done.phase is RolloutPhase.SUCCEEDED
    assert {member.air_bytes for member in done.members} == {77}


def test_a_rollout_that_waits_for_absent_devices_alone_says_for_whom(scene: Scene) -> None:
    """It is under way as long as another device of an open group is; the reason goes when the device connects."""
    scene.is_there("d0", DeviceState.LOST)
    rollout = scene.start()

    def shown() -> str:
        return str(scene.fleet.client().get(f"/api/rollouts/{rollout.id}").json()["text"])

    assert shown() == ""
    scene.turn()
    assert shown().startswith("waits for d0, away: assigned on connecting; skip the group, or abort")
    assert scene.service.get(rollout.id).text == ""
    scene.is_there("d0")
    assert shown() == ""


def test_a_rollout_whose_assigned_devices_went_away_says_for_whom_it_waits(scene: Scene) -> None:
    """Canaries lost just before or after they were assigned: text, counts, page and status until they are back."""
    rollout = scene.start(canary=["d0", "d1"])
    scene.turn()
    client, situation = scene.fleet.client(), scene.fleet.app.parts.situation

    def shown() -> dict[str, Any]:
        return dict(client.get(f"/api/rollouts/{rollout.id}").json())

    scene.is_there("d0", DeviceState.LOST)
    assert (shown()["text"], situation.signals().stalled) == ("", ())  # d1 is under way
    assert shown()["waiting"] == {"away": 1}
    scene.is_there("d1", DeviceState.DISCONNECTED)
    assert shown()["text"] == (
        "waits for d0, d1, away: assigned, fetches it on connecting, stuck 1 d after it was assigned; "
        "skip the group, or abort and create it with other canaries"
    )
    assert situation.signals().stalled == ("meter-2 (d0, d1)",)
    (card,) = (rollout_card(one, 0) for one in scene.service.up_to_date(scene.service.get(rollout.id)))
    assert [group.may_skip for group in card.groups] == [True, False]
    assert "2 wait: away" in [status.text for status in card.groups[0].states]
    for device in ("d0", "d1"):
        scene.is_there(device)
    assert (shown()["text"], shown()["waiting"], situation.signals().stalled) == ("", {}, ())


def test_the_page_skips_a_group_of_which_every_device_is_away(scene: Scene) -> None:
    """As the command line and REST do; not the last group, behind which there is nothing to open."""
    scene.is_there("d0", DeviceState.LOST)
    rollout = scene.start()

    def skips() -> list[bool]:
        card = rollout_card(scene.service.get(rollout.id), scene.fleet.clock())
        assert card.actions == ("pause", "abort")
        return [group.may_skip for group in card.groups]

    scene.turn()
    assert skips() == [True, False]
    for device in ("d1", "d2"):
        scene.is_there(device, DeviceState.LOST)
    scene.service.skip(rollout.id, "canary", by="ada")
    scene.turn()
    assert skips() == [False, False]
    text = scene.fleet.client().get(f"/api/rollouts/{rollout.id}").json()["text"]
    assert "waits for d0, d1, d2, away: assigned on connecting, left out 1 d after the last change; abort to" in text


@pytest.mark.parametrize(
    ("phases", "answered", "code", "severity"),
    [
        ((UpdatePhase.ROLLED_BACK,), None, "failed", Severity.ERROR),
        ((UpdatePhase.COMMITTED,), 0, "succeeded", Severity.WARNING),
        ((UpdatePhase.COMMITTED,), 3, "succeeded", Severity.INFO),
        ((UpdatePhase.COMMITTED,), None, "succeeded", Severity.INFO),
    ],
)
def test_the_end_of_a_rollout_is_as_urgent_as_it_is(
    phases: tuple[UpdatePhase], answered: int | None, code: str, severity: Severity, scene: Scene
) -> None:
    """A failure is an error; a success that no input shows is a warning, and its text says so."""
    rollout = scene.start(canary=["d0", "d1", "d2"], error_ratio=1.0, success_ratio=0.0)
    scene.turn()
    for device in scene.devices:
        scene.say(device, phases[0], "child_crashed" if code == "failed" else "", answered=answered)
    scene.turn()
    if code == "failed":
        scene.service.skip(rollout.id, "canary", by="ada")
        scene.turn()
    found = {one.code: one for one in scene.fleet.app.parts.events.latest() if one.kind == "rollout"}
    assert (found[code].severity, "3 of them had answered no input" in found[code].text) == (severity, answered == 0)


def test_more_canaries_than_devices_and_a_group_of_nobody_are_told(scene: Scene) -> None:
    """All three go first: the event says of how many, and none says that the empty rest is open."""
    rollout = scene.start(canary=9)
    scene.turn()
    for device in scene.devices:
        scene.say(device, UpdatePhase.COMMITTED)
    scene.turn()
    assert scene.service.get(rollout.id).phase is RolloutPhase.SUCCEEDED
    said = {(one.code, one.text) for one in scene.fleet.app.parts.events.latest() if one.kind == "rollout"}
    assert any(text.endswith("; only 3 devices can go first, of the 9 asked for") for _, text in said)
    assert [text for code, text in said if code == "group_opened"] == ["Group canary of the rollout of meter-2 is open"]


def test_bytes_on_air_are_those_of_all_attempts_and_shown_while_they_last(scene: Scene) -> None:
    """A failed attempt is not forgotten by the next; an older agent's bundle is not counted as if it was fetched."""
    rollout = scene.start(canary=["d0", "d1"], error_ratio=1.0)
    figures = ("air_bytes", "bundle_bytes")

    def shown() -> list[int]:
        body = scene.fleet.client().get(f"/api/rollouts/{rollout.id}").json()
        assert [sum(one[name] for one in body["members"]) for name in figures] == [body[name] for name in figures]
        return [body[name] for name in figures]

    scene.turn()
    scene.say("d0", UpdatePhase.DOWNLOADING, fetched_bytes=5)
    assert shown() == [5, 0]
    scene.say("d0", UpdatePhase.REFUSED, "digest_mismatch", fetched_bytes=40)
    scene.say("d1", UpdatePhase.REFUSED, "digest_mismatch", fetched_bytes=None)
    assert (scene.service.get(rollout.id).phase, shown()) == (RolloutPhase.PAUSED, [40, 900])
    scene.service.resume(rollout.id)
    scene.turn()
    scene.say("d0", UpdatePhase.DOWNLOADING, fetched_bytes=3)
    assert shown() == [43, 900]
    scene.say("d0", UpdatePhase.COMMITTED, fetched_bytes=30)
    assert shown() == [70, 900]


def test_nothing_is_sent_before_approval(scene: Scene) -> None:
    """A rollout waits for a person, and can't be resumed around the approval."""
    rollout = scene.start(approved=False)
    scene.turn()
    assert scene.told() == set()
    for refused in (scene.service.pause, scene.service.resume):
        with pytest.raises(RolloutPhaseError):
            refused(rollout.id)
    scene.service.approve(rollout.id)
    scene.turn()
    assert scene.told() == {"d0"}


def test_a_canary_that_rolled_back_pauses_and_its_code_is_an_event(scene: Scene) -> None:
    """The operator sees the reason; the other devices are never assigned."""
    rollout = scene.start()
    scene.turn()
    scene.say("d0", UpdatePhase.ROLLED_BACK, "child_crashed")
    found = scene.service.get(rollout.id)
    assert (found.phase, found.code) == (RolloutPhase.PAUSED, "error_threshold")
    assert {"child_crashed", "error_threshold"} <= set(scene.fleet.codes())
    assert scene.told() == {"d0"}


@pytest.mark.stores
def test_resuming_after_a_failed_canary_tells_the_canary_and_nobody_else(scene: Scene) -> None:
    """0 of 1 committed opens nothing; the canary tries again, as the operator was told beforehand."""
    rollout = scene.failed_canary()
    seen = scene.service.foresee(rollout.id, "resume")
    assert (seen.assigns, seen.later, seen.opens) == (("d0",), (), ())
    gen = scene.fleet.app.parts.fleet.device("d0").desired_gen
    scene.service.resume(rollout.id, by="ada", only=seen.assigns)
    scene.turn()
    assert scene.told() == {"d0"}
    assert scene.fleet.app.parts.fleet.device("d0").desired_gen == gen + 1
    scene.say("d0", UpdatePhase.COMMITTED)
    assert scene.told() == {"d0", "d1", "d2"}


def test_replacing_the_canary_sets_it_back_and_another_device_tries(scene: Scene) -> None:
    """The other devices wait for the new canary; the replaced one returns to its previous release."""
    old = scene.fleet.app.parts.versions.release("meter-1")
    pointer = {"release": old.name, "target": old.path, "sha256": old.sha256, "length_bytes": old.length_bytes}
    scene.fleet.app.parts.fleet.set_desired("d0", **pointer)
    rollout = scene.failed_canary()
    seen = scene.service.foresee(rollout.id, "resume", how=How.REPLACE)
    assert (len(seen.assigns), seen.sets_back) == (1, ("d0",))
    scene.service.resume(rollout.id, How.REPLACE, only=seen.assigns)
    scene.turn()
    assert scene.told() == set(seen.assigns) < {"d1", "d2"}
    assert scene.fleet.app.parts.fleet.device("d0").desired_release == "meter-1"
    scene.say(seen.assigns[0], UpdatePhase.COMMITTED)
    assert scene.told() == {"d1", "d2"}


def test_the_end_says_who_failed_and_who_replaced_it(scene: Scene) -> None:
    """Succeeded, and yet not everybody: in the event, the rollout, its figures and its groups."""
    rollout = scene.failed_canary()
    seen = scene.service.foresee(rollout.id, "resume", how=How.REPLACE)
    scene.service.resume(rollout.id, How.REPLACE, by="alice", only=seen.assigns)
    scene.turn()
    for device in (*seen.assigns, *({"d1", "d2"} - set(seen.assigns))):
        scene.say(device, UpdatePhase.COMMITTED)
    said = "2 of 3 devices committed; 1 of 3 failed and was replaced by alice"
    assert scene.service.get(rollout.id).text == said
    assert f"Rollout of meter-2: succeeded, {said}" in [one.text for one in scene.fleet.app.parts.events.latest()]
    body = scene.fleet.client().get(f"/api/rollouts/{rollout.id}").json()
    assert [body[key] for key in ("phase", "committed", "failed", "replaced")] == ["succeeded", 2, 1, 1]
    assert body["committed_ratio"] == pytest.approx(2 / 3)
    assert [body["groups"][0][key] for key in ("total", "failed", "replaced", "success_reached")] == [2, 1, 1, True]


@pytest.mark.parametrize("action", ["revoke", "remove"])
@pytest.mark.parametrize(("reported_first", "standing"), [(True, "failed"), (False, "cancelled")])
def test_a_report_counts_that_came_before_its_device_left_in_the_same_turn(
    scene: Scene, action: str, standing: str, *, reported_first: bool
) -> None:
    """The registry has both before the rollout runs; reports of a device that has already left are not accepted."""
    rollout, parts = scene.start(), scene.fleet.app.parts
    scene.turn()
    leave, update = (
        getattr(parts.revocations, action),
        UpdateStatus(phase=UpdatePhase.ROLLED_BACK, gen=1, release=NEW, code="child_crashed"),
    )
    if not reported_first:
        leave("d0")
    scene.devices["d0"].say("reported", Reported(gen=1, at_ms=scene.fleet.clock(), update=update), retain=True)
    parts.ingest.turn(scene.fleet.clock())
    if reported_first:
        leave("d0")
    scene.turn()
    assert scene.standings(rollout)["d0"] == standing


def test_a_failed_canary_that_is_removed_stays_failed_over_a_restart(scene: Scene) -> None:
    """Removing the hardware makes no release better; a try that had no outcome yet is cancelled and counted apart."""
    rollout = scene.failed_canary()
    scene.service.resume(rollout.id, How.RETRY)
    scene.fleet.app.parts.revocations.remove("d0")
    scene.fleet.restart()
    scene.turn()
    found = scene.service.get(rollout.id)
    assert (found.phase, scene.standings(rollout)["d0"], found.members[0].code) == (
        RolloutPhase.PAUSED, "failed", "child_crashed",
    )  # fmt: skip
    scene.service.skip(rollout.id, "canary", by="ada")
    scene.turn()
    scene.fleet.app.parts.revocations.remove("d1")
    scene.say("d2", UpdatePhase.COMMITTED)
    said = "1 of 2 devices committed; 1 of 2 failed; 1 removed; canary skipped by ada"
    assert scene.service.get(rollout.id).text == said


def test_a_resume_that_would_tell_others_than_the_operator_saw_is_refused(scene: Scene) -> None:
    """Between looking and pressing the button the fleet may have changed."""
    rollout = scene.failed_canary()
    with pytest.raises(RolloutPhaseError, match="Expected to assign it to d1"):
        scene.service.resume(rollout.id, only=["d1"])
    assert scene.service.get(rollout.id).phase is RolloutPhase.PAUSED


def test_tolerating_what_leaves_no_success_is_refused(scene: Scene) -> None:
    """It would pause again at once; the text names the ways that are left."""
    rollout = scene.failed_canary()
    with pytest.raises(RolloutRefusedError, match="retry or replace, skip the group, "):
        scene.service.resume(rollout.id, How.TOLERATE)


def test_only_a_named_person_skips_a_group(scene: Scene) -> None:
    """The action is recorded with the person, and opens the rest."""
    rollout = scene.failed_canary()
    for group, by in (("canary", " "), ("rest", "ada"), ("none", "ada")):
        with pytest.raises(RolloutRefusedError):
            scene.service.skip(rollout.id, group, by=by)
    assert set(scene.service.foresee(rollout.id, "skip", group="canary").assigns) == {"d1", "d2"}
    scene.service.skip(rollout.id, "canary", by="ada")
    scene.turn()
    assert scene.told() == {"d0", "d1", "d2"}
    (event,) = [one for one in scene.fleet.app.parts.events.after(0, 1000) if one.code == "group_skipped"]
    assert (event.data["by"], "ada" in event.text) == ("ada", True)
    assert scene.service.get(rollout.id).groups[0].skipped_by == "ada"


def test_an_abort_after_a_retry_sets_the_canary_back_to_what_it_ran_first(scene: Scene) -> None:
    """At the second assignment the release itself must not be recorded as the previous one."""
    old = scene.fleet.app.parts.versions.release("meter-1")
    pointer = {"release": old.name, "target": old.path, "sha256": old.sha256, "length_bytes": old.length_bytes}
    scene.fleet.app.parts.fleet.set_desired("d0", **pointer)
    rollout = scene.failed_canary()
    scene.service.resume(rollout.id)
    scene.turn()
    scene.service.abort(rollout.id)
    scene.turn()
    assert scene.fleet.app.parts.fleet.device("d0").desired_release == "meter-1"


def test_a_canary_that_waits_for_its_second_try_is_set_back_too(scene: Scene) -> None:
    """It was assigned once: an abort before its next report still sets it back."""
    rollout = scene.failed_canary()
    scene.is_there("d0", DeviceState.LOST)
    scene.service.resume(rollout.id)
    scene.turn()
    assert scene.standings(rollout)["d0"] == "pending"
    scene.service.abort(rollout.id)
    scene.turn()
    assert scene.told() == set()


def test_lost_and_never_seen_devices_are_pending_and_told_when_they_come(scene: Scene) -> None:
    """They are not failures, they pause nothing, and nothing is sent to them meanwhile."""
    scene.devices["new"] = scene.fleet.enrol("new")
    scene.is_there("d1", DeviceState.LOST)
    rollout = scene.start(error_ratio=0.0, deadline_s=60.0)
    scene.turn()
    scene.say("d0", UpdatePhase.COMMITTED)
    scene.say("d2", UpdatePhase.COMMITTED)
    assert scene.service.get(rollout.id).phase is RolloutPhase.RUNNING
    assert scene.standings(rollout) == {"d0": "committed", "d1": "pending", "d2": "committed", "new": "pending"}
    scene.is_there("d1")
    scene.say("d1", UpdatePhase.COMMITTED)
    assert scene.standings(rollout)["d1"] == "committed"
    scene.fleet.clock.now_ms += 61_000
    scene.turn()
    assert scene.service.get(rollout.id).phase is RolloutPhase.SUCCEEDED
    assert scene.standings(rollout)["new"] == "cancelled"


def test_told_and_silent_is_stuck_and_who_comes_back_commits(scene: Scene) -> None:
    """It was present at its assignment: its silence is an outcome, until it reports."""
    rollout = scene.start(deadline_s=60.0)
    scene.turn()
    scene.is_there("d0", DeviceState.LOST)
    scene.fleet.clock.now_ms += 61_000
    scene.turn()
    assert (scene.service.get(rollout.id).phase, scene.standings(rollout)["d0"]) == (RolloutPhase.PAUSED, "stuck")
    scene.say("d0", UpdatePhase.COMMITTED)
    assert scene.standings(rollout)["d0"] == "committed"
    assert scene.service.foresee(rollout.id, "resume").opens == ("rest",)


def test_a_refused_update_keeps_its_code(scene: Scene) -> None:
    """A refusal by the device (signature, floor, size) has its code in the rollout."""
    rollout = scene.start()
    scene.turn()
    scene.say("d0", UpdatePhase.REFUSED, "signature_invalid")
    (canary,) = scene.service.get(rollout.id).group_members(0)
    assert (canary.standing, canary.code) == (MemberStanding.FAILED, "signature_invalid")


def test_abort_sets_the_remaining_back_and_ends(scene: Scene) -> None:
    """Committed devices stay; the others run their previous release again."""
    parts = scene.fleet.app.parts
    old = parts.versions.release("meter-1")
    pointer = {"release": old.name, "target": old.path, "sha256": old.sha256, "length_bytes": old.length_bytes}
    for device in scene.devices:
        parts.fleet.set_desired(device, **pointer)
    rollout = scene.start()
    scene.turn()
    scene.say("d0", UpdatePhase.COMMITTED)
    scene.service.abort(rollout.id)
    scene.turn()
    scene.turn()
    assert scene.told() == {"d0"}
    assert parts.fleet.device("d1").desired_release == "meter-1"
    assert scene.service.get(rollout.id).phase is RolloutPhase.ABORTED
    assert scene.standings(rollout) == {"d0": "committed", "d1": "cancelled", "d2": "cancelled"}


def test_a_restart_between_intent_and_telling_tells_again(scene: Scene) -> None:
    """The intent is on disk, the telling was not: it is done."""
    rollout = scene.start()
    ledger = scene.service.ledger
    ledger.change(rollout.id, {"opened": 1}, 0)
    ledger.change_member(rollout.id, "d0", {"standing": "assigning", "gen": 0})
    scene.fleet.restart()
    scene.turn()
    assert scene.told() == {"d0"}
    assert scene.standings(rollout)["d0"] == "assigned"


@pytest.mark.slow
def test_a_restart_between_telling_and_noting_does_not_tell_twice(scene: Scene) -> None:
    """The message was on disk, the record of it was not: its gen is used."""
    rollout = scene.start()
    scene.turn()
    gen = scene.fleet.app.parts.fleet.device("d0").desired_gen
    scene.service.ledger.change_member(rollout.id, "d0", {"standing": "assigning", "gen": gen - 1})
    scene.fleet.restart()
    scene.turn()
    assert scene.fleet.app.parts.fleet.device("d0").desired_gen == gen
    assert scene.standings(rollout)["d0"] == "assigned"


def test_a_release_regression_pauses_and_a_person_may_resume_over_it(scene: Scene) -> None:
    """Drift that began with the release stops its rollouts and no others."""
    rollout = scene.start()
    scene.turn()
    assert scene.service.pause_release(NEW, "release_regression") == (rollout.id,)
    scene.turn()
    assert scene.service.get(rollout.id).code == "release_regression"
    assert scene.service.pause_release("meter-1", "release_regression") == ()
    scene.service.resume(rollout.id)
    scene.turn()
    assert scene.service.get(rollout.id).phase is RolloutPhase.RUNNING


def test_a_rollout_whose_canary_answered_nothing_waits_and_says_so(scene: Scene) -> None:
    """On the card, by REST and in one event, until the device reports its first answer."""
    rollout, client = scene.start(), scene.fleet.client()
    scene.turn()
    scene.say("d0", UpdatePhase.COMMITTED, answered=0)
    scene.turn()
    assert scene.told() == {"d0"}
    body = client.get(f"/api/rollouts/{rollout.id}").json()
    assert (body["phase"], body["code"], body["groups"][0]["unproven"]) == ("running", "unproven", True)
    card = rollout_card(scene.service.get(rollout.id), scene.fleet.clock())
    assert ("no device of it has answered an input" in card.reason, card.groups[0].may_skip) == (True, True)
    assert [status.text for status in card.groups[0].states] == ["no input answered yet"]
    assert scene.fleet.codes().count("unproven") == 1
    assert scene.fleet.app.parts.situation.signals().unproven == (NEW,)
    with pytest.raises(RolloutRefusedError, match="waits until a device of canary answers an input: skip that group"):
        scene.start(canary=["d1"])
    scene.fleet.restart()
    scene.say("d0", UpdatePhase.COMMITTED, answered=4)
    scene.turn()
    assert scene.told() == {"d0", "d1", "d2"}
    found = scene.service.get(rollout.id)
    assert (found.code, found.text, found.members[0].answered) == ("group_opened", "", 4)
    assert scene.fleet.app.parts.situation.signals().unproven == ()


def test_a_second_rollout_of_a_release_is_for_those_that_failed_in_the_first(scene: Scene) -> None:
    """Those that run it are left out; the others are assigned it anew, with a generation of its own."""
    first = scene.start(canary=["d0", "d1"], success_ratio=0.5, error_ratio=1.0)
    scene.turn()
    scene.say("d0", UpdatePhase.ROLLED_BACK, "child_crashed")
    for device in ("d1", "d2"):
        scene.say(device, UpdatePhase.COMMITTED)
    scene.turn()
    assert scene.service.get(first.id).phase is RolloutPhase.SUCCEEDED
    before = scene.fleet.app.parts.fleet.device("d0").desired_gen
    second = scene.service.create(RolloutOptions(release=NEW, approved=True))
    assert [member.device for member in second.members] == ["d0"]
    scene.turn()
    assert scene.fleet.app.parts.fleet.device("d0").desired_gen > before
    scene.say("d0", UpdatePhase.COMMITTED)
    scene.turn()
    assert scene.service.get(second.id).phase is RolloutPhase.SUCCEEDED


def test_rollouts_on_disjoint_scopes_run_side_by_side(scene: Scene) -> None:
    """Each assigns its own devices, also where both take newcomers; one that shares a device is refused."""
    scene.devices["n0"] = scene.fleet.enrol("n0", "oslo")
    scene.is_there("n0")
    scene.publish(3)
    berlin = scene.start(scope=Scope(sites=("berlin",)), newcomers=True)
    oslo = scene.service.create(
        RolloutOptions(release="meter-3", scope=Scope(sites=("oslo",)), newcomers=True, approved=True)
    )
    scene.devices["n1"] = scene.fleet.enrol("n1", "oslo")
    scene.is_there("n1")
    with pytest.raises(RolloutRefusedError, match="open rollout"):
        scene.service.create(RolloutOptions(release="meter-3", scope=Scope(devices=("d1",))))
    scene.turn()
    assert {*scene.standings(berlin)} == {"d0", "d1", "d2"}
    assert {*scene.standings(oslo)} == {"n0", "n1"}
    assigned = {one.device: one.desired_release for one in scene.fleet.app.parts.fleet.devices()}
    assert assigned == {"d0": NEW, "d1": "", "d2": "", "n0": "meter-3", "n1": ""}


def test_a_person_lets_a_rollout_go_on_whose_canary_answered_nothing(scene: Scene) -> None:
    """By the skip that also passes a group without success; the name is kept."""
    rollout = scene.start()
    scene.turn()
    scene.say("d0", UpdatePhase.COMMITTED, answered=0)
    scene.service.skip(rollout.id, "canary", by="ada")
    scene.turn()
    assert scene.told() == {"d0", "d1", "d2"}
    assert scene.service.get(rollout.id).groups[0].skipped_by == "ada"


def test_devices_that_enrol_later_join_the_last_group(scene: Scene) -> None:
    """They wait until it is open; they join only if the rollout says so."""
    rollout = scene.start(newcomers=True)
    scene.devices["late"] = scene.fleet.enrol("late")
    scene.is_there("late")
    assert scene.standings(rollout)["late"] == "waiting"
    scene.say("d0", UpdatePhase.COMMITTED)
    assert scene.told() == {"d0", "d1", "d2", "late"}


def test_each_device_gets_the_bundle_of_its_target(scene: Scene) -> None:
    """The attribute ``target`` selects among a release's bundles; a device that can run none is left out."""
    for device in ("pi", "toaster"):
        scene.devices[device] = scene.fleet.enrol(device, target=device)
        scene.is_there(device)
    scene.publish(2, "pi")
    rollout = scene.start(canary=["pi"])
    scene.turn()
    desired = scene.fleet.app.parts.fleet.device("pi").desired
    assert desired is not None
    assert desired.target == "meter-2/pi.tfb"
    assert "toaster" not in scene.standings(rollout)


def test_rest_says_whom_an_act_tells_and_does_it(scene: Scene) -> None:
    """Foresight, retry, and a skip that needs a name."""
    rollout, client = scene.failed_canary(), scene.fleet.client()
    path = f"/api/rollouts/{rollout.id}"
    seen = client.get(f"{path}/foresight", params={"act": "resume", "how": "retry"}).json()
    assert (seen["assigns"], seen["tells"], seen["text"]) == (
        ["d0"], ["d0"], "1 device assigned now: d0; about 16 B over the network",
    )  # fmt: skip
    assert client.post(f"{path}/resume", json={"only": ["d1"]}).status_code == 409
    assert client.post(f"{path}/skip", json={"group": "canary"}).status_code == 422
    skipped = client.post(f"{path}/skip", json={"group": "canary", "by": "ada"}).json()
    assert (skipped["phase"], skipped["groups"][0]["skipped_by"], skipped["failed"]) == ("running", "ada", 1)


@pytest.mark.parametrize(
    "request_",
    [
        RolloutOptions(release=NEW, canary=["nobody"]),
        RolloutOptions(release=NEW, canary=0),
        RolloutOptions(release=NEW, canary=["d0", "d0"]),
        RolloutOptions(release=NEW, canary=1, success_ratio=1.1),
        RolloutOptions(release=NEW, canary=1, error_ratio=float("nan")),
        RolloutOptions(release=NEW, canary=1, probation_s=1e300),
        RolloutOptions(release=NEW, canary=1, deadline_s=float("nan")),
        RolloutOptions(release=NEW, canary=10**30),
        RolloutOptions(release=NEW, canary=["d0"], groups=[[]]),
    ],
)
def test_refuses_what_can_not_be(scene: Scene, request_: RolloutOptions) -> None:
    """Unknown or repeated devices, no canary, impossible ratios: coded, and nothing is stored."""
    with pytest.raises(RolloutRefusedError):
        scene.service.create(request_)
    assert scene.service.list() == ()


def test_refuses_an_unknown_release_and_a_second_open_rollout(scene: Scene) -> None:
    """Two rollouts must not pull at one device."""
    with pytest.raises(UnknownReleaseError):
        scene.service.create(RolloutOptions(release="meter-9"))
    scene.start()
    with pytest.raises(RolloutRefusedError, match="open rollout"):
        scene.start()


def test_a_rollout_that_only_waits_for_who_is_away_says_how_it_ends(scene: Scene) -> None:
    """It may never end by itself, so the text does not suggest to wait."""
    scene.is_there("d2", DeviceState.LOST)
    scene.publish(3)
    rollout, other = scene.start(), RolloutOptions(release="meter-3", canary=["d0"])
    with pytest.raises(RolloutRefusedError, match=r"running[)]: let it end, or abort it"):
        scene.service.create(other)
    scene.turn()
    scene.is_there("d0", DeviceState.LOST)
    with pytest.raises(RolloutRefusedError, match=r"waits for devices that are away [(]d0[)]: remove those"):
        scene.service.create(other)
    scene.is_there("d0")
    for device in ("d0", "d1"):
        scene.say(device, UpdatePhase.COMMITTED)
    with pytest.raises(RolloutRefusedError, match=r"waits for devices that are away [(]d2[)]: remove those"):
        scene.service.create(other)
    scene.fleet.app.parts.revocations.remove("d2")
    scene.turn()
    assert scene.service.get(rollout.id).phase is RolloutPhase.SUCCEEDED
    scene.service.create(other)


def test_rest_makes_watches_and_steers(scene: Scene) -> None:
    """Over HTTP: made, approved, counted, paused, resumed, aborted; a wrong phase is a coded conflict."""
    client = scene.fleet.client()
    made = client.post("/api/rollouts", json={"release": NEW, "defect_ratio": 0.6}).json()
    assert (made["phase"], [group["total"] for group in made["groups"]]) == ("awaiting_approval", [3, 0])
    for verb, phase in (("approve", "running"), ("pause", "paused"), ("resume", "running"), ("abort", "aborting")):
        assert client.post(f"/api/rollouts/{made['id']}/{verb}").json()["phase"] == phase
    refused = client.post(f"/api/rollouts/{made['id']}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "rollout_phase")
    seen = client.get(f"/api/rollouts/{made['id']}/foresight", params={"act": "resume"})
    assert (seen.status_code, seen.json()["code"]) == (409, "rollout_phase")
    assert [item["id"] for item in client.get("/api/rollouts").json()["rollouts"]] == [made["id"]]
    assert client.get("/api/rollouts/none").json()["code"] == "unknown_rollout"
    assert scene.fleet.client(None).get("/api/rollouts").status_code == 401


def test_a_window_reaches_the_devices_and_the_way_back_has_none(scene: Scene) -> None:
    """Through REST, the store and MQTT; an abort waits for no window, not even that of the assignment before."""
    client, window = (
        scene.fleet.client(),
        {"start": "22:00", "end": "04:00", "days": ["sat"], "time_zone": "Asia/Tokyo"},
    )
    body = {"release": "meter-1", "canary": ["d0"], "approved": True, "window": window}
    made = client.post("/api/rollouts", json=body).json()
    scene.turn()
    assert (made["window"], client.get(f"/api/rollouts/{made['id']}").json()["window"]) == (window, window)
    assert to_document(scene.devices["d0"].desired())["window"] == window
    scene.service.abort(made["id"])
    scene.turn()
    rollout = scene.start(window=MaintenanceWindow(start="01:00", end="02:00"))
    scene.turn()
    scene.service.abort(rollout.id)
    scene.turn()
    assert scene.devices["d0"].desired().window is None


@pytest.mark.parametrize(
    ("window", "status", "says"),
    [
        ({"start": "24:00", "end": "01:00"}, 422, "start"),
        ({"start": "23:00", "end": "01:00", "days": ["monday"]}, 422, "days"),
        ({"start": "23:00", "end": "01:00", "time_zone": "Europe/Berlim"}, 422, "Europe/Berlim"),
        ({"start": "23:00", "end": "01:00", "time_zone": "../../etc/passwd"}, 422, "IANA"),
    ],
)
def test_a_window_that_is_none_is_refused_by_name(scene: Scene, window: dict, status: int, says: str) -> None:
    """No device is assigned anything."""
    answer = scene.fleet.client().post("/api/rollouts", json={"release": NEW, "canary": ["d0"], "window": window})
    assert (answer.status_code, says in answer.text) == (status, True)


def test_the_shadows_of_the_devices_are_ordered_and_summed(scene: Scene) -> None:
    """Through REST, the store and MQTT: while it runs, also of a device that refused, and over a restart."""
    client, order = scene.fleet.client(), {"seconds": 60.0, "max_ratio": 0.1, "required": True}
    body = {"release": NEW, "canary": ["d0", "d1"], "approved": True, "error_ratio": 0.9, "shadow": order}
    made = client.post("/api/rollouts", json=body).json()
    scene.turn()
    assert (made["shadow"], made["shadow_counts"]) == (order, None)
    assert to_document(scene.devices["d0"].desired())["shadow"] == order
    seen = ShadowCounts(
        seconds=60, n=90, disagreed=4, skipped=10, pairs=(ShadowPair("3", "8", 4),), run_steps={"8": 90}
    )
    scene.say("d0", UpdatePhase.SHADOW, shadow=ShadowCounts(seconds=9, n=9))
    running = client.get(f"/api/rollouts/{made['id']}").json()["shadow_counts"]
    assert (running["devices"], running["n"]) == (1, 9)
    scene.say("d0", UpdatePhase.COMMITTED, shadow=seen)
    worse = ShadowCounts(seconds=60, n=10, disagreed=6, pairs=(ShadowPair("3", "8", 1), ShadowPair("1", "7", 5)))
    scene.say("d1", UpdatePhase.REFUSED, "shadow_disagreement", shadow=worse)
    scene.fleet.restart()
    found = scene.fleet.client().get(f"/api/rollouts/{made['id']}").json()["shadow_counts"]
    assert [found[key] for key in ("devices", "n", "disagreed", "skipped", "p50_ms")] == [2, 100, 10, 10, 4.0]
    assert (found["disagreement_ratio"], [pair["n"] for pair in found["pairs"]]) == (0.1, [5, 5])


def test_the_replays_of_the_devices_are_summed(scene: Scene) -> None:
    """In probation and after the commit, over a restart; a device that had kept no inputs counts as one that told."""
    client = scene.fleet.client()
    body = {"release": NEW, "canary": ["d0", "d1"], "approved": True, "error_ratio": 0.9}
    made = client.post("/api/rollouts", json=body).json()
    scene.turn()
    assert made["replay_counts"] is None
    scene.say("d0", UpdatePhase.PROBATION, replay=ShadowCounts(n=60, disagreed=6, pairs=(ShadowPair("3", "8", 6),)))
    assert client.get(f"/api/rollouts/{made['id']}").json()["replay_counts"]["n"] == 60
    scene.say("d0", UpdatePhase.COMMITTED, replay=ShadowCounts(n=60, disagreed=6))
    scene.say("d1", UpdatePhase.COMMITTED, replay=ShadowCounts())
    scene.fleet.restart()
    found = scene.fleet.client().get(f"/api/rollouts/{made['id']}").json()
    assert [found["replay_counts"][key] for key in ("devices", "n", "disagreed")] == [2, 60, 6]
    assert found["shadow_counts"] is None


def test_a_rate_limit_reaches_the_devices_and_not_the_way_back(scene: Scene) -> None:
    """Through REST, over a restart; none by default, and an impossible one is refused by name."""
    client, body = scene.fleet.client(), {"release": NEW, "canary": ["d0"], "approved": True}
    for wrong in (-1, 2**40 + 1):
        refused = client.post("/api/rollouts", json={**body, "max_bytes_per_s": wrong})
        assert (refused.status_code, "max_bytes_per_s" in refused.text) == (422, True)
    made = client.post("/api/rollouts", json={**body, "max_bytes_per_s": 4096}).json()
    scene.fleet.restart()
    scene.turn()
    assert scene.devices["d0"].desired().max_bytes_per_s == 4096
    assert scene.fleet.client().get(f"/api/rollouts/{made['id']}").json()["max_bytes_per_s"] == 4096
    scene.service.abort(made["id"])
    scene.turn()
    assert scene.devices["d0"].desired().max_bytes_per_s == 0


def test_the_way_back_has_no_shadow(scene: Scene) -> None:
    """A release that served is not compared again."""
    rollout = scene.start(shadow=ShadowOrder(60.0))
    scene.turn()
    scene.service.abort(rollout.id)
    scene.turn()
    assert scene.devices["d0"].desired().shadow is None


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": 1e9}, {"seconds": 1, "max_ratio": 1.1}, {}])
def test_an_impossible_shadow_is_refused(scene: Scene, wrong: dict) -> None:
    """No device is assigned anything."""
    answer = scene.fleet.client().post("/api/rollouts", json={"release": NEW, "canary": ["d0"], "shadow": wrong})
    assert (answer.status_code, "shadow" in answer.text) == (422, True)


def test_a_rollout_names_how_many_devices_wait_and_why(scene: Scene) -> None:
    """Through REST, the card and the rows of the command line, until the device goes on; an empty code is a window."""
    rollout = scene.start(canary=["d0", "d1", "d2"])
    scene.turn()
    for device, code in (("d0", "clock_behind"), ("d1", "clock_behind"), ("d2", "")):
        scene.say(device, UpdatePhase.DEFERRED, code)
    body = scene.fleet.client().get(f"/api/rollouts/{rollout.id}").json()
    assert body["waiting"] == {"clock_behind": 2, "window_closed": 1}
    assert [one["waits_for"] for one in body["members"]] == ["clock_behind", "clock_behind", "window_closed"]
    (known,) = scene.service.up_to_date(scene.service.get(rollout.id))
    (group, _) = rollout_card(known, 0).groups
    assert [state.text for state in group.states][:2] == ["2 wait: clock behind", "1 waits: window closed"]
    assert group.members.rows[0].standing.text == "under way, waits: clock behind"
    assert rollout_row(known)["waiting"] == body["waiting"]
    scene.say("d0", UpdatePhase.DOWNLOADING)
    assert scene.fleet.client().get(f"/api/rollouts/{rollout.id}").json()["waiting"]["clock_behind"] == 1


def test_a_silent_device_that_is_heard_again_is_assigned(scene: Scene) -> None:
    """Nothing but the time of its last message changes, after turns that had nothing to do."""
    scene.fleet.clock.now_ms += 8_000_000
    rollout = scene.start()
    scene.turn()
    scene.turn()
    assert scene.standings(rollout)["d0"] == "pending"
    with scene.fleet.app.parts.database.begin() as connection:
        touch_devices(connection, ["d0"], scene.fleet.clock())
    scene.fleet.turn()
    assert scene.told() == {"d0"}


def test_a_deadline_ends_a_rollout_in_which_nothing_happens(scene: Scene) -> None:
    """The turns before had nothing to do."""
    rollout = scene.start(deadline_s=60.0)
    scene.turn()
    scene.fleet.clock.now_ms += 60_000
    scene.turn()
    assert scene.standings(rollout)["d0"] == "assigned"
    scene.fleet.clock.now_ms += 1
    scene.turn()
    assert scene.standings(rollout)["d0"] == "stuck"


def test_a_rollout_is_read_again_only_if_it_changed(scene: Scene) -> None:
    """By this server or by another process: also where only a member did."""
    rollout, ledger = scene.start(), scene.service.ledger
    scene.turn()
    (before,) = ledger.open()
    assert ledger.open()[0] is before
    assert ledger.newest() is before
    RolloutLedger(ledger.database).change_member(rollout.id, "d0", {"code": "odd"})
    (after,) = ledger.open()
    assert [one.code for one in after.members if one.device == "d0"] == ["odd"]
    scene.service.pause(rollout.id)
    assert ledger.open()[0].phase is RolloutPhase.PAUSED


def test_of_a_rollout_only_the_members_that_changed_are_read(scene: Scene) -> None:
    """Each member is read once, then those that changed or came, whoever wrote them; they stay by group and device."""
    rollout, ledger, read = scene.start(), scene.service.ledger, list[str]()
    scene.turn()
    ledger = RolloutLedger(ledger.database)
    everyone = ledger.open()[0].members
    note_members_read(ledger.database, read)
    scene.service.ledger.change_member(rollout.id, "d2", {"code": "odd"})
    scene.service.ledger.add_members(rollout.id, [Member(device="a0", group=1)])
    (after,) = ledger.open()
    assert read == ["a0", "d2"]
    assert [one.device for one in after.members] == sorted(
        [*(one.device for one in everyone), "a0"], key=lambda name: (name != "d0", name)
    )  # fmt: skip
    assert after == RolloutLedger(ledger.database).get(rollout.id)


def test_of_a_rollout_of_one_device_its_change_is_read(scene: Scene) -> None:
    """By a ledger that knew it before; what another process adds to the text of the rollout comes without members."""
    rollout, read = scene.start(scope=Scope(devices=("d0",))), list[str]()
    ledger = RolloutLedger(scene.service.ledger.database)
    ledger.open()
    note_members_read(ledger.database, read)
    scene.service.ledger.change(rollout.id, {"text": "so"}, 5)
    assert ledger.open()[0].text == "so"
    assert not read
    scene.service.ledger.change_member(rollout.id, "d0", {"code": "odd"})
    assert [one.code for one in ledger.open()[0].members] == ["odd"]


def test_members_of_a_restored_database_are_all_read(scene: Scene) -> None:
    """Its numbers may be below those that are known."""
    rollout, ledger = scene.start(), scene.service.ledger
    ledger.open()
    with ledger.database.begin() as connection:
        connection.execute(MEMBERS.update().where(MEMBERS.c.device == "d1").values(code="old", change=0))
        connection.execute(ROLLOUTS.update().values(change=0))
    assert {one.device: one.code for one in ledger.get(rollout.id).members}["d1"] == "old"


def test_a_turn_does_what_a_new_rollout_asks_after_turns_with_nothing_to_do(scene: Scene) -> None:
    """One that waits for its canary, then a second on other devices."""
    scene.start(canary=["d0"], scope=Scope(devices=("d0",)))
    scene.turn()
    scene.turn()
    scene.start(canary=["d1"], scope=Scope(devices=("d1",)))
    scene.turn()
    assert scene.told() == {"d0", "d1"}
