"""The output of ``edge-agent status`` for a live, dead, silent or waiting agent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge_agent.cli import main
from edge_agent.control.status_file import EVERY_S, STALE_S, StatusFile, read_status
from edge_agent.device.disk import RealDisk
from edge_agent.device.identity import Identity
from edge_agent.device.lock import AgentLock, holder
from edge_agent.device.record_file import write_record
from edge_agent.errors import IdentityInUseError
from wire.codec import to_document

SERVES = {"current": {"release": "m-1"}, "serving": True, "safe_mode": False, "state": "ready", "connected": True}


def status(state: Path, *options: str) -> tuple[int, str]:
    """Return exit code and output of the command."""
    result = CliRunner().invoke(main, ["status", "--state", str(state), *options])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("changed", "code", "word"),
    [
        ({}, 0, "serving"),
        ({"connected": False}, 0, "serving"),
        ({"state": "updating"}, 0, "serving"),
        ({"serving": False}, 8, "degraded"),
        ({"safe_mode": True}, 8, "degraded"),
        ({"state": "degraded"}, 8, "degraded"),
        ({"state": "degraded", "reason": "answers_nothing"}, 8, "answers nothing"),
        ({"state": "updating", "reason": "answers_nothing"}, 8, "answers nothing"),
        ({"state": "degraded", "reason": "answers_nothing", "serving": False}, 8, "degraded"),
        ({"current": None, "serving": False, "state": "init"}, 8, "waiting for a first release"),
        ({"current": None, "serving": False, "state": "updating"}, 8, "waiting for a first release"),
        ({"current": None, "serving": False, "state": "degraded"}, 8, "degraded"),
        ({"current": None, "serving": False, "state": "init", "refused": "no (135)"}, 8, "refused by the broker"),
        ({"refused": "no (135)"}, 0, "serving"),
    ],
)
def test_a_running_agent_is_judged_by_what_it_said(
    tmp_path: Path, changed: dict[str, object], code: int, word: str
) -> None:
    """Exit code and first line give its state; the network is not checked."""
    lock = AgentLock(tmp_path)
    StatusFile(tmp_path).write({**SERVES, **changed}, {}, 0.0)
    found = status(tmp_path)
    lock.release()
    assert (found[0], found[1].splitlines()[0]) == (code, f"agent        {word}, pid {os.getpid()}")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"unread": {"ignored": 2, "names": ["a.csv", "b.csv"], "text": "they hold rows"}},
            "inputs       none answered since the last answer: it ignores 2 files (a.csv, b.csv): they hold rows",
        ),
        (
            {"update": {"phase": "committed", "answered": 0}},
            "inputs       none yet: the source has given nothing that was answered, and nothing lies unread",
        ),
        (
            {"update": {"phase": "committed", "answered": 0}, "unread": {"refused": 1}},
            "inputs       none answered yet: it refused 1 input",
        ),
        (
            {"update": {"phase": "probation"}, "unread": {"refused": 1, "never": True}},
            "inputs       none answered yet: it refused 1 input",
        ),
        ({"update": {"phase": "committed", "answered": 3}}, ""),
    ],
)
def test_inputs_without_an_answer_are_named(tmp_path: Path, given: dict[str, object], line: str) -> None:
    """What is ignored, with the step; a source that gave nothing yet is said to be silent."""
    AgentLock(tmp_path).release()
    StatusFile(tmp_path).write({**SERVES, **given}, {}, 0.0)
    found = [one for one in status(tmp_path)[1].splitlines() if one.startswith("inputs ")]
    assert found == [line] * bool(line)


def test_the_update_has_no_count_of_its_commit(tmp_path: Path) -> None:
    """It reads like one of now; the document has it."""
    AgentLock(tmp_path).release()
    StatusFile(tmp_path).write({**SERVES, "update": {"phase": "committed", "answered": 2}}, {}, 0.0)
    assert "update       phase=committed" in status(tmp_path)[1].splitlines()
    assert json.loads(status(tmp_path, "--json")[1])["update"]["answered"] == 2


@pytest.mark.parametrize("refused", ["", "Not authorized (135)"])
def test_a_refusal_by_the_broker_is_named_with_the_next_step(tmp_path: Path, refused: str) -> None:
    """A revoked device waits in vain; one that still serves reports it too."""
    AgentLock(tmp_path).release()
    StatusFile(tmp_path).write({**SERVES, "refused": refused}, {}, 0.0)
    line = "broker       refused this device: Not authorized (135): it is revoked or unknown there: ask the operator"
    assert (line in status(tmp_path)[1].splitlines()) is bool(refused)


@pytest.mark.parametrize(("age_s", "code"), [(STALE_S - 5, 0), (STALE_S + 5, 9)])
def test_an_agent_that_says_nothing_is_stale(tmp_path: Path, age_s: float, code: int) -> None:
    """The lock shows that it is alive, but its last status is too old to be trusted."""
    lock = AgentLock(tmp_path)
    StatusFile(tmp_path).write(SERVES, {}, 0.0)
    document = json.loads((tmp_path / "status.json").read_bytes())
    document["written_monotonic_s"] -= age_s
    (tmp_path / "status.json").write_text(json.dumps(document))
    found = status(tmp_path, "--json")
    lock.release()
    assert (found[0], json.loads(found[1])["age_s"]) == (code, pytest.approx(age_s, abs=3.0))


def test_a_full_disk_is_no_hang(tmp_path: Path) -> None:
    """If no new file can be created the old one is overwritten: the agent serves, and its status stays recent."""
    lock, file = AgentLock(tmp_path), StatusFile(tmp_path)
    file.write({**SERVES, "reason": "long" * 50}, {}, 0.0)
    document = json.loads((tmp_path / "status.json").read_bytes())
    (tmp_path / "status.json").write_text(json.dumps({**document, "written_monotonic_s": time.monotonic() - 1000}))
    (tmp_path / "status.new").mkdir()  # in the way of a new file, as a full disk is
    assert file.write(SERVES, {}, EVERY_S)
    found = status(tmp_path, "--json")
    lock.release()
    assert (found[0], json.loads(found[1])["age_s"] < 60) == (0, True)


def test_a_status_of_another_boot_of_the_machine_is_stale(tmp_path: Path) -> None:
    """A monotonic time in the future is not of this boot: the agent has just started and written nothing yet."""
    lock = AgentLock(tmp_path)
    StatusFile(tmp_path).write(SERVES, {}, 0.0)
    document = json.loads((tmp_path / "status.json").read_bytes())
    (tmp_path / "status.json").write_text(json.dumps({**document, "written_monotonic_s": time.monotonic() + 1e6}))
    code, output = status(tmp_path)
    lock.release()
    assert (code, "age          unknown" in output) == (9, True)


def test_a_killed_agent_is_not_running_whatever_it_said(tmp_path: Path) -> None:
    """Kill -9 of a real agent: the file still has its last state, the lock shows that no process has it."""
    write_record(
        RealDisk(),
        tmp_path / "identity.json",
        to_document(
            Identity(site="s", device="d", password="x", mqtt_host="127.0.0.1", mqtt_port=9, http_url="http://h")
        ),
    )
    command = [sys.executable, "-c", "from edge_agent.cli import main; main()", "run", "--state", str(tmp_path)]
    agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (tmp_path / "status.json").exists():
        assert time.monotonic() < deadline
    assert (holder(tmp_path), status(tmp_path)[0]) == (agent.pid, 8)
    agent.send_signal(signal.SIGKILL)
    agent.wait(10)
    code, output = status(tmp_path)
    assert (code, output.splitlines()[0]) == (7, "agent        not running")
    assert json.loads(status(tmp_path, "--json")[1])["health"] == "not running"


def test_a_change_is_written_at_once_and_figures_each_minute(tmp_path: Path) -> None:
    """An agent at rest writes one small file a minute, not one a second."""
    file = StatusFile(tmp_path)
    written = [file.write(SERVES, {"idle_s": now_s}, now_s) for now_s in (0.0, 1.0, EVERY_S - 1, EVERY_S, EVERY_S + 1)]
    assert written == [True, False, False, True, False]
    assert file.write({**SERVES, "connected": False}, {}, EVERY_S + 2)
    lock = AgentLock(tmp_path)
    assert read_status(tmp_path).document["connected"] is False
    lock.release()


def test_a_reader_never_keeps_an_agent_from_starting(tmp_path: Path) -> None:
    """Readers lock only while they read: an agent that starts then tries again; two agents remain impossible."""
    script = "import sys; from pathlib import Path; from edge_agent.device.lock import holder\n"
    script += "while 1: holder(Path(sys.argv[1]))"
    AgentLock(tmp_path).release()
    reader = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])
    try:
        for _ in range(200):
            lock = AgentLock(tmp_path)
            lock.release()
        lock = AgentLock(tmp_path)
        with pytest.raises(IdentityInUseError):
            AgentLock(tmp_path)
        lock.release()
    finally:
        reader.kill()
        reader.wait(10)
