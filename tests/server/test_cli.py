"""fleet-server: exit codes, coded errors, and nothing half-written."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from server.app.server import ServerApp
from server.app.state_directory import RunAddress, StateDirectory
from server.cli import main
from server.clock import system_now_ms
from server.drift.ledger import Finding
from server.drift.verdicts import DriftVerdict, VerdictKind
from server.rollout.model import Group, Member, MemberStanding, Rollout, RolloutPhase
from server.rollout.service import RolloutService
from wire.memory_broker import MemoryBroker, MemoryTransport
from wire.messages import Severity

if TYPE_CHECKING:
    from tests.server.conftest import FakeClock, MemoryFleet


def _run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_init_makes_a_private_directory_with_keys_and_tokens(tmp_path: Path) -> None:
    """Everything ``run`` and the build host need."""
    code, _, _ = _run("init", tmp_path / "s")
    assert code == 0
    assert {path.name for path in (tmp_path / "s").iterdir()} >= {"server.toml", "online.pub.json", "keys", "tuf"}


def test_init_leaves_a_used_directory_alone(tmp_path: Path) -> None:
    """Nothing is overwritten."""
    (tmp_path / "mine").write_text("x")
    code, _, error = _run("init", tmp_path)
    assert (code, error.split(":")[0]) == (1, "error [state_directory]")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("command", [
    ["resume", "r"], ["skip-group", "r", "--group", "canary", "--by", "ada"],
    ["run"], ["status"], ["devices"], ["events"], ["rollouts"], ["claim", "--site", "a", "--device", "b"],
])  # fmt: skip
def test_every_command_refuses_a_foreign_directory(tmp_path: Path, command: list[str]) -> None:
    """The error names the command that creates one."""
    code, _, error = _run(command[0], tmp_path, *command[1:])
    assert (code, "fleet-server init" in error) == (1, True)


@pytest.mark.parametrize("layout", ["2", "", "x" * 99])
def test_a_state_directory_of_another_layout_is_refused(state: StateDirectory, layout: str) -> None:
    """An older server would not find files that a newer one stores elsewhere."""
    state.layout.write_text(layout)
    code, _, error = _run("devices", state.path)
    assert (code, error.split(", got")[0]) == (
        1, "error [state_directory]: Expected a state directory of layout 1",
    )  # fmt: skip


def test_a_state_directory_without_a_layout_is_the_first(state: StateDirectory) -> None:
    """Commit 42f48ee wrote none."""
    state.layout.unlink()
    assert _run("devices", state.path)[0] == 0


def test_an_attribute_given_twice_is_refused_with_both_values(fleet: MemoryFleet) -> None:
    """The intended value is unknown; no claim is made."""
    given = ["--attribute", "lens=wide", "--attribute", "lens=tele"]
    code, out, error = _run("claim", fleet.state.path, "--site", "a", "--device", "b", *given)
    assert (code, out, "got 'wide' and 'tele'" in error) == (2, "", True)


@pytest.mark.parametrize("command", [["init"], ["devices", "list"], ["backup", "s"]])
def test_an_empty_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """A variable of the shell that is not set would otherwise mean the current folder."""
    monkeypatch.chdir(tmp_path)
    code, _, error = _run(*command, "")
    assert (code, "Expected a path, got an empty one" in error) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_claim_prints_a_claim_and_devices_lists_who_used_it(fleet: MemoryFleet) -> None:
    """Both work beside a running server."""
    code, claim, _ = _run("claim", fleet.state.path, "--site", "berlin", "--device", "cam-9", "--attribute", "lens=b")
    assert code == 0
    fleet.clock.now_ms = system_now_ms()
    fleet.app.parts.enrolment.enrol(claim.strip())
    _, listed, _ = _run("devices", fleet.state.path, "--json")
    assert [(row["device"], row["attributes"]) for row in json.loads(listed)] == [("cam-9", {"lens": "b"})]
    _, table, _ = _run("devices", fleet.state.path)
    assert table.splitlines()[1].startswith("cam-9\tberlin\tinit")


def test_a_bad_name_or_attribute_is_an_error_with_a_code(state: StateDirectory) -> None:
    """Wrong usage is 2, a refusal 1."""
    code, _, error = _run("claim", state.path, "--site", "Berlin!", "--device", "a")
    assert (code, error.startswith("error [name_refused]")) == (1, True)
    code, _, _ = _run("claim", state.path, "--site", "a", "--device", "a", "--attribute", "x")
    assert code == 2


def test_trust_refuses_a_root_that_is_none(state: StateDirectory, tmp_path: Path) -> None:
    """Devices would be handed rubbish."""
    (tmp_path / "root.json").write_text("{}")
    code, _, error = _run("trust", state.path, "--root", tmp_path / "root.json")
    assert (code, error.startswith("error [metadata_refused]")) == (1, True)


def test_status_of_a_stopped_server_is_an_exit_code(state: StateDirectory) -> None:
    """Scripts wait on it; a server that never ran has no age."""
    code, out, _ = _run("status", state.path)
    found = json.loads(out)
    assert (code, found["running"], found["ok"], found["age_s"]) == (1, False, False, None)


def test_status_of_a_server_that_was_killed_says_for_how_long(fleet: MemoryFleet) -> None:
    """Its files survive it, its lock does not. A process with the lock that does not answer is unhealthy."""
    fleet.clock.now_ms = system_now_ms() - 60_000
    fleet.turn()
    fleet.state.write_address(RunAddress(http_url="http://127.0.0.1:9", mqtt_host="127.0.0.1", mqtt_port=9, pid=1))
    code, out, _ = _run("status", fleet.state.path)
    found = json.loads(out)
    assert (code, found["running"], found["ok"], found["text"]) == (1, True, False, "does not answer: see its log")
    fleet.app.stop()
    code, out, _ = _run("status", fleet.state.path)
    found = json.loads(out)
    assert (code, found["running"], found["ok"]) == (1, False, False)
    assert 60 <= found["age_s"] < 90


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_teaches_by_example(command: str) -> None:
    """The example is a line that works, not a paragraph that was wrapped."""
    code, text, _ = _run(command, "--help")
    assert code == 0
    first = "https://" if command in {"login", "logout"} else "state"
    assert re.search(rf"\n    fleet-server {command} ([a-z-]+ )?{first}", text)


def test_the_exit_codes_are_documented() -> None:
    """Scripts rely on them."""
    _, text, _ = _run("--help")
    assert "0  done" in text
    assert "error [code]" in text


def test_events_are_rows_that_can_be_followed(fleet: MemoryFleet) -> None:
    """Oldest first; a tab in a text breaks no column; the same as JSON."""
    for number in range(3):
        fleet.app.parts.events.add(number, "test", f"code-{number}", Severity.INFO, "a\tb\nc", device="cam-1")
    _, table, _ = _run("events", fleet.state.path, "--limit", 2)
    names, *lines = [line.split("\t") for line in table.splitlines()]
    assert [dict(zip(names, line, strict=True))["code"] for line in lines] == ["code-1", "code-2"]
    assert lines[0][-1] == "a b c"
    _, listed, _ = _run("events", fleet.state.path, "--after", lines[0][0], "--json")
    assert [(row["code"], row["text"]) for row in json.loads(listed)] == [("code-2", "a\tb\nc")]
    assert json.loads(_run("events", fleet.state.path, "--device", "cam-2", "--json")[1]) == []


def test_verdicts_are_rows_open_and_past(fleet: MemoryFleet) -> None:
    """The newest first; a list of devices is a list in JSON and has commas in a table; --open leaves out the past."""
    verdicts = fleet.app.parts.drift.verdicts
    for number, kind in enumerate((VerdictKind.DEVICE_FAULT, VerdictKind.SITE)):
        found = DriftVerdict(kind=kind, devices=("cam-1", "cam-2"), attributes=(("site", "berlin"),))
        finding = Finding(verdict=found, cause="dark\ter", release="m-1", model="m")
        verdicts.note([finding], 50 * number, 50 * number + 5, quiet_ms=20, judged=True)
    _, table, _ = _run("verdicts", fleet.state.path)
    names, *lines = [line.split("\t") for line in table.splitlines()]
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    assert [(row["kind"], row["devices"], row["since_ms"], row["until_ms"], row["cause"]) for row in rows] == [
        ("site", "cam-1,cam-2", "50", "0", "dark er"), ("device_fault", "cam-1,cam-2", "0", "55", "dark er"),
    ]  # fmt: skip
    assert all(row["action"] for row in rows)
    (only,) = json.loads(_run("verdict", fleet.state.path, "--open", "--json")[1])
    assert (only["kind"], only["devices"], only["attributes"]) == ("site", ["cam-1", "cam-2"], {"site": "berlin"})
    assert len(json.loads(_run("verdicts", fleet.state.path, "--limit", 1, "--json")[1])) == 1


def test_rollouts_say_how_many_devices_are_how_far(fleet: MemoryFleet) -> None:
    """One line a rollout."""
    members = (
        Member(device="a", group=0, standing=MemberStanding.COMMITTED),
        Member(device="b", group=1, standing=MemberStanding.FAILED),
        Member(device="c", group=1, standing=MemberStanding.CANCELLED),
    )
    groups = (
        Group(name="canary", success_ratio=1.0, error_ratio=0.0),
        Group(name="rest", success_ratio=1.0, error_ratio=0.0),
    )
    fleet.app.parts.rollouts.ledger.add(
        Rollout(id="r1", release="m-2", groups=groups, members=members, phase=RolloutPhase.PAUSED, text="1 of 1 failed")
    )
    _, table, _ = _run("rollouts", fleet.state.path)
    names, line = [line.split("\t") for line in table.splitlines()]
    row = dict(zip(names, line, strict=True))
    assert (row["phase"], row["committed"], row["failed"], row["devices"]) == ("paused", "1", "1", "2")
    assert json.loads(_run("rollouts", fleet.state.path, "--json")[1])[0]["groups"] == ["canary", "rest"]


def test_one_rollout_is_shown_with_its_groups_its_bounds_and_who_failed(fleet: MemoryFleet) -> None:
    """What a person asks before a decision; as JSON the same figures."""
    failed = [
        Member(device=f"b-{n:02}", group=1, standing=MemberStanding.FAILED, code="probe_failed") for n in range(51)
    ]
    groups = tuple(Group(name=name, success_ratio=0.9, error_ratio=0.2) for name in ("canary", "rest"))
    first = Member(device="a", group=0, standing=MemberStanding.COMMITTED, gen=1, forecast_bytes=1_000, air_bytes=990)
    fleet.app.parts.rollouts.ledger.add(
        Rollout(
            id="r1", release="m-2", groups=groups, members=(first, *failed), phase=RolloutPhase.PAUSED, opened=2,
            text="51 of 51 failed", created_by="ada",
        )
    )  # fmt: skip
    code, text, _ = _run("rollouts", "show", fleet.state.path, "r1")
    head, table, troubled = text.split("\n\n")
    names, canary, rest = (line.split("\t") for line in table.splitlines())
    rows = [dict(zip(names, line, strict=True)) for line in (canary, rest)]
    assert (code, [row["failed"] for row in rows], rows[0]["forecast_bytes"], rows[0]["air_bytes"]) == (
        0, ["0", "51"], "1000", "990"
    )  # fmt: skip
    assert "created by  ada" in head
    assert "51 of 51 failed" in head
    assert "whenever you look" in head
    assert len(troubled.splitlines()) == 1 + 50 + 1
    assert "and 1 more" in troubled
    document = json.loads(_run("rollouts", "show", fleet.state.path, "r1", "--json")[1])
    assert (len(document["troubled"]), document["groups"][1]["failed"]) == (51, 51)
    assert document["failing"]["at_most"] <= 1
    code, _, error = _run("rollouts", "show", fleet.state.path, "nobody")
    assert (code, "rollouts list" in error) == (1, True)


@pytest.fixture
def paused(state: StateDirectory, clock: FakeClock) -> Iterator[RolloutService]:
    """A running server: in ``r1``, paused, canary ``a`` failed and ``b`` waits; ``r2`` waits for approval."""
    app = ServerApp.open(
        state.path, transport=MemoryTransport(broker=MemoryBroker(), client_id="server"), clock=clock, pages=False
    )
    groups = (
        Group(name="canary", success_ratio=1.0, error_ratio=0.0),
        Group(name="rest", success_ratio=1.0, error_ratio=0.0),
    )
    for device in "abcd":
        app.parts.enrolment.enrol(app.parts.enrolment.claim("berlin", device, {}))
    for identity, members, phase in (
        (
            "r1",
            (Member(device="a", group=0, standing=MemberStanding.FAILED, gen=1), Member(device="b", group=1)),
            RolloutPhase.PAUSED,
        ),
        ("r2", (Member(device="c", group=0), Member(device="d", group=1)), RolloutPhase.AWAITING_APPROVAL),
    ):
        opened = int(phase is RolloutPhase.PAUSED)
        app.parts.rollouts.ledger.add(
            Rollout(
                id=identity, release="m-2", groups=groups, members=members, phase=phase, opened=opened, dynamic=False
            )
        )
    app.start()
    yield app.parts.rollouts
    app.stop()


def test_resume_and_skip_group_say_whom_they_tell_and_ask(state: StateDirectory, paused: RolloutService) -> None:
    """A no changes nothing; a yes is recorded with its name."""
    asked = CliRunner().invoke(main, ["resume", str(state.path), "r1"], input="n\n")
    assert (asked.exit_code, "assigned on connecting: a" in asked.stdout) == (1, True)
    assert paused.get("r1").phase is RolloutPhase.PAUSED
    skip = ("rollouts", "skip-group", state.path, "r1", "--by", "ada", "--yes", "--group")
    refused, _, error = _run(*skip, "rest")
    assert (refused, error.startswith("error [rollout_refused]: Expected an open group")) == (1, True)
    done, out, _ = _run(*skip, "canary")
    assert (done, "assigned on connecting: b" in out) == (0, True)
    assert paused.get("r1").groups[0].skipped_by == "ada"


@pytest.mark.parametrize(
    ("given", "named"),
    [((), "Expected --group NAME and --by PERSON"), (("--group", "canary", "--by", " "), "Expected --by PERSON")],
)
def test_skip_group_names_all_that_it_misses_at_once(state: StateDirectory, given: tuple[str, ...], named: str) -> None:
    """Not one a try."""
    done = CliRunner().invoke(main, ["rollouts", "skip-group", str(state.path), "r1", *given])
    assert (done.exit_code, named in done.output) == (2, True)


def test_approve_pause_and_abort_say_what_they_do_and_ask(state: StateDirectory, paused: RolloutService) -> None:
    """Each lists the affected devices beforehand; person and reason are recorded."""
    told = "1 device assigned on connecting: c; opens canary"
    for answer in ("n\n", ""):  # a no, and nobody there
        asked = CliRunner().invoke(main, ["rollout", "approve", str(state.path), "r2"], input=answer)
        assert (asked.exit_code, asked.stdout.splitlines()[0]) == (1, told)
        assert "error [not_agreed]: Expected yes, got no: nothing was changed; --yes skips the question" in asked.stderr
    assert paused.get("r2").phase is RolloutPhase.AWAITING_APPROVAL
    for act, options, phase, text in (
        ("approve", (), "running", "Approved by ada"),
        ("pause", ("--why", "cam-7 first"), "paused", "Paused by ada: cam-7 first"),
        ("abort", ("--why", "wrong labels"), "aborting", "Aborted by ada: wrong labels"),
    ):
        code, out, _ = _run("rollouts", act, state.path, "r2", "--by", "ada", "--yes", *options)
        assert (code, out.splitlines()[-1]) == (0, f"r2 {phase}")
        assert paused.get("r2").text.startswith(text)
    assert {"ada"} == {one.data["by"] for one in paused.events.latest() if one.code in {"approved", "aborted"}}


@pytest.mark.parametrize(("act", "code"), [("approve", "rollout_phase"), ("pause", "rollout_phase"), ("abort", "")])
def test_a_steering_command_out_of_its_phase_is_refused(
    state: StateDirectory, paused: RolloutService, act: str, code: str
) -> None:
    """A paused rollout is neither approved nor paused, but it may be aborted; as JSON only the answer is printed."""
    status, out, error = _run("rollouts", act, state.path, "r1", "--yes", "--json")
    assert (status, f"error [{code}]: Expected a rollout that is" in error) == (int(bool(code)), bool(code))
    assert code or (json.loads(out)["phase"], paused.get("r1").code) == ("aborting", "aborted")


@pytest.mark.parametrize("act", ["approve", "pause", "resume", "abort"])
def test_steering_without_a_running_server_says_how_to_start_it(state: StateDirectory, act: str) -> None:
    """Nothing is changed behind the back of a server."""
    code, _, error = _run("rollouts", act, state.path, "r1", "--yes")
    assert (code, error.startswith("error [not_running]"), "fleet-server run" in error) == (1, True, True)


@pytest.mark.broker
def test_run_serves_until_it_is_told_to_stop(state: StateDirectory) -> None:
    """SIGTERM ends server and broker, in order, with exit code 0."""
    command = [sys.executable, "-m", "server.cli", "run", str(state.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        ready, _, _ = select.select([process.stdout], [], [], 30)
        assert ready
        assert process.stdout.readline().startswith("http http://127.0.0.1:")
        assert process.stdout.readline().startswith("mqtt 127.0.0.1:")
        code, out, _ = _run("status", state.path)
        assert (code, json.loads(out)["pid"]) == (0, process.pid)
        broker = int((state.broker / "mosquitto.pid").read_text())
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(20) == 0
    assert not Path(f"/proc/{broker}").exists()


def test_devices_are_commissioned_again_and_listed(fleet: MemoryFleet) -> None:
    """One, and all of a site; by whom and why, in the order of the columns and as JSON."""
    for device in ("cam-1", "cam-2"):
        fleet.enrol(device)
    path = fleet.state.path
    code, out, _ = _run("devices", "commission", path, "cam-1", "--why", "lens replaced", "--by", "Ada")
    device, from_ms = out.split()
    assert (code, device, int(from_ms) % 3_600_000) == (0, "cam-1", 0)
    of_a_site = ("devices", "commission", path, "--attribute", "site=berlin", "--why", "lamps", "--by", "Ada")
    code, out, error = _run(*of_a_site)  # nobody is there to answer
    assert (code, out, "2 devices: cam-1, cam-2. Their baselines begin anew" in error) == (1, "", True)
    code, out, _ = _run(*of_a_site, "--yes")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["cam-1", "cam-2"])
    listed = _run("commissions", path)[1].splitlines()
    assert listed[0] == "id\tdevice\tfrom_ms\tdecided_ms\tdecided_by\tattribute\tvalue\twhy"
    assert listed[1].split("\t")[1::3] == ["cam-2", "Ada", "lamps"]
    assert [one["why"] for one in json.loads(_run("commissions", path, "--json")[1])] == [
        "lamps", "lamps", "lens replaced"
    ]  # fmt: skip
    code, out, _ = _run("devices", "commission", path, "cam-1", "--why", "lens again", "--by", "Ada", "--json")
    assert [(one["device"], one["why"], one["decided_by"]) for one in json.loads(out)] == [
        ("cam-1", "lens again", "Ada")
    ]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["cam-9", "--why", "x"], 1, "error [unknown_device]"),
    (["cam-1", "--why", " "], 1, "error [commission_refused]: Expected a reason and a name, got no reason"),
    (["--attribute", "site=rome", "--why", "x"], 1, "error [commission_refused]: Expected an attribute"),
    (["--attribute", "rome", "--why", "x"], 2, "Expected KEY=VALUE"),
    (["cam-1", "--attribute", "site=berlin", "--why", "x"], 2, "one of them"),
    (["--why", "x"], 2, "one of them"),
    (["cam-1"], 2, "--why"),
])  # fmt: skip
def test_a_commission_that_says_too_little_is_refused(
    fleet: MemoryFleet, arguments: list[str], code: int, text: str
) -> None:
    """With what is missing; nothing is written."""
    fleet.enrol("cam-1")
    refused, _, error = _run("devices", "commission", fleet.state.path, *arguments)
    assert (refused, text in error) == (code, True)
    assert _run("commissions", fleet.state.path, "--json")[1].strip() == "[]"


def test_a_place_that_nobody_accepted_is_not_withdrawn(fleet: MemoryFleet) -> None:
    """In words, with an exit code."""
    fleet.enrol("cam-1")
    code, _, error = _run("places", "withdraw", fleet.state.path, "cam-1", "--why", "a mistake")
    assert (code, error.startswith("error [no_new_place]: Expected a device whose place a person accepted")) == (
        1,
        True,
    )


def test_a_reader_that_ends_early_is_no_error(fleet: MemoryFleet) -> None:
    """As in ``fleet-server devices list DIR | head -1``."""
    program = str(Path(sys.executable).with_name("fleet-server"))
    for number in range(300):
        fleet.enrol(f"cam-{number:03}", "a-site-with-a-name-that-fills-the-pipe-with-many-bytes-soon")
    with subprocess.Popen(
        [program, "audit", "export", str(fleet.state.path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.read(10)
        done.stdout.close()
        assert done.stderr.read() == b""
