"""How a measurement ends: what the server has, and an empty folder. Light: the control process imports it at once."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

FOLDER = "measure"


@dataclass(frozen=True, slots=True)
class Measured:
    """A report that the server has."""

    order: str
    report_sha256: str


def sweep(state: Path) -> None:
    """Remove everything of a measurement; what can't be removed is tried again at the next start."""
    with contextlib.suppress(OSError):
        shutil.rmtree(state / FOLDER)
