"""The application is asked before a switch: real programs, each answer, and an update that waits for it."""

import os
import pwd
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.config import HookConfig
from edge_agent.updater.hook import ProgramHook
from edge_agent.updater.ports import Consent, MemoryHook, Refusal
from wire.messages import UpdatePhase

ASK_AGAIN_S = 60.0
BUSY = Refusal("application_busy", "line 2 runs")


def ask(tmp_path: Path, text: str, **options: object) -> Consent | Refusal:
    """Return the answer of a program of this text."""
    program = tmp_path / "idle"
    program.write_text(f"#!{sys.executable}\nimport os, sys, time, subprocess\n{text}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    config = HookConfig(before_switch=(str(program), "--line", "2"), **options)  # type: ignore[arg-type]
    return ProgramHook(config).ask("m-2", "m-1")


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("sys.exit(0)", "", ""),
        ("print('line', sys.argv[2], 'runs'); sys.exit(75)", "application_busy", "asks to wait: line 2 runs"),
        ("sys.exit(3)", "hook_failed", "(busy) of "),
        ("os.kill(os.getpid(), 11)", "hook_failed", "got -11"),
        ("raise KeyError('x')", "hook_failed", "KeyError: 'x'"),
        ("print('x' * 10_000_000, 'end'); sys.exit(75)", "application_busy", "x end"),
    ],
)
def test_the_exit_code_is_the_answer(tmp_path: Path, text: str, code: str, says: str) -> None:
    """What it wrote last stands in the text, and no more of it than a person reads."""
    found = ask(tmp_path, text)
    assert (getattr(found, "code", ""), says in getattr(found, "text", "")) == (code, True)
    assert len(getattr(found, "text", "")) < 600


def test_a_program_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """And named; its child does not outlive it."""
    text = f"p = subprocess.Popen(['sleep', '60']); open('{tmp_path}/pid', 'w').write(str(p.pid)); time.sleep(60)"
    found = ask(tmp_path, text, timeout_s=1.5)
    assert (found.code, f"{tmp_path}/idle in 1.5 s" in found.text) == ("hook_hung", True)
    path, end_s = Path("/proc") / (tmp_path / "pid").read_text() / "stat", time.monotonic() + 5
    while path.exists() and path.read_text().split()[2] != "Z":
        assert time.monotonic() < end_s


def test_a_program_that_closed_its_output_is_still_waited_for(tmp_path: Path) -> None:
    """Its end counts, not that of its output; the time limit holds here too."""
    assert ask(tmp_path, "os.close(1); os.close(2); time.sleep(0.2); os._exit(75)").code == "application_busy"
    assert ask(tmp_path, "os.close(1); os.close(2); time.sleep(60)", timeout_s=1.0).code == "hook_hung"


