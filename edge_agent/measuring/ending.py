"""The end of a measurement: its result and the cleanup of its folder. Light: the control process imports it eagerly."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

FOLDER = "measure"


@dataclass(frozen=True, slots=True)
class SubmittedReport:
    """A report that the server has stored."""

    order: str
    report_sha256: str


def sweep(state: Path) -> None:
    """Delete the measurement's folder; if that fails, the next start tries again."""
    with contextlib.suppress(OSError):
        shutil.rmtree(state / FOLDER)
