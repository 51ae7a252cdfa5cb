"""One agent on one state directory: an advisory lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from edge_agent.errors import IdentityInUseError


class StateLock:
    """Holds ``agent.lock`` until it is released or the process ends."""

    def __init__(self, state: Path) -> None:
        """Take the lock.

        Raises:
            IdentityInUseError: If another agent holds it.
            OSError: If the folder can't be written.
        """
        self._descriptor = os.open(state / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip()
            os.close(self._descriptor)
            message = f"Expected {state} for this agent alone, got another one running (pid {holder or 'unknown'})"
            raise IdentityInUseError(message) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)
