"""Runs a module in a child process on the files of a folder, so that a crash does not end the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TAIL = 200


def environment() -> dict[str, str]:
    """Return an environment in which a child finds the same modules as this process."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(module: str, folder: Path, limit_s: float) -> subprocess.CompletedProcess[bytes]:
    """Run ``python -m module folder`` and return its exit status and output.

    Raises:
        subprocess.TimeoutExpired: If it took longer than ``limit_s``; it is killed.
    """
    return subprocess.run(
        [sys.executable, "-m", module, str(folder)], stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s,
        check=False, env=environment(),
    )  # fmt: skip


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line that a child wrote to stderr, "" if it wrote nothing."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:_TAIL] if lines else ""
