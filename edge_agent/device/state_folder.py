"""Checks, once before enrolment, that a folder may become an agent's state directory.

The agent changes the folder's mode, empties folders in it (``measure``, ``blobs``) and consumes the files in ``inbox``.
A folder with anything else in it, such as a home directory, a project or ``/tmp``, is refused.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import EnrolmentError

_TRACES = frozenset({"root.json", "status.json", "spool.db", "floor.json"})
"""Files of an agent that was enrolled here before; its identity may have been removed in order to enrol again."""
ROOM = "enrol.room"
"""Reserves room while a claim is exchanged; a power cut leaves it behind."""
_PREPARED_FOLDERS = frozenset({"inbox", "lost+found"})
_PREPARED_SUFFIXES = frozenset({".toml", ".pem", ".crt", ".claim", ".log"})


def check_folder(state: Path) -> None:
    """Check that ``state`` is new, empty, prepared for an agent (``agent.toml``, certificates), or was used by one.

    Raises:
        EnrolmentError: If it contains anything else.
        OSError: If it can't be read.
    """
    if not state.exists():
        return
    found = sorted(state.iterdir())
    if any(path.name in _TRACES for path in found):
        return
    foreign = [path.name for path in found if not _prepared(path)]
    if foreign:
        message = f"Expected a new or empty state directory, got {state} with {', '.join(foreign[:3])}"
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""  # noqa: PLR2004 - as many are named
        raise EnrolmentError(f"{message}{more}: the agent empties folders there; give it one of its own by --state")


def _prepared(path: Path) -> bool:
    if path.is_dir():
        return path.name in _PREPARED_FOLDERS
    return path.suffix in _PREPARED_SUFFIXES or path.name in {ROOM, f".{ROOM}.new"}
