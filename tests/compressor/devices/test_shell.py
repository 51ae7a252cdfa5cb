"""What a device's shell prints, and does not print."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compressor.devices.inventory import LocalEntry, SshEntry
from compressor.devices.shell import Shell, ShellBench, shell_of
from compressor.devices.under_test import under_test
from compressor.errors import DeviceMeasureError, DeviceUnreachableError


def board(folder: Path, script: str) -> SshEntry:
    """Return a board whose ``ssh`` is a script; ``$line`` is what it is to run."""
    program = folder / "ssh"
    program.write_text(f'#!/bin/bash\nline="${{@: -1}}"\n{script}\n')
    program.chmod(0o755)
    return SshEntry(host="pi@board", command=(str(program),), python=sys.executable)


def test_a_greeting_at_every_login_is_not_part_of_the_answer(tmp_path: Path) -> None:
    """A ``.bashrc`` that prints does so for commands too: the facts are read, and bytes are those of the file."""
    entry = board(tmp_path, 'echo "Welcome to board-7!"; exec sh -c "$line"')
    assert ShellBench(name="pi", entry=entry, shell=shell_of(entry)).facts()[2]
    shell = shell_of(entry)
    shell.write(str(tmp_path / "file"), b"\x00one\n\xff")
    assert shell.run(f"cat {tmp_path / 'file'}") == b"\x00one\n\xff"


@pytest.mark.parametrize("wheel", ["", "some.whl"])
def test_a_board_that_can_not_be_reached_is_no_board_without_the_agent(tmp_path: Path, wheel: str) -> None:
    """The error has ssh's own words, nothing is installed, and no other interpreter is recommended."""
    (tmp_path / "some.whl").write_bytes(b"wheel")
    entry = board(tmp_path, 'echo "connect to host board port 22: No route to host" >&2; exit 255')
    entry = replace(entry, wheel=tmp_path / wheel if wheel else None)
    with pytest.raises(DeviceUnreachableError, match="exit 255: connect to host board port 22: No route") as caught:
        ShellBench(name="pi", entry=entry, shell=shell_of(entry)).facts()
    assert "name python" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [("sleep 60", DeviceMeasureError, "'sleep 60' to end within"), ("exit 3", DeviceMeasureError, "got exit 3")],
)
def test_a_line_that_fails_is_no_shell_that_is_missing(line: str, kind: type[Exception], words: str) -> None:
    """What began and did not end, and what ended badly, name the line."""
    with pytest.raises(kind, match=words) as caught:
        Shell(("/bin/sh", "-c")).run(line, limit_s=1.0)
    assert not isinstance(caught.value, DeviceUnreachableError)


def test_a_shell_that_never_answers_is_missing() -> None:
    """A board that hangs at the login is not reached."""
    with pytest.raises(DeviceUnreachableError, match=r"no answer within 0\.2 s"):
        Shell(("sh", "-c", "exec sleep 60")).run("true", limit_s=0.2)


def test_an_agent_that_never_ran_is_waited_for_and_named(tmp_path: Path) -> None:
    """Its status is no JSON: the wait goes on to its end, and the error has the device's words."""
    entry = LocalEntry(python=sys.executable, state=str(tmp_path / "none"), back_s=0.1)
    with pytest.raises(DeviceMeasureError, match=r"Expected an agent that serves of bench within .*identity_missing"):
        under_test("bench", entry).wait(lambda status: status["health"] == "serving", "an agent that serves")
