"""Checks whether a persistent file is still as written: flash loses bits, and half of a file at a power cut.

Decides only a file's condition; does not decide what to do about it (``reconcile`` does).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from wire.canonical import sha256_file


class Condition(StrEnum):
    """The condition of a file, or of a record in it."""

    WHOLE = "whole"
    ABSENT = "absent"
    DAMAGED = "damaged"  # other bytes, no file, or one that can't be read


def condition(path: Path, sha256: str) -> Condition:
    """Return the condition of the file at ``path``, which should have the digest ``sha256``. Reads all of it."""
    try:
        return Condition.WHOLE if sha256_file(path) == sha256 else Condition.DAMAGED
    except FileNotFoundError:
        return Condition.ABSENT
    except OSError:
        return Condition.DAMAGED
