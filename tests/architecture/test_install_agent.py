"""`scripts/install-agent` below a prefix: what it installs, keeps and removes; and the unit, by systemd's own tool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "install-agent"
UNIT = ROOT / "edge_agent" / "device" / "tinyfleet-agent.service"


def installed(
    prefix: Path, *arguments: str | Path, script: str | Path = SCRIPT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Return a run of the script that has ended."""
    command = ["sh", str(script), "--prefix", str(prefix), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (["--runtime", "tflite"], 2, "expected --runtime onnx or litert, got 'tflite'"),
        (["--wheels"], 2, "got '--wheels'"),
        (["--wheel"], 2, "expected a value after --wheel, got none"),
        (["--purge"], 2, "expected --purge with --uninstall"),
        (["--wheel", "/nowhere.whl"], 3, "build it with scripts/package"),
    ],
)
def test_a_wrong_call_changes_nothing(tmp_path: Path, arguments: list[str], code: int, wanted: str) -> None:
    """One sentence with the next step."""
    done = installed(tmp_path / "device", *arguments)
    assert (done.returncode, wanted in done.stderr) == (code, True), done.stderr
    assert list((tmp_path / "device").glob("*")) == []


def test_an_interpreter_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """Missing, or older than 3.11; the message says what to install."""
    (old := tmp_path / "old").write_text('#!/bin/sh\n[ "$1" != --version ] || echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    for python, wanted in (("/nowhere/python", "python3-venv"), (str(old), "got Python 3.9.2")):
        done = installed(tmp_path / "device", PYTHON=python)
        assert (done.returncode, wanted in done.stderr) == (3, True), done.stderr


@pytest.mark.parametrize(
    ("wheels", "chosen"),
    [
        ({"dist/tinyfleet_agent-1.whl": 1}, "tinyfleet_agent-1.whl"),
        ({"scripts/tinyfleet_agent-2.whl": 1}, "tinyfleet_agent-2.whl"),
        ({"dist/tinyfleet_agent-1.whl": 2, "scripts/tinyfleet_agent-2.whl": 1}, "tinyfleet_agent-1.whl"),
        ({"dist/tinyfleet_agent-1.whl": 1, "scripts/tinyfleet_agent-2.whl": 2}, "tinyfleet_agent-2.whl"),
    ],
)
def test_the_newest_wheel_in_dist_or_beside_the_script_is_taken(
    tmp_path: Path, wheels: dict[str, int], chosen: str
) -> None:
    """Also if one of the two places has none; this interpreter makes no environment."""
    (python := tmp_path / "python").write_text('#!/bin/sh\n[ "$1" != -m ]\n')
    python.chmod(0o755)
    for name, at_s in wheels.items():
        (file := tmp_path / name).parent.mkdir(exist_ok=True)
        file.touch()
        os.utime(file, (at_s, at_s))
    (tmp_path / "scripts").mkdir(exist_ok=True)
    script = shutil.copy(SCRIPT, tmp_path / "scripts")
    done = installed(tmp_path / "device", script=script, PYTHON=str(python))
    assert f"installing {chosen} with onnx" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_failed_installation_leaves_nothing_half_done(tmp_path: Path) -> None:
    """A damaged wheel: no environment, no settings, no unit."""
    (wheel := tmp_path / "tinyfleet_agent-1-py3-none-any.whl").write_bytes(b"no zip file")
    done = installed(tmp_path / "device", "--wheel", wheel, TINYFLEET_PIP_ARGS="--no-index")
    assert (done.returncode, "pip could not install" in done.stderr) == (1, True), done.stderr
    assert [path for path in (tmp_path / "device").rglob("*") if path.is_file()] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")
def test_the_unit_is_valid_and_confined(tmp_path: Path) -> None:
    """By `systemd-analyze verify`, without a word; and an exposure of at most 2 of 10."""
    (program := tmp_path / "opt" / "tinyfleet-agent" / "current" / "bin" / "edge-agent").parent.mkdir(parents=True)
    shutil.copy("/bin/true", program)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("@PREFIX@", str(tmp_path)))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    security = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(security, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-300:]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the agent of this checkout is installed."""
    folder = tmp_path_factory.mktemp("device")
    build = [sys.executable, "-m", "scripts.packing", "--out", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    done = installed(folder / "root", "--wheel", next((folder / "dist").glob("tinyfleet_agent*.whl")))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.nightly
def test_the_installed_agent_answers_and_is_small(device: Path) -> None:
    """Installers, tests and headers are gone; beside runtime and numpy there are at most 15 MB; lean byte code."""
    root = device / "root"
    program = root / "opt/tinyfleet-agent/current/bin/edge-agent"
    answers = subprocess.check_output([program, "try", "--once"], text=True, cwd="/").splitlines()
    assert sum(json.loads(line)["supported"] for line in answers) >= 18
    asked = "import edge_agent.control.agent as agent; print(agent.__doc__, agent.Agent.turn.__annotations__)"
    python = program.resolve().with_name("python")
    assert subprocess.check_output([python, "-P", "-c", asked], text=True).split() == ["None", "{}"]
    site = next((root / "opt/tinyfleet-agent/current/lib").glob("python*/site-packages"))
    gone = {"pip", "setuptools", "tests", "include", "f2py"}
    assert not gone & {path.name for path in site.rglob("*") if path.is_dir()}
    assert not [*site.rglob("*.h"), *site.rglob("*.pyi")]
    of_runtime = ("numpy", "onnxruntime", "flatbuffers", "google", "packaging", "protobuf")
    parts = [path for path in site.iterdir() if not path.name.startswith(of_runtime)]
    rest = [path for part in parts for path in (part, *part.rglob("*")) if path.is_file()]
    assert sum(path.stat().st_blocks * 512 for path in rest) < 15_000_000  # a library is mostly holes


@pytest.mark.nightly
def test_state_and_settings_outlive_a_second_installation_and_a_removal(device: Path) -> None:
    """The second run changes nothing; `--uninstall` keeps the identity, `--purge` does not."""
    root, wheel = device / "root", next((device / "dist").glob("tinyfleet_agent*.whl"))
    (identity := root / "var/lib/tinyfleet-agent/identity.json").write_text("{}")
    (settings := root / "etc/tinyfleet/agent.toml").write_text("# mine\n")
    assert identity.parent.stat().st_mode & 0o777 == 0o700
    done = installed(root, "--wheel", wheel)
    assert "already installed" in done.stdout, done.stdout + done.stderr
    assert (settings.read_text(), "this device is enrolled" in done.stdout) == ("# mine\n", True)
    assert len([path for path in (root / "opt/tinyfleet-agent").iterdir() if not path.is_symlink()]) == 1
    assert installed(root, "--uninstall").returncode == 0
    assert (identity.exists(), settings.exists(), list((root / "opt").iterdir())) == (True, True, [])
    assert installed(root, "--uninstall", "--purge").returncode == 0
    assert [path for path in root.rglob("*") if path.is_file()] == []
