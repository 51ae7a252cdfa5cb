"""Checks which folders may be a source whose files are consumed.

A source deletes what it has served. Therefore the agent's own folders, their parent folders, the root and the home
directory are rejected. The only folder in the state directory that may be a source is ``inbox``. Compares identities
(device, inode), so that links and mounts are resolved.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from edge_agent.errors import SourceError
from edge_agent.sources import INBOX

_Identity = tuple[int, int]


def check_placement(folder: Path, state: Path | None) -> None:
    """Check that ``folder``, which exists, may be consumed by an agent with the state directory ``state``.

    Raises:
        SourceError: If it is, contains or is inside a folder that a source must not touch.
    """
    protected = [("the root directory", Path("/"))]
    with contextlib.suppress(RuntimeError, OSError):  # there is none, or it is hidden, as by ProtectHome of systemd
        if (home := Path.home()).exists():
            protected.append(("the home directory", home))
    if state is not None:
        protected.append(("the agent's state directory", state))
    for name, kept in protected:
        if not kept.exists():
            continue
        if _identity(folder) in _chain(kept):
            raise _refused(
                folder, f"{name} ({kept})" if folder.samefile(kept) else f"a folder that holds {name}, {kept}"
            )
    if state is None or not state.exists():
        return
    inbox = state / INBOX
    if inbox.exists() and not inbox.is_symlink() and _identity(inbox) in _chain(folder):
        return
    for kept in (state, *state.iterdir()):
        if kept.name != INBOX and kept.exists() and _identity(kept) in _chain(folder):
            raise _refused(folder, f"a folder that the agent keeps its own files in, {kept}")


def _refused(folder: Path, problem: str) -> SourceError:
    return SourceError(
        f"Expected in [source] path a folder of its own, because what was served is deleted there, got {folder}: "
        f"{problem}; give the images a folder that holds nothing else, or leave path out (STATE/{INBOX})"
    )


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino


def _chain(path: Path) -> set[_Identity]:
    """Return the identities of ``path``, links resolved, and of all its parent folders."""
    resolved = path.resolve()
    return {_identity(step) for step in (resolved, *resolved.parents)}
