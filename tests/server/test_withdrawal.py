"""Withdrawn releases: in no rollout, offered to no device; devices that still run one are reported."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from server.cli import main
from server.dashboard.pages.rollouts import offers, release_rows
from server.errors import ReleaseWithdrawnError, UnknownReleaseError
from server.rollout.create import RolloutOptions
from server.rollout.model import RolloutPhase
from wire.canonical import sha256_hex
from wire.messages import DeviceState, InstalledRelease, Reported, State, UpdatePhase, UpdateStatus
from wire.tuf_target import TargetCustom, target_path

if TYPE_CHECKING:
    from tests.server.conftest import FakeDevice, MemoryFleet


def publish(fleet: MemoryFleet, version: int) -> str:
    """Register a release whose bundle is here; return its digest."""
    data, versions = f"bundle {version}".encode(), fleet.app.parts.versions
    versions.blobs.put(sha256_hex(data), [data])
    custom, path = TargetCustom(model="m", version=version, target="g"), target_path("m", version, "g")
    versions.register(path, custom, sha256=sha256_hex(data), length_bytes=len(data), now_ms=version)
    return sha256_hex(data)


def present(fleet: MemoryFleet, name: str = "cam-1") -> FakeDevice:
    """Return a device that has reported."""
    device = fleet.enrol(name)
    device.say("state", State(state=DeviceState.READY), retain=True)
    fleet.turn()
    return device


def say_runs(fleet: MemoryFleet, device: FakeDevice, release: str, sha256: str) -> None:
    """Let a device report that it runs a release and has committed its assignment."""
    gen = fleet.app.parts.fleet.device(device.identity.device).desired_gen
    update = UpdateStatus(phase=UpdatePhase.COMMITTED, gen=gen, release=release)
    device.say("reported", Reported(gen=gen, current=InstalledRelease(release, sha256), update=update), retain=True)
    fleet.turn()


def roll_out(fleet: MemoryFleet, release: str, **options: object) -> str:
    """Roll a release out; return the rollout's id."""
    made = fleet.app.parts.rollouts.create(RolloutOptions(release=release, canary=1, approved=True, **options))  # type: ignore[arg-type]
    fleet.turn()
    return made.id


def settle(fleet: MemoryFleet) -> None:
    """Run the checks that are due every few seconds."""
    for _ in range(3):
        fleet.clock.now_ms += 3_000
        fleet.turn()


def test_a_running_rollout_of_it_stops_and_who_was_told_stays_with_what_it_runs(fleet: MemoryFleet) -> None:
    """The device that has not committed is set back."""
    first, device = publish(fleet, 1), present(fleet)
    publish(fleet, 2)
    roll_out(fleet, "m-1")
    say_runs(fleet, device, "m-1", first)
    settle(fleet)
    rollout = roll_out(fleet, "m-2")
    assert device.desired().release == "m-2"
    fleet.client().post("/api/releases/m-2/withdraw", json={"why": "wrong labels", "by": "ada"})
    settle(fleet)
    found = fleet.app.parts.rollouts.get(rollout)
    assert (found.phase, found.code) == (RolloutPhase.ABORTED, "release_withdrawn")
    assert found.text.startswith("Aborted by ada: the release was withdrawn: wrong labels; ")
    assert device.desired().release == "m-1"


def test_no_rollout_of_it_can_be_made(fleet: MemoryFleet) -> None:
    """By API and page; publishing the same metadata again changes nothing."""
    publish(fleet, 1)
    present(fleet)
    answer = fleet.client().post("/api/releases/m-1/withdraw", json={"why": "wrong labels"})
    assert (answer.status_code, answer.json()["withdrawn_why"]) == (200, "wrong labels")
    publish(fleet, 1)
    with pytest.raises(ReleaseWithdrawnError, match="got m-1, which was withdrawn"):
        roll_out(fleet, "m-1")
    assert fleet.client().post("/api/rollouts", json={"release": "m-1"}).status_code == 409
    assert offers(fleet.app.parts.versions.releases(), fleet.app.parts.fleet.devices()) == ()


def test_it_outlives_a_restart_that_registers_every_release_again(fleet: MemoryFleet) -> None:
    """Signed metadata that still lists the release does not undo a person's decision."""
    publish(fleet, 1)
    fleet.app.parts.withdrawal.withdraw("m-1", "why")
    fleet.restart()
    assert fleet.app.parts.versions.release("m-1").withdrawn_why == "why"


def test_where_it_still_runs_is_shown(fleet: MemoryFleet) -> None:
    """By API, command and page: devices continue to run it."""
    sha256, device = publish(fleet, 1), present(fleet)
    roll_out(fleet, "m-1")
    say_runs(fleet, device, "m-1", sha256)
    assert fleet.client().post("/api/releases/m-1/withdraw").json()["running"] == ["cam-1"]
    assert fleet.client().get("/api/releases/m-1").json()["running"] == ["cam-1"]
    settle(fleet)
    assert device.desired().release == "m-1"
    row = release_rows(fleet.app.parts.versions.releases(), fleet.app.parts.fleet.devices()).rows[0]
    assert (row.running, row.devices) == (1, ("cam-1",))
    done = CliRunner().invoke(main, ["releases", str(fleet.state.path)])
    assert done.stdout.splitlines()[1].split("\t")[0:5:4] == ["m-1", "1"]
    assert done.stdout.splitlines()[1].split("\t")[-1] == "cam-1"
    done = CliRunner().invoke(main, ["releases", "withdraw", str(fleet.state.path), "m-1"])
    assert done.stdout.splitlines() == ["m-1 withdrawn; it still runs on 1 device", "cam-1"]


