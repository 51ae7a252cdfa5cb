"""``scripts/setup`` installs again where what it installed from is another: pins, itself, or the checkout's place."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("pyproject.toml", "constraints.txt", "constraints-tflite.txt", "scripts/setup")
PYTHON = '#!/bin/sh\n[ "$2" = pip ] && echo "$PWD" >> "$CALLS"\nexit 0\n'


def checkout(folder: Path) -> Path:
    """Return a folder with what setup reads."""
    for name in NEEDED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def set_up(at: Path, venv: Path) -> list[str]:
    """Run setup in the checkout ``at`` with this virtual environment; return from where pip has been called so far."""
    calls = venv.parent / "calls"
    env = {**os.environ, "TINYFLEET_VENV": str(venv), "CALLS": str(calls), "PATH": f"{venv}/bin:{os.environ['PATH']}"}
    subprocess.run([at / "scripts" / "setup", "demo"], env=env, check=True, capture_output=True)
    return calls.read_text().split()


def test_a_virtual_environment_of_another_checkout_is_installed_into_again(tmp_path: Path) -> None:
    """Its editable install points to the other place: the command would not find its package."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for name in ("python", "mosquitto"):
        (venv / "bin" / name).write_text(PYTHON)
        (venv / "bin" / name).chmod(0o755)
    first, second = checkout(tmp_path / "first"), checkout(tmp_path / "second")
    assert set_up(first, venv) == [str(first)]
    assert set_up(first, venv) == [str(first)]
    assert set_up(second, venv) == [str(first), str(second)]
