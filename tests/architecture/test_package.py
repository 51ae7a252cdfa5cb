"""The wheels of `scripts/package`: the device's holds its part alone, and an environment holds one of the two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from scripts.packing.resolve import parsed
from scripts.packing.wheels import slim, toml
from wire import __version__

ROOT = Path(__file__).parents[2]
FULL, SLIM = f"tinyfleet-{__version__}-py3-none-any.whl", f"tinyfleet_agent-{__version__}-py3-none-any.whl"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_slim_project_keeps_the_device_s_dependencies_and_program() -> None:
    """Derived from the whole one: what a device needs is stated once; a build host's extras are left out."""
    project = slim(PROJECT)
    assert tomllib.loads(toml(project)) == project
    table, whole = project["project"], PROJECT["project"]
    assert (table["name"], set(table["optional-dependencies"])) == ("tinyfleet-agent", {"onnx", "litert"})
    assert table["dependencies"] == whole["dependencies"]
    assert table["optional-dependencies"]["onnx"] == whole["optional-dependencies"]["onnx"]
    assert set(table["scripts"]) == {"edge-agent"}


def test_a_wheel_of_newer_python_is_named(tmp_path: Path) -> None:
    """The file and the line of a statement that Python 3.11 does not have."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("wire/good.py", "match 1:\n    case _: pass\n")
    assert parsed(tmp_path / "a.whl") == 1
    with zipfile.ZipFile(tmp_path / "a.whl", "a") as archive:
        archive.writestr("wire/new.py", "\ntype A = int\n")
    with pytest.raises(ValueError, match=r"wire/new\.py:2"):
        parsed(tmp_path / "a.whl")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both wheels, whose bundle is trained and gated now."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "scripts.packing", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def environment(folder: Path, *wheels: Path) -> Path:
    """Return the programs' folder of a new virtual environment with the wheels; their dependencies are this one's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")) + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        f"--python={folder}/bin/python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    for wheel in wheels:
        subprocess.run([*pip, "--ignore-installed", str(wheel)], check=True)
    return folder / "bin"


def ran(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Return a program that has ended, run outside of the checkout."""
    return subprocess.run(
        command, cwd="/", capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""}
    )


@pytest.mark.nightly
def test_the_slim_wheel_holds_wire_agent_and_what_try_needs(wheels: Path) -> None:
    """Nothing of build host and server; the bundle and the pictures are in both wheels."""
    names = zipfile.ZipFile(wheels / SLIM).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"wire", "edge_agent"}
    tracked = subprocess.check_output(["git", "ls-files", "wire", "edge_agent"], cwd=ROOT, text=True).split()
    assert set(tracked) <= set(names)
    for wheel in (FULL, SLIM):
        assert {"edge_agent/try/digits.tfb", "edge_agent/try/pictures.zip"} <= set(
            zipfile.ZipFile(wheels / wheel).namelist()
        )


@pytest.mark.nightly
def test_an_installed_agent_answers_pictures_without_arguments(wheels: Path, tmp_path: Path) -> None:
    """`edge-agent try --once`: twenty answers, nearly all right and inside of the training data."""
    done = ran(environment(tmp_path, wheels / SLIM) / "edge-agent", "try", "--once")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(answers)) == (0, 20), done.stderr
    assert sum(answer["label"] == answer["id"].partition(".")[0][-1] for answer in answers) >= 18
    assert sum(answer["supported"] for answer in answers) >= 18


@pytest.mark.nightly
def test_two_distributions_in_one_environment_are_refused_by_each_program(wheels: Path, tmp_path: Path) -> None:
    """In either order; a sentence, an exit code, and no traceback; `--help` is still shown."""
    for number, order in enumerate(((FULL, SLIM), (SLIM, FULL))):
        programs = environment(tmp_path / str(number), *(wheels / name for name in order))
        for command in (
            ["edge-agent", "status", "--state", "/nowhere"],
            ["fleet-server", "run", "/nowhere"],
            ["compressor", "verify", "x"],
        ):
            done = ran(programs / command[0], *command[1:])
            assert done.returncode in {1, 3, 4}
            assert "Expected tinyfleet or tinyfleet-agent in one environment, got both" in done.stderr
            assert "Traceback" not in done.stderr
        assert ran(programs / "edge-agent", "--help").returncode == 0