def test_it_is_shown_until_no_device_runs_it(fleet: MemoryFleet) -> None:
    """However many releases came after it; then it is one of the old ones, and the lists name no device."""
    first, device = publish(fleet, 1), present(fleet)
    roll_out(fleet, "m-1")
    say_runs(fleet, device, "m-1", first)
    fleet.app.parts.withdrawal.withdraw("m-1")
    newer = [publish(fleet, version) for version in range(2, 62)]

    def shown() -> list[str]:
        rows = release_rows(fleet.app.parts.versions.releases(), fleet.app.parts.fleet.devices()).rows
        return [row.name for row in rows]

    def still_on() -> dict[str, list[str]]:
        done = CliRunner().invoke(main, ["releases", str(fleet.state.path), "--json"])
        return {row["release"]: row["still_on"] for row in json.loads(done.stdout) if row["still_on"]}

    def concerns() -> dict[str, list[str]]:
        return {one["signal"]: one["names"] for one in fleet.client().get("/api/overall").json()["concerns"]}

    assert shown()[0] == "m-1"
    assert still_on() == {"m-1": ["cam-1"]}
    assert concerns()["withdrawn"] == ["cam-1"]
    say_runs(fleet, device, "m-2", newer[0])
    assert "m-1" not in shown()
    assert still_on() == {}
    assert "withdrawn" not in concerns()


def test_a_device_that_was_left_waiting_for_it_is_told_to_stay(fleet: MemoryFleet) -> None:
    """Its rollout is over long ago; it must not fetch the release years later."""
    first, device = publish(fleet, 1), present(fleet)
    second = publish(fleet, 2)
    roll_out(fleet, "m-1")
    say_runs(fleet, device, "m-1", first)
    settle(fleet)
    fleet.app.parts.fleet.set_desired("cam-1", release="m-2", target="t", sha256=second, length_bytes=9)
    fleet.app.parts.withdrawal.withdraw("m-2")
    settle(fleet)
    assert device.desired().release == "m-1"


def test_the_command_withdraws_beside_a_running_server(fleet: MemoryFleet) -> None:
    """The server follows in its next turns; an unknown release is named, and twice is once."""
    publish(fleet, 1)
    present(fleet)
    rollout = roll_out(fleet, "m-1")
    for _ in range(2):
        done = CliRunner().invoke(main, ["releases", "withdraw", str(fleet.state.path), "m-1", "--why", "bad"])
        assert (done.exit_code, done.stdout) == (0, "m-1 withdrawn; it still runs on 0 devices\n")
    settle(fleet)
    assert fleet.app.parts.rollouts.get(rollout).phase is RolloutPhase.ABORTED
    assert fleet.codes().count("withdrawn") == 1
    with pytest.raises(UnknownReleaseError, match="got 'm-9'"):
        fleet.app.parts.withdrawal.withdraw("m-9")


def test_withdrawing_again_for_another_reason_is_refused_and_the_first_stays(fleet: MemoryFleet) -> None:
    """The events must show the reason that a person gave; repeating it changes nothing."""
    publish(fleet, 1)
    command = ["releases", "withdraw", str(fleet.state.path), "m-1", "--why"]
    assert CliRunner().invoke(main, [*command, "bad"]).exit_code == 0
    again = CliRunner().invoke(main, [*command, "worse"])
    assert (
        again.exit_code,
        "got 'worse' for m-1, which was withdrawn already with the reason 'bad'" in again.stderr,
    ) == (1, True)
    assert fleet.app.parts.versions.release("m-1").withdrawn_why == "bad"


@pytest.mark.parametrize("action", ["revoke", "retire"])
def test_a_revoked_or_retired_member_leaves_the_rollout(fleet: MemoryFleet, action: str) -> None:
    """It counts neither as a success nor as a failure."""
    publish(fleet, 1)
    for name in ("cam-1", "cam-2"):
        present(fleet, name)
    rollout = roll_out(fleet, "m-1")
    told = next(one.device for one in fleet.app.parts.fleet.devices() if one.desired_release == "m-1")
    fleet.client().post(f"/api/devices/{told}/{action}")
    settle(fleet)
    standings = {one.device: one.standing.value for one in fleet.app.parts.rollouts.get(rollout).members}
    assert standings[told] == "cancelled"


def test_a_device_that_still_runs_it_keeps_all_from_being_well(fleet: MemoryFleet) -> None:
    """It runs until a person rolls another release out; nothing else would be a reminder."""
    say_runs(fleet, present(fleet), "m-1", publish(fleet, 1))
    situation = fleet.app.parts.situation
    assert situation.signals().withdrawn == ()
    fleet.app.parts.withdrawal.withdraw("m-1")
    assert situation.signals().withdrawn == ("cam-1",)
    assert "1 device runs a withdrawn release: cam-1" in situation.overall().text


@pytest.mark.parametrize("args", [["rollback", "--help"], ["rollback", "state", "cam-1"], ["revok", "state", "cam-1"]])
def test_a_command_that_there_is_not_is_named_with_those_that_there_are(args: list[str]) -> None:
    """Not the help of another one, nor an error about its arguments."""
    done = CliRunner().invoke(main, ["devices", *args])
    assert done.exit_code == 2
    known = (
        "benchmark, command, commission, history, list, logs, mute, ran, remove, rename, retire, revoke, show, tag, "
        "telemetry, unmute, usage"
    )
    assert f"Expected a command ({known}) or a state directory, got '{args[0]}'" in done.stderr
    assert ("did you mean 'revoke'" in done.stderr) is (args[0] == "revok")
