"""``scripts/setup``: one virtual environment serves one checkout, and is installed into again when that changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("pyproject.toml", "constraints.txt", "constraints-tflite.txt", "scripts/setup")
PYTHON = '#!/bin/sh\n[ "$2" = pip ] && echo "$PWD" >> "$CALLS"\nexit 0\n'


def checkout(folder: Path) -> Path:
    """Return a folder with the files that setup reads."""
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def set_up(at: Path, venv: Path) -> subprocess.CompletedProcess[str]:
    """Run setup in the checkout ``at`` with this virtual environment."""
    calls = venv.parent / "calls"
    env = {**os.environ, "TINYFLEET_VENV": str(venv), "CALLS": str(calls), "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    command = [at / "scripts" / "setup", "demo"]
    return subprocess.run(command, env=env, check=False, capture_output=True, text=True, timeout=60)


def installed_from(venv: Path) -> list[str]:
    """Return from where pip has been called so far."""
    return (venv.parent / "calls").read_text().split()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment whose pip only notes from where it was called."""
    made = tmp_path / "venv"
    (made / "bin").mkdir(parents=True)
    for name in ("python", "mosquitto"):
        (made / "bin" / name).write_text(PYTHON)
        (made / "bin" / name).chmod(0o755)
    return made


def test_a_second_run_installs_nothing(tmp_path: Path, venv: Path) -> None:
    """Nothing has changed."""
    first = checkout(tmp_path / "first")
    assert [set_up(first, venv).returncode for _ in range(2)] == [0, 0]
    assert installed_from(venv) == [str(first)]


def test_a_virtual_environment_of_another_checkout_is_refused(tmp_path: Path, venv: Path) -> None:
    """Its editable install would be replaced, and the other checkout would silently run this one's code."""
    first, second = checkout(tmp_path / "first"), checkout(tmp_path / "second")
    assert set_up(first, venv).returncode == 0
    done = set_up(second, venv)
    assert done.returncode == 4
    assert f"of this checkout ({second}), got {venv}, which is that of {first}" in done.stderr
    assert "set TINYFLEET_VENV to another directory" in done.stderr
    assert installed_from(venv) == [str(first)]
    assert set_up(first, venv).returncode == 0


def test_a_checkout_that_was_moved_keeps_its_virtual_environment(tmp_path: Path, venv: Path) -> None:
    """The old place no longer needs it; links to the old place are installed again."""
    first = checkout(tmp_path / "first")
    set_up(first, venv)
    moved = first.rename(tmp_path / "moved")
    assert set_up(moved, venv).returncode == 0
    assert installed_from(venv) == [str(first), str(moved)]


def test_one_made_before_the_owner_was_noted_is_refused_too(tmp_path: Path, venv: Path) -> None:
    """The place of its package identifies the owner."""
    first, second = checkout(tmp_path / "first"), checkout(tmp_path / "second")
    set_up(first, venv)
    (venv / ".tinyfleet-checkout").unlink()
    (venv / "bin" / "python").write_text(PYTHON.replace("exit 0", f'[ "$2" = -c ] && echo "{first}"; exit 0'))
    assert set_up(second, venv).returncode == 4
