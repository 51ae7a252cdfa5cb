"""The unit under a real systemd, which is process 1 of a container: start, an update, the watchdog and the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import edge_agent
import wire

if TYPE_CHECKING:
    from conftest import Device, Fleet, Wait

pytestmark = [pytest.mark.broker, pytest.mark.nightly]
PYTHON = Path("/usr/bin/python3")
UNIT = Path(edge_agent.__file__).parent / "device" / "tinyfleet-agent.service"
STATE, PROGRAM = Path("/var/lib/tinyfleet-agent"), Path("/opt/tinyfleet-agent/current")
PACKAGES = (
    "click", "google", "flatbuffers", "numpy", "numpy.libs", "onnxruntime", "paho", "PIL", "pillow.libs",
    "securesystemslib", "tuf", "urllib3",
)  # fmt: skip
MAIN = f"#!{PROGRAM}/bin/python\nfrom edge_agent.cli import main\nmain()\n"
WATCHDOG = "[Service]\nWatchdogSec=3\n"  # a minute on a device


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=120)


def _install(root: Path, device: Device) -> None:
    """Install the agent below ``root`` as scripts/install-agent does, from this environment's packages."""
    site = root / PROGRAM.relative_to("/") / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    assert _run(PYTHON, "-m", "venv", "--without-pip", site.parents[2]).returncode == 0
    here = Path(pytest.__file__).parents[1]
    for source in (*(here / name for name in PACKAGES), *(Path(one.__file__).parent for one in (edge_agent, wire))):
        if source.is_dir():
            shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (program := site.parents[2] / "bin" / "edge-agent").write_text(MAIN)
    program.chmod(0o755)
    state = root / STATE.relative_to("/")
    shutil.copytree(device.state, state, dirs_exist_ok=True)
    user = ["useradd", "--system", "--user-group", "--home-dir", STATE, "--no-create-home", "tinyfleet-agent"]
    _run("chroot", root, *user)  # it may be there
    assert _run("chroot", root, "chown", "-R", "tinyfleet-agent:tinyfleet-agent", STATE).returncode == 0
    units, settings = root / "etc/systemd/system", root / "etc/tinyfleet"
    settings.mkdir(exist_ok=True)
    config = (device.state / "agent.toml").read_text().replace('path = "inbox"', f'path = "{STATE}/inbox"')
    (settings / "agent.toml").write_text(config)
    (units / UNIT.name).write_text(UNIT.read_text().replace("@PREFIX@", ""))
    (units / f"{UNIT.name}.d").mkdir(exist_ok=True)
    (units / f"{UNIT.name}.d" / "trial.conf").write_text(WATCHDOG)
    (units / "trial.target").write_text("[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n")
    (root / "etc/machine-id").write_text("")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """This machine's file system; what is written there is thrown away."""
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("a machine of its own needs root and systemd-nspawn (apt-get install systemd-container)")
    if not PYTHON.exists() or f"3.{sys.version_info.minor}." not in _run(PYTHON, "--version").stdout:
        pytest.skip(f"{PYTHON} is not the Python of this environment, whose packages are used")
    layers, merged = tmp_path / "layers", tmp_path / "root"
    for folder in (layers, merged):
        folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=2g", "tinyfleet-test", layers)
    for name in ("upper", "work"):
        (layers / name).mkdir()
    options = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
    done = _run("mount", "-t", "overlay", "tinyfleet-test", "-o", options, merged)
    if done.returncode == 0:
        yield merged
    for folder in (merged, layers):
        _run("umount", "--lazy", folder)
    if done.returncode:
        pytest.skip(f"an overlay of the root can't be mounted: {done.stderr}")


@pytest.fixture
def machine(root: Path, fleet: Fleet) -> Iterator[tuple[Device, Callable[..., str]]]:
    """A device whose agent is installed, and a way to run commands on it."""
    device = fleet.enrol("dev", fleet.root / "dev")
    _install(root, device)
    device.state = root / STATE.relative_to("/")
    device.program.log.touch()  # the journal has it
    log = fleet.root / "boot.log"
    command = ["systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--console=pipe", "-D", str(root), "-b"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "systemd.unit=trial.target"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def run(*words: str) -> str:
        init = (children.read_text().split() or ["0"])[0]  # none yet
        return _run("nsenter", "-t", init, "-m", "-u", "-i", "-p", *words).stdout.strip()

    yield device, run
    with contextlib.suppress(IndexError, FileNotFoundError, ProcessLookupError):
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    process.wait(20)


def _shows(run: Callable[..., str], name: str) -> str:
    return run("systemctl", "show", "tinyfleet-agent", f"--property={name}", "--value")


def test_the_unit_runs_updates_is_restarted_by_the_watchdog_and_stops(
    fleet: Fleet, machine: tuple[Device, Callable[..., str]], wait: Wait
) -> None:
    """Ready once it is connected; an update within all that the unit forbids; a loop that hangs is ended."""
    device, run = machine
    wait(lambda: run("systemctl", "is-active", "trial.target") == "active", "systemd")
    run("systemctl", "start", "tinyfleet-agent")
    assert (_shows(run, "ActiveState"), _shows(run, "NRestarts")) == ("active", "0"), run("journalctl", "-n", "30")
    fleet.roll_out(fleet.release(1))
    device.reaches("committed", "tiny-1")
    wait(lambda: _shows(run, "StatusText") == "ready, tiny-1, connected", "a status")
    first = _shows(run, "MainPID")
    run("kill", "-STOP", first)
    wait(lambda: _shows(run, "NRestarts") == "1" and _shows(run, "ActiveState") == "active", "a restart")
    assert "Watchdog timeout" in run("journalctl", "-u", "tinyfleet-agent")
    wait(lambda: device.document()["state"] == "ready", "a device that serves again")
    run("systemctl", "stop", "tinyfleet-agent")
    assert (_shows(run, "ActiveState"), _shows(run, "Result")) == ("inactive", "success")
    assert "level=INFO" in run("journalctl", "-u", "tinyfleet-agent")
