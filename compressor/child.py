"""A module run in a child process on the files of a folder: what ends the child does not end the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TAIL = 200


def environment() -> dict[str, str]:
    """Return the environment of a child that finds the modules which this process finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def run(module: str, folder: Path, limit_s: float) -> subprocess.CompletedProcess[bytes]:
    """Return how ``python -m module folder`` ended, with what it printed.

    Raises:
        subprocess.TimeoutExpired: If it took longer than ``limit_s``; it is ended then.
    """
    return subprocess.run(
        [sys.executable, "-m", module, str(folder)], stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s,
        check=False, env=environment(),
    )  # fmt: skip


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the end of what a child said on stderr, "" where it said nothing."""
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:_TAIL] if lines else ""