def test_it_gets_the_names_and_nothing_else_of_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable, file or working folder, and no way to gain rights."""
    monkeypatch.setenv("TOKEN", "secret")
    text = (
        "status = open('/proc/self/status').read(); fds = sorted(os.listdir('/proc/self/fd'))\n"
        "print(sorted(os.environ), os.getcwd(), 'NoNewPrivs:\\t1' in status, fds[:3], len(fds)); sys.exit(75)"
    )
    found = ask(tmp_path, text)
    assert "['LANG', 'LC_CTYPE', 'PATH', 'TINYFLEET_CURRENT', 'TINYFLEET_RELEASE'] / True" in found.text.replace(
        "['LANG', 'PATH'", "['LANG', 'LC_CTYPE', 'PATH'"
    )
    assert found.text.endswith("['0', '1', '2'] 4")  # and the folder that it lists


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_root_gives_it_the_rights_of_another_user() -> None:
    """Alone of those: no group of root remains."""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        program = Path(folder) / "idle"  # in a shell: root's Python may be closed to others
        program.write_text("#!/bin/sh\nid -u; id -G; exit 75\n")
        program.chmod(0o755)
        nobody = pwd.getpwnam("nobody")
        found = ProgramHook(HookConfig(before_switch=(str(program),), user="nobody")).ask("m-2", "m-1")
    assert found.text.endswith(f": {nobody.pw_uid} {nobody.pw_gid}")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (HookConfig(before_switch=("/nowhere/idle",)), "/nowhere/idle"),
        (HookConfig(before_switch=("/bin/true",), user="nobody-here"), "Expected the user 'nobody-here'"),
    ],
)
def test_a_program_that_can_not_run_is_named(config: HookConfig, says: str) -> None:
    """Nothing is switched without the answer."""
    found = ProgramHook(config).ask("m-2", "m-1")
    assert (found.code, says in found.text) == ("hook_failed", True)


def _asking(device: object, release: Callable, *answers: Consent | Refusal) -> MemoryHook:
    """Bring release 2 beside release 1 to the question."""
    device.install(release(1))
    hook = MemoryHook(list(answers))
    device.updater.ports = replace(device.updater.ports, hook=hook, ask_again_s=ASK_AGAIN_S)
    device.phases.clear()
    device.offer(device.publish(release(2)).desired)
    device.work()
    return hook


def test_an_idle_application_is_switched(device: object, release: Callable) -> None:
    """It is asked once, about the release after the one that it has."""
    hook = _asking(device, release, Consent())
    assert (hook.asked, device.current()) == ([("m-2", "m-1")], "m-2")


def test_a_busy_application_is_asked_again_and_the_release_verified_before_the_switch(
    device: object, release: Callable
) -> None:
    """While it is busy, nothing is downloaded, probed or reported again; both sides of the wait."""
    hook = _asking(device, release, BUSY, BUSY, Consent())
    assert device.phases == ["offered", "downloading", "verifying", "application_busy"]
    assert (device.updater.status.text, device.updater.status.until_ms) == ("line 2 runs", device.now_ms + 60_000)
    for seconds, asked in ((ASK_AGAIN_S - 1, 1), (1, 2)):
        device.pass_time(seconds)
        device.work()
        assert (len(hook.asked), len(device.phases)) == (asked, 4)
    device.pass_time(ASK_AGAIN_S)
    device.work()
    assert (device.current(), len(hook.asked)) == ("m-2", 4)
    assert device.phases[4:] == ["downloading", "verifying", "staged", "probation"]


def test_busy_until_the_deadline_ends_the_attempt(device: object, release: Callable) -> None:
    """The release before serves on."""
    hook = _asking(device, release, BUSY)
    device.offer(replace(release(2).desired, gen=9, deadline_ms=device.now_ms + 100_000))
    device.work()
    device.pass_time(101)
    device.work()
    assert (device.updater.record.code, device.current(), len(hook.asked)) == ("deadline_passed", "m-1", 2)


def test_a_newer_assignment_ends_the_question(device: object, release: Callable) -> None:
    """An answer that comes later counts for nothing."""
    _asking(device, release, BUSY)
    device.pass_time(ASK_AGAIN_S)
    device.offer(replace(release(1).desired, gen=9))
    device.work()
    assert (device.current(), device.updater.record.phase) == ("m-1", UpdatePhase.COMMITTED)


def test_a_restart_asks_again_before_the_switch(device: object, release: Callable) -> None:
    """A power cut is no consent."""
    hook = _asking(device, release, BUSY)
    device.restart()
    device.updater.ports = replace(device.updater.ports, hook=hook, ask_again_s=ASK_AGAIN_S)
    device.pass_time(0)
    device.work()
    assert (device.current(), device.updater.record.code, len(hook.asked)) == ("m-1", "application_busy", 2)


def test_nobody_is_asked_about_the_first_release_or_the_way_back(device: object, release: Callable) -> None:
    """There is nothing to disturb, or it fails."""
    hook = MemoryHook([BUSY])
    device.updater.ports = replace(device.updater.ports, hook=hook)
    device.install(release(1))
    hook.answers = [Consent()]
    device.offer(device.publish(release(2)).desired)
    device.work()
    hook.answers = [BUSY]
    device.updater.health = device.updater.health.crashed()
    device.pass_time(0)
    assert (device.current(), len(hook.asked)) == ("m-1", 1)
