"""One agent on one state directory: an advisory lock that ends with the process that holds it.

To find out whether an agent runs, try the lock; the process id in the file outlives its writer and only names the
current holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from edge_agent.errors import IdentityInUseError

FILE = "agent.lock"
_TRIES = 20
_PAUSE_S = 0.02  # a reader holds the lock for microseconds while it checks


class AgentLock:
    """Holds ``agent.lock`` until it is released or the process ends."""

    def __init__(self, state: Path) -> None:
        """Take the lock.

        Raises:
            IdentityInUseError: If another agent holds it.
            OSError: If the folder can't be written.
        """
        self._descriptor = os.open(state / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        for _ in range(_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_PAUSE_S)
        else:
            pid = _pid(self._descriptor)
            os.close(self._descriptor)
            message = f"Expected {state} for this agent alone, got another one running (pid {pid or 'unknown'})"
            raise IdentityInUseError(message)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Release the lock and clear the process id in the file."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def holder(state: Path) -> int:
    """Return the process id of the agent that runs on ``state``; 0 if none does, -1 if its id is unknown.

    Raises:
        OSError: If the lock file exists and can't be opened.
    """
    try:
        descriptor = os.open(state / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor) or -1
    finally:
        os.close(descriptor)
    return 0


def _pid(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else 0
