"""Is a file that lasts still what was written? Flash loses bits, and half of a file at a power cut.

Decides only what a file is now, never what follows from it: that is ``reconcile``'s.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from wire.canonical import sha256_file


class Condition(StrEnum):
    """How a file, or a record in it, was found."""

    WHOLE = "whole"
    ABSENT = "absent"
    DAMAGED = "damaged"  # other bytes, no file, or one that can't be read


def condition(path: Path, sha256: str) -> Condition:
    """Return how the file at ``path``, which should have the digest ``sha256``, is. Reads all of it."""
    try:
        return Condition.WHOLE if sha256_file(path) == sha256 else Condition.DAMAGED
    except FileNotFoundError:
        return Condition.ABSENT
    except OSError:
        return Condition.DAMAGED
